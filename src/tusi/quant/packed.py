"""Codes as compressed-tensors' `pack-quantized` layout stores them, and back into our weights bit for bit.

In that layout a row of codes is a row of 32-bit little-endian words, the first code in the lowest bits: 8 codes of 4
bits or 4 of 8 bits a word, each stored plus half its range. Seen as bytes this is our int4 layout, and our int8 layout
with the top bit turned. Knows nothing of names, files or models.
"""

from __future__ import annotations

import numpy as np

from tusi.quant.search import Bits
from tusi.quant.weights import F32, I8, I32, U8, Int4Weight, Int8Weight, pack_int4


def packed_width(k: int, bits: Bits) -> int:
    """32-bit words in a row of k codes."""
    return -(-k * bits // 32)


def pack_words(q_NK: I8, bits: Bits) -> I32:
    """Codes (-8..7 or -128..127) to words [N, packed_width(K)]; what is left of the last word is zero bits."""
    n, k = q_NK.shape
    rows_NB: U8 = np.zeros((n, 4 * packed_width(k, bits)), np.uint8)
    if bits == 4:
        rows_NB[:, : -(-k // 2)] = pack_int4(q_NK)
        if k % 2:
            rows_NB[:, k // 2] &= 0x0F  # ours pads with the code 0, which is stored as 8
    else:
        rows_NB[:, :k] = q_NK.view(np.uint8) ^ 0x80
    return rows_NB.view("<i4")


def unpack_weight(words_NW: I32, scales_NG: F32, k: int, bits: Bits, group_size: int) -> Int4Weight | Int8Weight:
    """A weight with the very codes that are stored; nothing is widened on the way. scales_NG: float32."""
    rows_NB = np.ascontiguousarray(words_NW).view(np.uint8)
    if bits == 8:
        return Int8Weight((rows_NB[:, :k] ^ 0x80).view(np.int8), scales_NG, group_size)
    qweight_NB = rows_NB[:, : -(-k // 2)].copy()
    if k % 2:
        qweight_NB[:, -1] = (qweight_NB[:, -1] & 0x0F) | 0x80
    return Int4Weight(qweight_NB, scales_NG, group_size, k)
