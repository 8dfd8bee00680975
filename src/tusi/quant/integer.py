"""Matrices of integer codes of four or eight bits, packed as the kernels read them.

    value = code * scale of its group            codes -8..7 or -128..127; a row's last group may be short
    codes   uint8   [blocks, chunks, ...]        sixteen rows a block, eight columns a chunk (csrc/qgemm/qgemm.h)
    scales  uint16  [blocks, groups, 16]         bfloat16 bits; float32 where a foreign checkpoint has others

One layout for every instruction set, so that what is packed once can be stored. Products round activations to eight
bits, one scale a row and group (`activations` "int8"), which lets integer units multiply, or leave them float32.
Knows nothing of files or layers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from tusi import kernels
from tusi.core.errors import ConfigError
from tusi.core.types import Activations
from tusi.kernels.packed import BLOCK_ROWS
from tusi.kernels.reference import F32, I8, I64, U8, U16
from tusi.quant.memory import empty_array

LAYOUT_VERSION = 1
"""Raised when the layout changes: arrays that were stored under another number are of no use."""

Bits = Literal[4, 8]


class NotFiniteError(ConfigError):
    """A matrix to quantise holds NaN or infinity; no scale can stand for that."""


@dataclass(frozen=True, slots=True)
class _IntegerWeight:
    codes: U8
    scales: U16 | F32
    n: int
    k: int
    group_size: int
    activations: Activations = "int8"

    @property
    def shape(self) -> tuple[int, int]:
        return self.n, self.k

    @property
    def arrays(self) -> tuple[NDArray[np.generic], ...]:
        return self.codes, self.scales

    def with_arrays(self, arrays: tuple[NDArray[np.generic], ...]) -> Self:
        codes, scales = arrays
        return replace(self, codes=codes, scales=scales)  # type: ignore[arg-type]

    @property
    def nbytes(self) -> int:
        return self.codes.nbytes + self.scales.nbytes

    def linear(self, x_TK: F32, bias_N: F32 | None = None) -> F32:
        return kernels.qgemm(x_TK, self.codes, self.scales, self.n, self.group_size, self.activations, bias_N=bias_N)

    def normed_linear(self, x_TK: F32, norm_K: F32, eps: float) -> F32:
        return kernels.qgemm(
            x_TK, self.codes, self.scales, self.n, self.group_size, self.activations, norm_K=norm_K, eps=eps
        )

    def linear_add(self, x_TK: F32, residual_TN: F32) -> F32:
        return kernels.qgemm(
            x_TK, self.codes, self.scales, self.n, self.group_size, self.activations, add=True, out=residual_TN
        )

    def rows(self, ids_T: I64) -> F32:
        return kernels.packed_rows(self.codes, self.scales, self.n, self.k, self.group_size, ids_T)

    def to_f32(self) -> F32:
        return self.rows(np.arange(self.n))

    @property
    def matrix(self) -> kernels.PackedMatrix:
        return kernels.PackedMatrix(self.codes, self.scales, self.n, self.k, self.group_size)

    def unpacked(self) -> tuple[I8, U16 | F32]:
        """Codes [N, K] and scales [N, G]."""
        return kernels.unpack_codes(self.codes, self.scales, self.n, self.k, self.group_size)


@dataclass(frozen=True, slots=True)
class Int8Weight(_IntegerWeight):
    @property
    def format(self) -> Literal["int8"]:
        return "int8"


@dataclass(frozen=True, slots=True)
class Int4Weight(_IntegerWeight):
    @property
    def format(self) -> Literal["int4"]:
        return "int4"


IntegerWeight = Int4Weight | Int8Weight


def pack_weight(
    codes_NK: I8, scales_NG: U16 | F32, group_size: int, bits: Bits, activations: Activations = "int8"
) -> IntegerWeight:
    """A weight of these very codes. float32 scales that are all bfloat16 values are kept as such."""
    if scales_NG.dtype == np.float32:
        bits_NG = scales_NG.view(np.uint32)
        if not (bits_NG & 0xFFFF).any():
            scales_NG = (bits_NG >> 16).astype(np.uint16)
    scales_NG = np.ascontiguousarray(scales_NG)  # type: ignore[assignment]
    codes, scales = kernels.pack_codes(
        np.ascontiguousarray(codes_NK), scales_NG, group_size, bits, allocate=empty_array
    )
    n, k = codes_NK.shape
    make = Int4Weight if bits == 4 else Int8Weight
    return make(codes, scales, n, k, group_size, activations)


def integer_nbytes(bits: Bits, n: int, k: int, group_size: int) -> int:
    """Bytes of both arrays, padding included, with bfloat16 scales."""
    codes, scales = kernels.packed_shapes(n, k, group_size, bits)
    return int(np.prod(codes)) + 2 * int(np.prod(scales))


def concat_packed(weights: list[IntegerWeight]) -> IntegerWeight:
    """All rows in order. Whole blocks are copied as they are; where a matrix ends inside one, all are packed anew."""
    first = weights[0]
    n = sum(weight.n for weight in weights)
    same_scales = len({weight.scales.dtype for weight in weights}) == 1
    if same_scales and all(weight.n % BLOCK_ROWS == 0 for weight in weights[:-1]):
        arrays = tuple(_concatenate(list(arrays)) for arrays in zip(*(w.arrays for w in weights), strict=True))
        return replace(first.with_arrays(arrays), n=n)
    parts = [weight.unpacked() for weight in weights]
    scales: list[Any] = [s if same_scales or s.dtype == np.float32 else kernels.bf16_to_f32(s) for _, s in parts]  # type: ignore[arg-type]
    return pack_weight(
        np.concatenate([codes for codes, _ in parts]),
        np.concatenate(scales),
        first.group_size,
        4 if isinstance(first, Int4Weight) else 8,
        first.activations,
    )


def _concatenate(arrays: list[NDArray[np.generic]]) -> NDArray[np.generic]:
    shape = (sum(len(array) for array in arrays), *arrays[0].shape[1:])
    return np.concatenate(arrays, out=empty_array(shape, arrays[0].dtype))


def quantize_symmetric(weight_NK: F32, q_max: int, group_size: int) -> tuple[I8, U16]:
    """Round to nearest with one scale a group: q = round(w / scale), scale = bf16(max |w| / q_max) -> q_NK, scales_NG.

    Raises NotFiniteError for a matrix with NaN or infinite values.
    """
    n, k = weight_NK.shape
    groups = -(-k // group_size)
    padded_NGS = weight_NK
    if k % group_size:
        padded_NGS = np.zeros((n, groups * group_size), np.float32)
        padded_NGS[:, :k] = weight_NK
    padded_NGS = padded_NGS.reshape(n, groups, group_size)
    scales_NG = np.abs(padded_NGS).max(axis=2, initial=0.0) / np.float32(q_max)
    if not np.isfinite(scales_NG).all():
        raise NotFiniteError(
            f"a matrix {list(weight_NK.shape)} to quantise holds NaN or infinite values; all must be finite. "
            "Look for damage in the checkpoint it came from."
        )
    bits_NG = kernels.f32_to_bf16(np.ascontiguousarray(scales_NG, np.float32))
    scales_NG = kernels.bf16_to_f32(bits_NG)
    # A group of zeros keeps scale 0: it dequantises to zeros, and dividing by 1 avoids 0/0.
    divisor_NG = np.where(scales_NG > 0, scales_NG, np.float32(1.0))
    # A scale that was rounded down, or is so small that it is denormal, makes quotients beyond q_max; the clip keeps
    # them in.
    q_NGS = np.clip(np.rint(padded_NGS / divisor_NG[:, :, None]), -q_max, q_max).astype(np.int8)
    return np.ascontiguousarray(q_NGS.reshape(n, -1)[:, :k]), bits_NG
