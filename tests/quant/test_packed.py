"""The packed layout: golden bytes written by compressed-tensors itself, and every width back and forth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tusi.quant.packed import pack_words, packed_width, unpack_weight
from tusi.quant.search import Bits

# What compressed_tensors 0.20.0's pack_to_int32 makes of these codes.
GOLDEN: tuple[tuple[Bits, list[int], str], ...] = (
    (4, [-8, -7, -1, 0, 1, 2, 6, 7, 3, -2, 5], "1087a9fe6b0d0000"),
    (8, [-128, -127, -1, 0, 1, 127], "00017f8081ff0000"),
)


@pytest.mark.parametrize(("bits", "codes", "golden"), GOLDEN)
def test_bytes_are_those_of_compressed_tensors(bits: Bits, codes: list[int], golden: str) -> None:
    words_NW = pack_words(np.array([codes], np.int8), bits)
    assert words_NW.dtype == np.dtype("<i4")
    assert words_NW.tobytes().hex() == golden
    weight = unpack_weight(words_NW, np.ones((1, 1), np.float32), len(codes), bits, 32)
    assert weight.to_f32().tolist() == [codes]


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("k", [1, 2, 3, 7, 8, 9, 31, 33, 64])
def test_every_width_comes_back_and_multiplies(bits: Bits, k: int) -> None:
    rng = np.random.default_rng(k)
    half = 1 << (bits - 1)
    q_NK = rng.integers(-half, half, (5, k)).astype(np.int8)
    scales_NG = rng.random((5, -(-k // 32))).astype(np.float32)
    words_NW = pack_words(q_NK, bits)
    assert words_NW.shape == (5, packed_width(k, bits))
    weight = unpack_weight(words_NW, scales_NG, k, bits, 32)
    expected_NK = q_NK * np.repeat(scales_NG, 32, axis=1)[:, :k]
    np.testing.assert_array_equal(weight.to_f32(), expected_NK)
    x_TK = rng.standard_normal((3, k)).astype(np.float32)
    exact = replace(weight, activations="float32")
    np.testing.assert_allclose(exact.linear(x_TK), x_TK @ expected_NK.T, rtol=1e-4, atol=1e-3)
