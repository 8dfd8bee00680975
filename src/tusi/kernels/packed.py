"""Products over packed integer weights, and what packs them. Layout: csrc/qgemm/qgemm.h. Twins: `reference_packed`.

Weights are arrays `codes` and `scales` plus the number of rows and the size of a scale group. Activations are rounded
to eight bits, one scale a row and group (`int8`), or stay float32. With int8 a result is the same, bit for bit, on any
instruction set, whatever the batch and the threads. `isa` (generic, avx2, avx512) forces a set of kernels. Raises
TypeError for a wrong dtype or a gap in memory, ValueError for a wrong shape or value; nothing is ever copied.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from tusi.core.types import Activations
from tusi.kernels import _native
from tusi.kernels.reference import F32, I8, I32, I64, U8, U16

Allocate = Callable[[tuple[int, ...], DTypeLike], NDArray[Any]]

BLOCK_ROWS = 16
CHUNK_COLUMNS = 8


def packed_chunks(k: int, group_size: int) -> int:
    """Chunks of eight columns that a row of k columns takes; each group is padded to whole ones."""
    whole, rest = divmod(k, group_size)
    if whole == 0:
        return -(-rest // CHUNK_COLUMNS)
    return whole * -(-group_size // CHUNK_COLUMNS) + -(-rest // CHUNK_COLUMNS)


def packed_shapes(n: int, k: int, group_size: int, bits: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes of `codes` (uint8) and `scales` (bfloat16 bits or float32) of a matrix (n, k)."""
    blocks, chunks = -(-n // BLOCK_ROWS), packed_chunks(k, group_size)
    chunk = (BLOCK_ROWS, 4) if bits == 4 else (2, BLOCK_ROWS, 4)
    return (blocks, chunks, *chunk), (blocks, -(-k // group_size), BLOCK_ROWS)


def pack_codes(
    codes_NK: I8, scales_NG: U16 | F32, group_size: int, bits: int, *, allocate: Allocate = np.empty
) -> tuple[U8, U16 | F32]:
    """Codes (-8..7 or -128..127) and their scales to the packed layout, in memory from `allocate`."""
    n, k = codes_NK.shape
    codes_shape, scales_shape = packed_shapes(n, k, group_size, bits)
    codes, scales = allocate(codes_shape, np.uint8), allocate(scales_shape, scales_NG.dtype)
    _native.pack(codes_NK, scales_NG, group_size, codes, scales)
    return codes, scales


def unpack_codes(codes: U8, scales: U16 | F32, n: int, k: int, group_size: int) -> tuple[I8, U16 | F32]:
    """What `pack_codes` was given."""
    codes_NK, scales_NG = np.empty((n, k), np.int8), np.empty((n, -(-k // group_size)), scales.dtype)
    _native.unpack(codes, scales, group_size, codes_NK, scales_NG)
    return codes_NK, scales_NG


def packed_rows(codes: U8, scales: U16 | F32, n: int, k: int, group_size: int, ids_T: I64) -> F32:
    """Values of the rows with these ids -> [T, K]."""
    out = np.empty((len(ids_T), k), np.float32)
    _native.packed_rows(codes, scales, n, group_size, ids_T, out)
    return out


def round_activations(x_TK: F32, group_size: int, bits: int, *, isa: str | None = None) -> tuple[I8, F32, I32]:
    """What a product over such weights makes of its input: codes [T, chunks * 8], scales [T, G], offsets [T, G]."""
    tokens, k = x_TK.shape
    groups = -(-k // group_size)
    codes = np.empty((tokens, packed_chunks(k, group_size) * CHUNK_COLUMNS), np.int8)
    scales, offsets = np.empty((tokens, groups), np.float32), np.empty((tokens, groups), np.int32)
    _native.round_activations(x_TK, group_size, bits == 4, codes, scales, offsets, isa)
    return codes, scales, offsets


def qgemm(
    x_TK: F32,
    codes: U8,
    scales: U16 | F32,
    n: int,
    group_size: int,
    activations: Activations = "int8",
    *,
    bias_N: F32 | None = None,
    norm_K: F32 | None = None,
    eps: float = 0.0,
    add: bool = False,
    out: F32 | None = None,
    isa: str | None = None,
) -> F32:
    """x @ weight.T + bias. norm_K: x is RMS-normalised with it first. add: to what `out` (then needed) holds."""
    if out is None:
        if add:
            raise ValueError("qgemm is to add to `out`, and none was given. Pass the array to add to.")
        out = np.empty((*x_TK.shape[:1], n), np.float32)
    _native.qgemm(x_TK, codes, scales, n, group_size, activations, out, bias_N, norm_K, eps, add, isa)
    return out
