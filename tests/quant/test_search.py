"""Searched scales err less than rounding to nearest, and the codes and scales obey the format."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tusi import kernels
from tusi.quant.search import Bits, quantize_searched, search_groups
from tusi.quant.weights import F32, NotFiniteError, make_weight


def dequantized(weight_NK: F32, bits: Bits, group_size: int) -> F32:
    q_NK, scales_NG = quantize_searched(weight_NK, bits, group_size)
    scales = np.repeat(kernels.bf16_to_f32(scales_NG), group_size, axis=1)[:, : weight_NK.shape[1]]
    return q_NK * scales


def mse(a: F32, b: F32) -> float:
    return float(np.mean((a.astype(np.float64) - b) ** 2))


# Ratio of mean squared errors to rounding to nearest, measured 0.79 / 0.77, 0.83 / 0.82, 0.945 / 0.955, 0.98 / 0.985.
@pytest.mark.parametrize("group_size", [32, 64])
@pytest.mark.parametrize(
    ("bits", "heavy", "at_most"), [(4, False, 0.82), (4, True, 0.87), (8, False, 0.97), (8, True, 0.995)]
)
def test_it_errs_less_than_rounding_to_nearest(bits: Bits, heavy: bool, at_most: float, group_size: int) -> None:
    rng = np.random.default_rng(0)
    values = rng.standard_t(3, (64, 1024)) if heavy else rng.standard_normal((64, 1024))
    weight_NK = (0.02 * values).astype(np.float32)
    nearest = make_weight(weight_NK, "int4" if bits == 4 else "int8", group_size).to_f32()
    ratio = mse(dequantized(weight_NK, bits, group_size), weight_NK) / mse(nearest, weight_NK)
    assert ratio <= at_most


@given(
    st.integers(0, 2**32 - 1), st.sampled_from([4, 8]), st.integers(1, 70), st.sampled_from([1e-38, 1e-3, 1.0, 1e30])
)
def test_no_group_is_worse_than_nearest_with_stored_scales(seed: int, bits: Bits, k: int, size: float) -> None:
    weight_NK = (np.random.default_rng(seed).standard_normal((3, k)) * size).astype(np.float32)
    found = dequantized(weight_NK, bits, 32)
    assert np.isfinite(found).all()
    q_max = 7 if bits == 4 else 127
    for begin in range(0, k, 32):
        group = weight_NK[:, begin : begin + 32]
        scale = np.ascontiguousarray(np.abs(group).max(axis=1, keepdims=True) / np.float32(q_max))
        scale = kernels.bf16_to_f32(kernels.f32_to_bf16(scale)).astype(np.float64)
        nearest = np.clip(np.rint(group / np.where(scale > 0, scale, np.inf)), -q_max - (bits == 4), q_max) * scale
        error = ((found[:, begin : begin + 32].astype(np.float64) - group) ** 2).sum(axis=1)
        assert (error <= ((nearest - group) ** 2).sum(axis=1) * 1.001 + 1e-90).all()


def test_codes_stay_in_range_and_bfloat16_is_taken_as_it_is() -> None:
    weight_NK = np.random.default_rng(1).standard_normal((40, 1000)).astype(np.float32)
    q4_NK, _ = quantize_searched(weight_NK, 4, 32)
    q8_NK, _ = quantize_searched(weight_NK, 8, 32)
    assert (q4_NK.min(), q4_NK.max()) == (-8, 7)
    assert (q8_NK.min(), q8_NK.max()) == (-127, 127)
    bits_NK = kernels.f32_to_bf16(weight_NK)
    for one, other in zip(
        quantize_searched(bits_NK, 4, 64), quantize_searched(kernels.bf16_to_f32(bits_NK), 4, 64), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_a_group_of_zeros_has_scale_zero() -> None:
    weight_NK = np.zeros((2, 64), np.float32)
    weight_NK[1, 40] = 3.0
    q_NK, scales_NG = quantize_searched(weight_NK, 4, 32)
    assert scales_NG[0].tolist() == [0, 0]
    assert scales_NG[1, 0] == 0
    assert scales_NG[1, 1] != 0
    assert np.count_nonzero(q_NK) == 1


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_refused(bad: float) -> None:
    weight_NK = np.ones((4, 32), np.float32)
    weight_NK[2, 3] = bad
    with pytest.raises(NotFiniteError, match="Look for damage"):
        quantize_searched(weight_NK, 4, 32)


@pytest.mark.parametrize("bits", [4, 8])
def test_importance_lowers_the_error_where_it_counts(bits: Bits) -> None:
    rng = np.random.default_rng(3)
    groups = rng.standard_normal((500, 32)).astype(np.float32)
    importance = np.exp(2 * rng.standard_normal(32)).astype(np.float32)

    def error(weights: F32 | None) -> float:
        codes, scales = search_groups(groups, bits, groups.shape, weights)
        off = codes * kernels.bf16_to_f32(scales)[:, None] - groups
        return float(((off * off) @ importance).mean())

    assert error(importance) < 0.97 * error(None)
    assert error(np.ones(32, np.float32)) == pytest.approx(error(None), rel=0.02)  # of equals, another
