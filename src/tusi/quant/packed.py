"""Codes as compressed-tensors' `pack-quantized` layout stores them, and back into our weights bit for bit.

In that layout a row of codes is a row of 32-bit little-endian words, the first code in the lowest bits: 8 codes of 4
bits or 4 of 8 bits a word, each stored plus half its range. Knows nothing of names, files or models.
"""

from __future__ import annotations

import numpy as np

from tusi.quant.search import Bits
from tusi.quant.weights import F32, I8, I32, U8, U16, IntegerWeight, pack_weight


def packed_width(k: int, bits: Bits) -> int:
    """32-bit words in a row of k codes."""
    return -(-k * bits // 32)


def pack_words(q_NK: I8, bits: Bits) -> I32:
    """Codes (-8..7 or -128..127) to words [N, packed_width(K)]; what is left of the last word is zero bits."""
    n, k = q_NK.shape
    rows_NB: U8 = np.zeros((n, 4 * packed_width(k, bits)), np.uint8)
    if bits == 4:
        nibbles = np.zeros((n, k + k % 2), np.uint8)
        np.add(q_NK, 8, out=nibbles[:, :k], casting="unsafe")
        # Two columns seen as one little-endian number: the odd one's nibble is 4 bits too high.
        pairs_NB = nibbles.view("<u2")
        rows_NB[:, : -(-k // 2)] = (pairs_NB | (pairs_NB >> 4)).astype(np.uint8)
    else:
        rows_NB[:, :k] = q_NK.view(np.uint8) ^ 0x80
    return rows_NB.view("<i4")


def unpack_weight(words_NW: I32, scales_NG: F32 | U16, k: int, bits: Bits, group_size: int) -> IntegerWeight:
    """A weight with the very codes that are stored. scales_NG: float32, or bfloat16 bits."""
    rows_NB = np.ascontiguousarray(words_NW).view(np.uint8)
    if bits == 8:
        return pack_weight((rows_NB[:, :k] ^ 0x80).view(np.int8), scales_NG, group_size, bits)
    stored = rows_NB[:, : -(-k // 2)]
    q_NK = np.empty((len(stored), 2 * stored.shape[1]), np.int8)
    np.subtract(stored & 0x0F, 8, out=q_NK[:, 0::2], casting="unsafe")
    np.subtract(stored >> 4, 8, out=q_NK[:, 1::2], casting="unsafe")
    return pack_weight(q_NK[:, :k], scales_NG, group_size, bits)
