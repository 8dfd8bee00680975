from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tusi.core.errors import CheckpointError, ConfigError
from tusi.core.types import WeightFormat
from tusi.kernels import reference
from tusi.quant.integer import Int4Weight, Int8Weight, pack_weight, quantize_symmetric
from tusi.quant.weights import (
    NotFiniteError,
    concat_rows,
    make_weight,
    stack_weights,
    weight_nbytes,
)

FORMATS: tuple[WeightFormat, ...] = ("fp32", "bf16", "int8", "int4")
SHAPES = ((1, 1), (3, 7), (5, 32), (4, 33), (8, 100), (2, 65))


def matrix(n: int, k: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, k)).astype(np.float32)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("format_", FORMATS)
def test_linear_rows_and_to_f32_tell_of_one_matrix(format_: WeightFormat, shape: tuple[int, int]) -> None:
    weight = make_weight(matrix(*shape), format_, activations="float32")
    dense = weight.to_f32()
    assert weight.activations == "float32"
    assert weight.shape == dense.shape == shape
    assert weight.format == format_
    x_TK, bias_N = matrix(3, shape[1], 1), matrix(1, shape[0], 2)[0]
    np.testing.assert_allclose(weight.linear(x_TK), x_TK @ dense.T, atol=1e-5)
    np.testing.assert_allclose(weight.linear(x_TK, bias_N), x_TK @ dense.T + bias_N, atol=1e-5)
    ids = np.array([shape[0] - 1, 0, shape[0] - 1])
    np.testing.assert_array_equal(weight.rows(ids), dense[ids])
    norm_K, residual_TN = matrix(1, shape[1], 3)[0], matrix(3, shape[0], 4)
    normed_TK = reference.rms_norm(x_TK, norm_K, 1e-5)
    np.testing.assert_allclose(weight.normed_linear(x_TK, norm_K, 1e-5), normed_TK @ dense.T, atol=1e-5)
    expected_TN = residual_TN + x_TK @ dense.T
    assert weight.linear_add(x_TK, residual_TN) is residual_TN
    np.testing.assert_allclose(residual_TN, expected_TN, atol=1e-5)


@pytest.mark.parametrize("format_", ["int8", "int4"])
def test_int8_activations_err_by_their_half_steps_at_most(format_: WeightFormat) -> None:
    """Of each value of a row and group at most half of largest / 127, times the weight it meets."""
    for n, k, group_size in ((20, 100, 32), (5, 64, 64), (33, 33, 16)):
        weight = make_weight(matrix(n, k), format_, group_size)
        x_TK = matrix(7, k, 1) * np.float32(10)
        dense = weight.to_f32()
        largest_TK = np.empty_like(x_TK)
        for begin in range(0, k, group_size):
            columns = slice(begin, begin + group_size)
            largest_TK[:, columns] = np.abs(x_TK[:, columns]).max(axis=1, keepdims=True)
        exact = x_TK.astype(np.float64) @ dense.T
        bound = largest_TK / 254 @ np.abs(dense).T * 1.001
        assert weight.activations == "int8"
        error = np.abs(weight.linear(x_TK) - exact)
        assert (error <= bound).all()
        assert error.max() > 0


@pytest.mark.parametrize("shape", SHAPES)
def test_fp32_is_exact_and_bf16_rounds_to_nearest(shape: tuple[int, int]) -> None:
    values = matrix(*shape)
    np.testing.assert_array_equal(make_weight(values, "fp32").to_f32(), values)
    # bfloat16 keeps 8 bits of significand: half a unit of the last place is 2^-9 of the value.
    np.testing.assert_allclose(make_weight(values, "bf16").to_f32(), values, rtol=2**-8)
    bits = reference.f32_to_bf16(values)
    np.testing.assert_array_equal(make_weight(bits, "bf16").to_f32(), reference.bf16_to_f32(bits))
    np.testing.assert_array_equal(make_weight(bits, "fp32").to_f32(), reference.bf16_to_f32(bits))


@given(
    n=st.integers(1, 6),
    k=st.integers(1, 70),
    group_size=st.sampled_from([1, 3, 8, 32, 128]),
    scale=st.sampled_from([1e-30, 1e-3, 1.0, 1e30]),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_integer_formats_err_by_half_a_step_at_most(n: int, k: int, group_size: int, scale: float, seed: int) -> None:
    values = matrix(n, k, seed) * np.float32(scale)
    for format_, q_max in (("int8", 127), ("int4", 7)):
        weight = make_weight(values, format_, group_size)
        assert isinstance(weight, Int4Weight | Int8Weight)
        scales_NG = weight.unpacked()[1]
        assert scales_NG.dtype == np.uint16
        step_NK = np.repeat(reference.bf16_to_f32(scales_NG), group_size, axis=1)[:, :k]
        error = np.abs(weight.to_f32() - values)
        assert (error <= step_NK * 0.5001).all()
        # The largest value of a group defines its scale, which is then rounded to 8 bits of significand.
        np.testing.assert_allclose(step_NK.max(axis=1) * q_max, np.abs(values).max(axis=1), rtol=2**-8)


@pytest.mark.parametrize("bits", [4, 8])
def test_scales_that_are_no_bfloat16_are_kept(bits: Literal[4, 8]) -> None:
    q_NK = np.random.default_rng(0).integers(-8, 8, (5, 40)).astype(np.int8)
    exact_NG, odd_NG = np.full((5, 2), 0.5, np.float32), np.full((5, 2), 0.1, np.float32)
    for scales_NG, dtype in ((exact_NG, np.uint16), (odd_NG, np.float32)):
        weight = pack_weight(q_NK, scales_NG, 32, bits)
        assert weight.scales.dtype == dtype
        np.testing.assert_array_equal(weight.to_f32(), q_NK * scales_NG[:, :1])
    both = concat_rows(pack_weight(q_NK, exact_NG, 32, bits), pack_weight(q_NK, odd_NG, 32, bits))
    np.testing.assert_array_equal(both.to_f32(), np.concatenate([q_NK * np.float32(0.5), q_NK * np.float32(0.1)]))


@pytest.mark.parametrize("format_", FORMATS)
def test_a_matrix_of_zeros_stays_zero(format_: WeightFormat) -> None:
    weight = make_weight(np.zeros((3, 40), np.float32), format_)
    assert not weight.to_f32().any()
    assert not weight.linear(matrix(2, 40)).any()


def test_blocks_of_rows_quantise_like_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    values = matrix(37, 50)
    whole = quantize_symmetric(values, 127, 32)
    monkeypatch.setattr("tusi.quant.weights._BLOCK_VALUES", 200)
    weight = make_weight(values, "int8")
    assert isinstance(weight, Int8Weight)
    for expected, got in zip(whole, weight.unpacked(), strict=True):
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("format_", FORMATS)
def test_rows_join_and_stack_exactly(format_: WeightFormat) -> None:
    for rows in (4, 16, 32):  # a matrix that ends inside a block, and such as do not
        a, b = make_weight(matrix(rows, 33), format_), make_weight(matrix(6, 33, 1), format_)
        joined = concat_rows(a, b)
        assert joined.shape == (rows + 6, 33)
        np.testing.assert_array_equal(joined.to_f32(), np.concatenate([a.to_f32(), b.to_f32()]))
    a = make_weight(matrix(4, 33), format_)
    stacked = stack_weights(3, lambda e: make_weight(matrix(4, 33, e), format_))
    assert stacked.shape == (3, 4, 33)
    assert stacked.format == format_
    assert stacked.nbytes == 3 * a.nbytes
    for e in range(3):
        np.testing.assert_array_equal(stacked[e].to_f32(), make_weight(matrix(4, 33, e), format_).to_f32())


@pytest.mark.parametrize("other", ["int8", "group", "width"])
def test_rows_that_are_stored_unlike_each_other_are_not_joined(other: str) -> None:
    first = make_weight(np.ones((2, 64), np.float32), "int4", 32)
    second = {
        "int8": make_weight(np.ones((2, 64), np.float32), "int8", 32),
        "group": make_weight(np.ones((2, 64), np.float32), "int4", 64),
        "width": make_weight(np.ones((2, 32), np.float32), "int4", 32),
    }[other]
    with pytest.raises(CheckpointError, match=r"stored unlike each other .* Quantise gate and up projections .* alike"):
        concat_rows(first, second)


def test_bytes_are_those_of_the_layout() -> None:
    """Blocks of 16 rows, chunks of 8 columns, scales of two bytes."""
    values = matrix(4, 65)
    assert make_weight(values, "fp32").nbytes == 4 * 65 * 4
    assert make_weight(values, "bf16").nbytes == 4 * 65 * 2
    assert make_weight(values, "int8").nbytes == 16 * (72 + 3 * 2)
    assert make_weight(values, "int4").nbytes == 16 * (36 + 3 * 2)
    for format_ in FORMATS:
        for n, k, group_size in ((4, 65, 32), (16, 64, 32), (33, 100, 20), (1, 1, 128)):
            made = make_weight(matrix(n, k), format_, group_size)
            assert made.nbytes == weight_nbytes(format_, n, k, group_size)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("format_", ["int8", "int4"])
def test_what_is_not_finite_is_not_quantised(format_: WeightFormat, bad: float) -> None:
    values = matrix(3, 40)
    values[1, 2] = bad
    with pytest.raises(NotFiniteError, match=r"\[3, 40\].*damage"):
        make_weight(values, format_)


def test_wrong_arguments_say_what_to_do() -> None:
    with pytest.raises(ConfigError, match=r"'int3' is unknown; expected fp32, bf16, int8 or int4\. Choose"):
        make_weight(matrix(2, 2), "int3")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"float64.*Convert the array"):
        make_weight(np.zeros((2, 2)), "fp32")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="3-dimensional"):
        make_weight(np.zeros((2, 2, 2), np.float32), "fp32")
    with pytest.raises(ConfigError, match="group_size is 0; it must be 1 or more"):
        make_weight(matrix(2, 2), "int8", 0)
