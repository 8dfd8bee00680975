from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.kernels.helpers import assert_refuses_bad_arrays, each_isa, each_token_count, normal
from tusi import kernels
from tusi.kernels import reference

F32 = NDArray[np.float32]

# Both round a few times in float32, in another order.
CLOSE = {"rtol": 2e-6, "atol": 2e-6}


@each_isa
@each_token_count
@pytest.mark.parametrize("width", [1, 7, 8, 20, 64, 515])
def test_norms_equal_the_reference_also_in_place(tokens: int, width: int, isa: str) -> None:
    x_TD, weight_D, bias_D = normal(tokens, width, scale=3.0), normal(width, seed=1), normal(width, seed=2)
    rms = kernels.rms_norm(x_TD, weight_D, 1e-5, isa=isa)
    np.testing.assert_allclose(rms, reference.rms_norm(x_TD, weight_D, 1e-5), **CLOSE)
    layer = kernels.layer_norm(x_TD, weight_D, bias_D, 1e-6, isa=isa)
    if width > 1:  # of one number nothing remains but the rounding of its mean
        np.testing.assert_allclose(layer, reference.layer_norm(x_TD, weight_D, bias_D, 1e-6), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(kernels.rms_norm(x := x_TD.copy(), weight_D, 1e-5, out=x, isa=isa), rms)
    np.testing.assert_array_equal(kernels.layer_norm(x := x_TD.copy(), weight_D, bias_D, 1e-6, out=x, isa=isa), layer)
    np.testing.assert_array_equal(kernels.rms_norm(x_TD, weight_D, 1e-5, isa="generic"), rms)
    np.testing.assert_array_equal(kernels.layer_norm(x_TD, weight_D, bias_D, 1e-6, isa="generic"), layer)


@each_isa
def test_a_row_that_is_not_finite_spoils_no_other(isa: str) -> None:
    x_TD = normal(3, 37)
    x_TD[1, 30], weight_D, bias_D = np.nan, normal(37, seed=1), normal(37, seed=2)
    for normed in (
        kernels.rms_norm(x_TD, weight_D, 1e-5, isa=isa),
        kernels.layer_norm(x_TD, weight_D, bias_D, 1e-5, isa=isa),
    ):
        np.testing.assert_array_equal(np.isnan(normed).all(axis=1), [False, True, False])
        assert np.isfinite(normed[[0, 2]]).all()


@each_isa
@each_token_count
@pytest.mark.parametrize("width", [1, 9, 512])
def test_activations_equal_the_reference(tokens: int, width: int, isa: str) -> None:
    x = normal(tokens, width * 2, scale=8.0)
    np.testing.assert_allclose(kernels.silu_and_mul(x, isa=isa), reference.silu_and_mul(x), rtol=2e-6, atol=1e-30)
    # 1 + erf cancels for negative x: the error is absolute there, one rounding of 1 times x.
    np.testing.assert_allclose(kernels.gelu(x), reference.gelu(x), rtol=1e-6, atol=2e-6)
    np.testing.assert_allclose(kernels.quick_gelu(x, isa=isa), reference.quick_gelu(x), rtol=4e-6, atol=1e-30)


@each_isa
def test_activations_at_the_ends_of_float32(isa: str) -> None:
    x = np.array([[-3e38, -100.0, -0.0, 0.0, 100.0, 1e30, 1, 1, 1, 1, 1, 1]], np.float32)
    silu = kernels.silu_and_mul(x, isa=isa)
    np.testing.assert_array_equal(silu[0, [0, 2, 3, 4, 5]], np.float32([0, 0, 0, 100, 1e30]))
    assert np.isfinite(kernels.gelu(x)).all()
    assert np.isfinite(kernels.quick_gelu(x, isa=isa)).all()
    damaged = np.array([np.nan, 1.0] * 16, np.float32)
    np.testing.assert_array_equal(np.isnan(kernels.quick_gelu(damaged, isa=isa)), np.isnan(damaged))


@each_isa
@each_token_count
@pytest.mark.parametrize("head_dim", [2, 6, 8, 20, 24, 80, 128])
@pytest.mark.parametrize("name", ["rotary_interleaved", "rotary_half"])
def test_rotary_equals_the_reference_also_in_place(tokens: int, head_dim: int, name: str, isa: str) -> None:
    op, twin = getattr(kernels, name), getattr(reference, name)
    x_TNH, angles_TP = normal(tokens, 3, head_dim), normal(tokens, head_dim // 2, seed=1)
    cos_TP, sin_TP = np.cos(angles_TP), np.sin(angles_TP)
    expected = twin(x_TNH, cos_TP, sin_TP)
    turned = op(x_TNH, cos_TP, sin_TP, isa=isa)
    np.testing.assert_allclose(turned, expected, **CLOSE)
    np.testing.assert_array_equal(turned, op(x_TNH, cos_TP, sin_TP, isa="generic"))
    op(x_TNH, cos_TP, sin_TP, out=x_TNH, isa=isa)
    np.testing.assert_array_equal(x_TNH, turned)


@each_isa
@each_token_count
@pytest.mark.parametrize(("experts", "k"), [(1, 1), (8, 3), (64, 6), (5, 5), (17, 17), (129, 12)])
def test_routing_equals_the_reference(tokens: int, experts: int, k: int, isa: str) -> None:
    logits_TE, bias_E = normal(tokens, experts), normal(experts, seed=1, scale=0.05)
    weights_TK, ids_TK = kernels.topk_softmax(logits_TE, bias_E, k, 1e-12, isa=isa)
    expected_TK, expected_ids_TK = reference.topk_softmax(logits_TE, bias_E, k, 1e-12)
    np.testing.assert_array_equal(ids_TK, expected_ids_TK)
    np.testing.assert_allclose(weights_TK, expected_TK, **CLOSE)
    np.testing.assert_array_equal(kernels.topk_softmax(logits_TE, bias_E, k, 1e-12, isa="generic")[0], weights_TK)


@each_isa
def test_routing_prefers_the_lowest_id_of_equals_and_the_bias_does_not_weigh(isa: str) -> None:
    weights_TK, ids_TK = kernels.topk_softmax(np.zeros((2, 6), np.float32), np.zeros(6, np.float32), 3, 1e-12, isa=isa)
    np.testing.assert_array_equal(ids_TK, [[0, 1, 2]] * 2)
    # Equal pairs in many lanes: the largest is there twice, then the next, and so on.
    logits_TE = np.array([[float(e % 10) for e in range(40)]], np.float32)
    _, ids_TK = kernels.topk_softmax(logits_TE, np.zeros(40, np.float32), 9, 1e-12, isa=isa)
    np.testing.assert_array_equal(ids_TK, [[9, 19, 29, 39, 8, 18, 28, 38, 7]])
    bias_E = np.array([0, 0, 0, 0, 5, 9], np.float32)
    weights_TK, ids_TK = kernels.topk_softmax(np.zeros((1, 6), np.float32), bias_E, 2, 1e-12, isa=isa)
    np.testing.assert_array_equal(ids_TK, [[5, 4]])
    np.testing.assert_allclose(weights_TK, [[0.5, 0.5]])


def test_routing_divides_by_norm_min_at_least() -> None:
    logits_TE, bias_E = np.array([[50.0, 0.0]], np.float32), np.array([-10.0, 0.0], np.float32)
    weights_TK, ids_TK = kernels.topk_softmax(logits_TE, bias_E, 1, 1e-12)
    expected_TK, expected_ids_TK = reference.topk_softmax(logits_TE, bias_E, 1, 1e-12)
    np.testing.assert_array_equal(ids_TK, expected_ids_TK)
    np.testing.assert_allclose(weights_TK, expected_TK, rtol=1e-5)
    assert weights_TK[0, 0] < 1e-9


@each_isa
def test_routing_of_nan_still_names_real_experts(isa: str) -> None:
    _, ids_TK = kernels.topk_softmax(np.full((1, 4), np.nan, np.float32), np.zeros(4, np.float32), 3, 1e-12, isa=isa)
    assert sorted(ids_TK[0]) == [0, 1, 2]
    bias_E = np.array([0.1, np.nan, 0.3, 0.2], np.float32)
    _, ids_TK = kernels.topk_softmax(np.zeros((2, 4), np.float32), bias_E, 3, 1e-12, isa=isa)
    np.testing.assert_array_equal(ids_TK, [[2, 3, 0]] * 2)


def ops() -> list[tuple[Callable[..., Any], dict[str, Any]]]:
    x, out = normal(4, 6), np.empty((4, 6), np.float32)
    heads, angles = normal(4, 3, 6), normal(4, 3)
    return [
        (kernels.rms_norm, {"x_TD": x, "weight_D": normal(6), "eps": 1e-5, "out": out}),
        (kernels.layer_norm, {"x_TD": x, "weight_D": normal(6), "bias_D": normal(6), "eps": 1e-5, "out": out}),
        (kernels.gelu, {"x": x, "out": out}),
        (kernels.quick_gelu, {"x": x, "out": out}),
        (kernels.rotary_half, {"x_TNH": heads, "cos_TP": angles, "sin_TP": angles, "out": np.empty_like(heads)}),
        (kernels.rotary_interleaved, {"x_TNH": heads, "cos_TP": angles, "sin_TP": angles, "out": np.empty_like(heads)}),
        (kernels.topk_softmax, {"logits_TE": x, "bias_E": normal(6), "k": 2, "norm_min": 1e-12}),
    ]


@pytest.mark.parametrize(("op", "good"), ops(), ids=lambda value: getattr(value, "__name__", ""))
def test_bad_arrays_are_refused(op: Callable[..., Any], good: dict[str, Any]) -> None:
    assert_refuses_bad_arrays(op, good)


def test_shapes_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="gate_up_T2F has a last axis of 5; expected an even one"):
        kernels.silu_and_mul(normal(2, 5))
    with pytest.raises(ValueError, match=r"out has shape \(2, 2\); expected \(2, 3\)"):
        kernels.silu_and_mul(normal(2, 6), out=np.empty((2, 2), np.float32))
    with pytest.raises(TypeError, match="gate_up_T2F is float64"):
        kernels.silu_and_mul(np.zeros((2, 6)))
    with pytest.raises(ValueError, match="x_TNH has a head dim of 5"):
        kernels.rotary_half(normal(2, 1, 5), normal(2, 2), normal(2, 2))
    for k in (0, 7):
        with pytest.raises(ValueError, match=rf"k is {k}; expected 1 to 6"):
            kernels.topk_softmax(normal(2, 6), normal(6), k, 1e-12)
    whole = normal(10)
    with pytest.raises(ValueError, match="out shares memory with x"):
        kernels.gelu(whole[:8], out=whole[2:])
