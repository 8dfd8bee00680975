"""Products over packed weights: each instruction set against the slow twin, bit for bit where activations are int8."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.kernels.helpers import assert_refuses_bad_arrays, each_isa, normal
from tusi import kernels
from tusi.kernels import reference, reference_packed

# Widths around chunks of 8, vectors of 16 and group ends of all kinds; rows around blocks of 16 and pairs of blocks.
SHAPES = [(1, 1), (15, 7), (16, 8), (17, 33), (31, 20), (33, 64), (48, 100), (70, 257)]
GROUP_SIZES = [1, 3, 8, 16, 20, 32, 4096]
TOKENS = [0, 1, 2, 5, 6, 7, 13, 40]
both_bits = pytest.mark.parametrize("bits", [4, 8])

Matrix = tuple[NDArray[np.uint8], NDArray[Any]]


def codes_and_scales(n: int, k: int, group_size: int, bits: int, *, wide: bool = False) -> tuple[NDArray[Any], ...]:
    rng = np.random.default_rng((n, k, group_size, bits))
    half = 1 << (bits - 1)
    codes_NK = rng.integers(-half, half, (n, k)).astype(np.int8)
    scales_NG = rng.uniform(0.001, 0.02, (n, -(-k // group_size))).astype(np.float32)
    return codes_NK, scales_NG if wide else reference.f32_to_bf16(scales_NG)


def packed(n: int, k: int, group_size: int, bits: int, *, wide: bool = False) -> Matrix:
    return kernels.pack_codes(*codes_and_scales(n, k, group_size, bits, wide=wide), group_size, bits)


@both_bits
@pytest.mark.parametrize("group_size", GROUP_SIZES)
def test_packing_is_the_twins_and_comes_back(bits: int, group_size: int) -> None:
    for n, k in SHAPES:
        for wide in (False, True):
            codes_NK, scales_NG = codes_and_scales(n, k, group_size, bits, wide=wide)
            codes, scales = kernels.pack_codes(codes_NK, scales_NG, group_size, bits)
            for got, expected in zip(
                (codes, scales), reference_packed.pack_codes(codes_NK, scales_NG, group_size, bits), strict=True
            ):
                np.testing.assert_array_equal(got, expected)
            assert (codes.shape, scales.shape) == kernels.packed_shapes(n, k, group_size, bits)
            for unpack in (kernels.unpack_codes, reference_packed.unpack_codes):
                back_NK, back_NG = unpack(codes, scales, n, k, group_size)
                np.testing.assert_array_equal(back_NK, codes_NK)
                np.testing.assert_array_equal(back_NG, scales_NG)
            ids = np.array([n - 1, 0, n // 2])
            np.testing.assert_array_equal(
                kernels.packed_rows(codes, scales, n, k, group_size, ids),
                reference_packed.packed_rows(codes, scales, n, k, group_size, ids),
            )


def test_the_layout_is_the_one_that_is_written_down() -> None:
    codes_NK = np.zeros((17, 9), np.int8)
    codes_NK[1, 2], codes_NK[1, 6], codes_NK[16, 8] = 3, -5, 7
    scales_NG = np.zeros((17, 2), np.uint16)
    scales_NG[1, 1] = 0x3F80
    codes, scales = kernels.pack_codes(codes_NK, scales_NG, 8, 4)
    assert codes.shape == (2, 2, 16, 4)
    assert codes[0, 0, 1, 2] == (3 + 8) | (-5 + 8) << 4
    assert codes[1, 1, 0, 0] == (7 + 8) | 8 << 4
    assert codes[1, 1, 5, 0] == 0x88
    assert scales.shape == (2, 2, 16)
    assert scales[0, 1, 1] == 0x3F80
    codes, _ = kernels.pack_codes(codes_NK, scales_NG, 8, 8)
    assert codes.shape == (2, 2, 2, 16, 4)
    assert codes[0, 0, 0, 1, 2] == 128 + 3
    assert codes[0, 0, 1, 1, 2] == 128 - 5
    assert codes[1, 1, 0, 0, 0] == 128 + 7


@each_isa
@both_bits
def test_activations_round_to_the_twins_bits(isa: str, bits: int) -> None:
    for k in (1, 7, 16, 33, 100, 300):  # 300: several groups of 32 at once, and a short one behind them
        x_TK = normal(9, k, scale=3.0)
        x_TK[1], x_TK[2], x_TK[3] = 0.0, 1e-32, 1e30
        x_TK[4, 0], x_TK[5, -1], x_TK[6, k // 2] = np.nan, np.inf, -np.inf
        x_TK[7, : k // 3] = 1e-32  # groups of zeros beside others
        for group_size in GROUP_SIZES:
            got = kernels.round_activations(x_TK, group_size, bits, isa=isa)
            for one, expected in zip(got, reference_packed.round_activations(x_TK, group_size, bits), strict=True):
                assert one.dtype == expected.dtype
                np.testing.assert_array_equal(one, expected)


@each_isa
@both_bits
@pytest.mark.parametrize("group_size", GROUP_SIZES)
def test_int8_products_are_the_twins_bit_for_bit(isa: str, bits: int, group_size: int) -> None:
    for n, k in SHAPES:
        codes, scales = packed(n, k, group_size, bits, wide=(n + k) % 3 == 0)
        for tokens in TOKENS:
            x_TK = normal(tokens, k)
            got = kernels.qgemm(x_TK, codes, scales, n, group_size, isa=isa)
            np.testing.assert_array_equal(got, reference_packed.qgemm(x_TK, codes, scales, n, group_size))


@each_isa
@both_bits
def test_float32_activations_are_not_rounded(isa: str, bits: int) -> None:
    for n, k in SHAPES:
        for group_size in (3, 32):
            codes, scales = packed(n, k, group_size, bits)
            weight_NK = reference_packed.dequantize_packed(codes, scales, n, k, group_size).astype(np.float64)
            x_TK = normal(7, k)
            got = kernels.qgemm(x_TK, codes, scales, n, group_size, "float32", isa=isa)
            magnitude = np.abs(x_TK).astype(np.float64) @ np.abs(weight_NK).T
            # A rounding of 2^-24 of the magnitude for each step of a group's sum and of the sum of groups.
            bound = magnitude * 2.0**-24 * (min(k, group_size) + k / group_size + 4)
            assert (np.abs(got - x_TK @ weight_NK.T) <= bound).all()


@each_isa
@pytest.mark.parametrize("activations", ["int8", "float32"])
def test_bias_norm_and_sum_are_those_of_separate_steps(isa: str, activations: Any) -> None:
    n, k, group_size = 45, 72, 32
    codes, scales = packed(n, k, group_size, 4)
    bias_N, norm_K = normal(n, seed=2), normal(k, seed=3)
    for tokens in TOKENS:
        x_TK, before_TN = normal(tokens, k), normal(tokens, n, seed=4)
        plain = kernels.qgemm(x_TK, codes, scales, n, group_size, activations, isa=isa)
        biased = kernels.qgemm(x_TK, codes, scales, n, group_size, activations, bias_N=bias_N, isa=isa)
        np.testing.assert_array_equal(biased, plain + bias_N)
        out = before_TN.copy()
        added = kernels.qgemm(
            x_TK, codes, scales, n, group_size, activations, bias_N=bias_N, add=True, out=out, isa=isa
        )
        assert added is out
        np.testing.assert_array_equal(out, before_TN + (plain + bias_N))
        normed = kernels.qgemm(x_TK, codes, scales, n, group_size, activations, norm_K=norm_K, eps=1e-5, isa=isa)
        apart = kernels.qgemm(kernels.rms_norm(x_TK, norm_K, 1e-5), codes, scales, n, group_size, activations, isa=isa)
        np.testing.assert_array_equal(normed, apart)


@each_isa
@pytest.mark.parametrize("activations", ["int8", "float32"])
def test_a_row_does_not_depend_on_the_others_or_on_threads(isa: str, activations: Any) -> None:
    n, k, group_size = 530, 640, 32
    codes, scales = packed(n, k, group_size, 4)
    x_TK = normal(41, k)
    threads = kernels.num_threads()
    try:
        kernels.set_num_threads(1)
        alone = np.concatenate(
            [kernels.qgemm(x_TK[t : t + 1], codes, scales, n, group_size, activations, isa=isa) for t in range(41)]
        )
        for count in (1, 2, 5):
            kernels.set_num_threads(count)
            together = kernels.qgemm(x_TK, codes, scales, n, group_size, activations, isa=isa)
            np.testing.assert_array_equal(together, alone)
    finally:
        kernels.set_num_threads(threads)


@each_isa
def test_what_is_not_finite_stays_so_in_its_row(isa: str) -> None:
    codes, scales = packed(20, 64, 32, 4)
    x_TK = normal(3, 64)
    x_TK[1, 40] = np.inf
    out = kernels.qgemm(x_TK, codes, scales, 20, 32, isa=isa)
    assert np.isnan(out[1]).all()
    assert np.isfinite(out[[0, 2]]).all()


def test_wrong_arguments_are_refused() -> None:
    codes, scales = packed(20, 64, 32, 4)
    good = {"x_TK": normal(2, 64), "codes": codes, "scales": scales, "n": 20, "group_size": 32}
    without_scales = {name: value for name, value in good.items() if name != "scales"}
    op = partial(kernels.qgemm, scales=scales)
    assert_refuses_bad_arrays(op, {**without_scales, "out": np.empty((2, 20), np.float32)})
    with pytest.raises(TypeError, match="scales is float64"):
        kernels.qgemm(**{**good, "scales": scales.astype(np.float64)})  # type: ignore[arg-type]
    for change, message in (
        ({"n": 40}, r"codes has shape \(2, 8, 16, 4\); expected \(3, 8, 16, 4\)"),
        ({"group_size": 16}, r"scales has shape .*expected \(2, 4, 16\)"),
        ({"group_size": 0}, "group_size is 0; expected 1 to"),
        ({"activations": "int4"}, "activations is 'int4'; expected int8 or float32"),
        ({"isa": "sse"}, "sse"),
        ({"add": True}, "to add to `out`"),
    ):
        with pytest.raises(ValueError, match=message):
            kernels.qgemm(**{**good, **change})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"ids_T\[1\] is 20; expected 0 to 19"):
        kernels.packed_rows(codes, scales, 20, 64, 32, np.array([0, 20]))
    with pytest.raises(ValueError, match="codes_NK holds 9; expected -8 to 7"):
        kernels.pack_codes(np.full((1, 1), 9, np.int8), np.ones((1, 1), np.float32), 1, 4)
