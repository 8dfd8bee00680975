from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.kernels.helpers import (
    TOKENS,
    assert_refuses_bad_arrays,
    each_isa,
    each_token_count,
    normal,
)
from tusi import kernels
from tusi.kernels import reference

# Widths around and between the vector lengths (8, 16), the widening buffer of the portable path (512) and its ends.
INNER = [1, 7, 8, 20, 128, 513]
ROWS = 31


def assert_product(actual: NDArray[np.float32], x_TK: NDArray[np.float32], weight_NK: NDArray[np.float32]) -> None:
    """Against float64. Each of K products and sums rounds once, to 2^-24 of at most sum |x w|; eight or more partial
    sums keep the chain short, so that K / 8 + 16 roundings bound it (a single chain would need K)."""
    exact = x_TK.astype(np.float64) @ weight_NK.astype(np.float64).T
    magnitude = np.abs(x_TK).astype(np.float64) @ np.abs(weight_NK).astype(np.float64).T
    bound = magnitude * 2.0**-24 * (x_TK.shape[1] / 8 + 16) + 1e-30
    assert actual.shape == exact.shape
    assert actual.dtype == np.float32
    assert (np.abs(actual - exact) <= bound).all()


@each_isa
@each_token_count
@pytest.mark.parametrize("inner", INNER)
def test_float_products_equal_the_reference(isa: str, tokens: int, inner: int) -> None:
    x_TK, weight_NK = normal(tokens, inner), normal(ROWS, inner, seed=1)
    assert_product(kernels.gemm_f32(x_TK, weight_NK, isa=isa), x_TK, weight_NK)
    np.testing.assert_allclose(
        kernels.gemm_f32(x_TK, weight_NK, isa=isa), reference.gemm_f32(x_TK, weight_NK), rtol=1e-4, atol=1e-4
    )
    bits_NK = reference.f32_to_bf16(weight_NK)
    assert_product(kernels.gemm_bf16(x_TK, bits_NK, isa=isa), x_TK, reference.bf16_to_f32(bits_NK))


@each_isa
@pytest.mark.parametrize("tokens", [0, 1, 3, 64])
@pytest.mark.parametrize(
    ("name", "inner", "rows"), [("gemm_f32", 20, 31), ("gemm_bf16", 513, 5), ("gemm_bf16", 64, 96)]
)
def test_norm_bias_and_addition_equal_the_reference(name: str, inner: int, rows: int, tokens: int, isa: str) -> None:
    op, twin = getattr(kernels, name), getattr(reference, name)
    x_TK, weight_NK = normal(tokens, inner), normal(rows, inner, seed=1)
    weight = reference.f32_to_bf16(weight_NK) if name == "gemm_bf16" else weight_NK
    residual_TN = normal(tokens, rows, seed=4)
    bias_N, norm_K = normal(rows, seed=2), normal(inner, seed=3)
    norm: dict[str, Any] = {"norm_K": norm_K, "eps": 1e-5}
    cases: list[dict[str, Any]] = [{"bias_N": bias_N}, norm, {"bias_N": bias_N, **norm}]
    for fused in cases:
        np.testing.assert_allclose(
            op(x_TK, weight, isa=isa, **fused), twin(x_TK, weight, **fused), rtol=1e-4, atol=1e-4
        )
        # A sum of steps, bit for bit: nothing in the call is fused that rounds otherwise.
        out = residual_TN.copy()
        assert op(x_TK, weight, isa=isa, add=True, out=out, **fused) is out
        np.testing.assert_array_equal(out, residual_TN + op(x_TK, weight, isa=isa, **fused))
        expected = residual_TN.copy()
        np.testing.assert_allclose(out, twin(x_TK, weight, add=True, out=expected, **fused), rtol=1e-4, atol=1e-4)
    normed_TK = kernels.rms_norm(x_TK, norm_K, 1e-5)
    np.testing.assert_array_equal(op(x_TK, weight, isa=isa, **norm), op(normed_TK, weight, isa=isa))
    np.testing.assert_array_equal(op(x_TK, weight, isa=isa, bias_N=bias_N), op(x_TK, weight, isa=isa) + bias_N)


def test_no_columns_give_zeros() -> None:
    for isa in kernels.supported_isas():
        out = kernels.gemm_f32(normal(3, 0), normal(5, 0), isa=isa)
        np.testing.assert_array_equal(out, np.zeros((3, 5), np.float32))


@each_isa
def test_a_row_is_the_same_alone_and_in_any_batch_on_any_threads(isa: str) -> None:
    inner, rows = 300, 200
    x_TK = normal(max(TOKENS), inner)
    bits_NK = reference.f32_to_bf16(normal(rows, inner, seed=1))
    before = kernels.num_threads()
    try:
        results = []
        for threads in (1, 2, 5):
            kernels.set_num_threads(threads)
            bf16 = kernels.gemm_bf16(x_TK, bits_NK, isa=isa)
            results.append(bf16)
            for begin, end in ((0, 1), (5, 7), (13, 30)):
                part = x_TK[begin:end]
                np.testing.assert_array_equal(kernels.gemm_bf16(part, bits_NK, isa=isa), bf16[begin:end])
        for bf16 in results[1:]:
            np.testing.assert_array_equal(bf16, results[0])
    finally:
        kernels.set_num_threads(before)


def products() -> list[Any]:
    x_TK = normal(3, 20)
    float_out = np.empty((3, 6), np.float32)
    fused = {"bias_N": normal(6), "norm_K": normal(20), "eps": 1e-5}
    return [
        (kernels.gemm_f32, {"x_TK": x_TK, "weight_NK": normal(6, 20), "out": float_out}),
        (kernels.gemm_bf16, {"x_TK": x_TK, "weight_NK": reference.f32_to_bf16(normal(6, 20)), "out": float_out}),
        (kernels.gemm_f32, {"x_TK": x_TK, "weight_NK": normal(6, 20), "out": float_out, **fused}),
    ]


@pytest.mark.parametrize(("op", "good"), products(), ids=lambda value: getattr(value, "__name__", ""))
def test_bad_arrays_are_refused(op: Any, good: dict[str, Any]) -> None:
    assert_refuses_bad_arrays(op, good)
    assert op(**good) is good["out"]


def test_isa_and_overlap_are_checked() -> None:
    _, good = products()[0]
    with pytest.raises(ValueError, match="isa is 'sse'; expected generic, avx2, avx512"):
        kernels.gemm_f32(**good, isa="sse")
    with pytest.raises(ValueError, match="to be added to `out`, and none was given"):
        kernels.gemm_f32(good["x_TK"], good["weight_NK"], add=True)
    square = normal(4, 4)
    with pytest.raises(ValueError, match="out shares memory with x_TK"):
        kernels.gemm_f32(square, normal(4, 4), out=square)


def test_read_only_weights_are_taken_and_read_only_results_refused() -> None:
    weight_NK = normal(5, 8)
    weight_NK.flags.writeable = False
    x_TK, out = normal(2, 8), np.empty((2, 5), np.float32)
    kernels.gemm_f32(x_TK, weight_NK, out=out)
    out.flags.writeable = False
    with pytest.raises(TypeError):
        kernels.gemm_f32(x_TK, weight_NK, out=out)


def test_bf16_conversion_equals_the_reference_on_every_kind_of_number() -> None:
    bits = np.arange(1 << 16, dtype=np.uint16)
    np.testing.assert_array_equal(kernels.bf16_to_f32(bits).view(np.uint32), bits.astype(np.uint32) << 16)
    special = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, 3.4e38, -3.4e38], np.float32)
    halfway = (np.arange(4096, dtype=np.uint32) * 0x8000 + 0x3F800000).view(np.float32)
    for values in (special, halfway, normal(0), normal(7), normal(3, 5, 2)):
        for isa in kernels.supported_isas():
            np.testing.assert_array_equal(kernels.f32_to_bf16(values, isa=isa), reference.f32_to_bf16(values))
    assert_refuses_bad_arrays(kernels.bf16_to_f32, {"bits": bits[:6], "out": np.empty(6, np.float32)})
    assert_refuses_bad_arrays(kernels.f32_to_bf16, {"values": normal(6), "out": np.empty(6, np.uint16)})
