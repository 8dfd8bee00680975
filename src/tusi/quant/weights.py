"""Weight matrices in the four formats, behind one protocol: multiply, look rows up, widen.

Owns how a matrix of shape (out, in) = (N, K) lies in memory and which kernel multiplies it. Goes in: float32 or
bfloat16 (uint16 bits) arrays; comes out: `Weight` objects that take and give float32. Knows nothing of models.

    fp32   weight_NK float32
    bf16   weight_NK uint16, the bits
    int8   qweight_NK int8, scales_NG float32           value = q * scale of its group, q in -128..127
    int4   qweight_NB uint8 (low nibble = even column, stored plus 8), scales_NG float32, q in -8..7

Both integer formats are symmetric, with groups of `group_size` along the input; the last group of a row may be short.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from tusi import kernels
from tusi.core.errors import CheckpointError, ConfigError
from tusi.core.types import WeightFormat
from tusi.quant.memory import empty_array

F32 = NDArray[np.float32]
U16 = NDArray[np.uint16]
I8 = NDArray[np.int8]
U8 = NDArray[np.uint8]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]

DEFAULT_GROUP_SIZE = 32
_BLOCK_VALUES = 1 << 20


class NotFiniteError(ConfigError):
    """A matrix to quantise holds NaN or infinity; no scale can stand for that."""


class Weight(Protocol):
    """A matrix of shape (out, in), whatever its format. Activations are float32 on both sides."""

    @property
    def format(self) -> WeightFormat: ...

    @property
    def shape(self) -> tuple[int, int]: ...

    @property
    def arrays(self) -> tuple[NDArray[np.generic], ...]:
        """The arrays that hold it, each with one row per output row."""

    def with_arrays(self, arrays: tuple[NDArray[np.generic], ...]) -> Weight:
        """The same format over other arrays (rows cut, joined or stacked)."""

    @property
    def nbytes(self) -> int: ...

    def linear(self, x_TK: F32, bias_N: F32 | None = None) -> F32:
        """x @ weight.T (+ bias) -> [T, N]"""

    def rows(self, ids_T: I64) -> F32:
        """The rows with these ids -> [T, K]; an embedding look-up."""

    def to_f32(self) -> F32: ...


class _Base:
    """What follows from `arrays` alone."""

    __slots__ = ()

    @property
    def arrays(self) -> tuple[NDArray[np.generic], ...]:
        raise NotImplementedError

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self.arrays)


@dataclass(frozen=True, slots=True)
class Float32Weight(_Base):
    weight_NK: F32

    @property
    def format(self) -> Literal["fp32"]:
        return "fp32"

    @property
    def shape(self) -> tuple[int, int]:
        n, k = self.weight_NK.shape
        return n, k

    @property
    def arrays(self) -> tuple[NDArray[np.generic], ...]:
        return (self.weight_NK,)

    def with_arrays(self, arrays: tuple[NDArray[np.generic], ...]) -> Float32Weight:
        return Float32Weight(*arrays)  # type: ignore[arg-type]

    def linear(self, x_TK: F32, bias_N: F32 | None = None) -> F32:
        return _add_bias(kernels.gemm_f32(x_TK, self.weight_NK), bias_N)

    def rows(self, ids_T: I64) -> F32:
        return self.weight_NK[ids_T]

    def to_f32(self) -> F32:
        return self.weight_NK


@dataclass(frozen=True, slots=True)
class BFloat16Weight(_Base):
    weight_NK: U16

    @property
    def format(self) -> Literal["bf16"]:
        return "bf16"

    @property
    def shape(self) -> tuple[int, int]:
        n, k = self.weight_NK.shape
        return n, k

    @property
    def arrays(self) -> tuple[NDArray[np.generic], ...]:
        return (self.weight_NK,)

    def with_arrays(self, arrays: tuple[NDArray[np.generic], ...]) -> BFloat16Weight:
        return BFloat16Weight(*arrays)  # type: ignore[arg-type]

    def linear(self, x_TK: F32, bias_N: F32 | None = None) -> F32:
        return _add_bias(kernels.gemm_bf16(x_TK, self.weight_NK), bias_N)

    def rows(self, ids_T: I64) -> F32:
        return kernels.bf16_to_f32(self.weight_NK[ids_T])

    def to_f32(self) -> F32:
        return kernels.bf16_to_f32(self.weight_NK)


@dataclass(frozen=True, slots=True)
class Int8Weight(_Base):
    qweight_NK: I8
    scales_NG: F32
    group_size: int

    @property
    def format(self) -> Literal["int8"]:
        return "int8"

    @property
    def shape(self) -> tuple[int, int]:
        n, k = self.qweight_NK.shape
        return n, k

    @property
    def arrays(self) -> tuple[NDArray[np.generic], ...]:
        return self.qweight_NK, self.scales_NG

    def with_arrays(self, arrays: tuple[NDArray[np.generic], ...]) -> Int8Weight:
        return Int8Weight(*arrays, group_size=self.group_size)  # type: ignore[arg-type,misc]

    def linear(self, x_TK: F32, bias_N: F32 | None = None) -> F32:
        return _add_bias(kernels.gemm_int8(x_TK, self.qweight_NK, self.scales_NG, self.group_size), bias_N)

    def rows(self, ids_T: I64) -> F32:
        return _dequantize(self.qweight_NK[ids_T], self.scales_NG[ids_T], self.group_size)

    def to_f32(self) -> F32:
        return _dequantize(self.qweight_NK, self.scales_NG, self.group_size)


@dataclass(frozen=True, slots=True)
class Int4Weight(_Base):
    """`k` is kept because the packed row does not tell an odd width from the even one above it."""

    qweight_NB: U8
    scales_NG: F32
    group_size: int
    k: int

    @property
    def format(self) -> Literal["int4"]:
        return "int4"

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.qweight_NB), self.k

    @property
    def arrays(self) -> tuple[NDArray[np.generic], ...]:
        return self.qweight_NB, self.scales_NG

    def with_arrays(self, arrays: tuple[NDArray[np.generic], ...]) -> Int4Weight:
        return Int4Weight(*arrays, group_size=self.group_size, k=self.k)  # type: ignore[arg-type,misc]

    def linear(self, x_TK: F32, bias_N: F32 | None = None) -> F32:
        return _add_bias(kernels.gemm_int4(x_TK, self.qweight_NB, self.scales_NG, self.group_size), bias_N)

    def rows(self, ids_T: I64) -> F32:
        return _dequantize(_unpack_int4(self.qweight_NB[ids_T], self.k), self.scales_NG[ids_T], self.group_size)

    def to_f32(self) -> F32:
        return _dequantize(_unpack_int4(self.qweight_NB, self.k), self.scales_NG, self.group_size)


@dataclass(frozen=True, slots=True)
class StackedWeight:
    """E matrices of one shape and format in contiguous memory, so that a kernel can walk over experts."""

    first: Weight
    arrays: tuple[NDArray[np.generic], ...]

    def __len__(self) -> int:
        return len(self.arrays[0])

    def __getitem__(self, expert: int) -> Weight:
        """Matrix number `expert`; a view."""
        return self.first.with_arrays(tuple(array[expert] for array in self.arrays))

    @property
    def format(self) -> WeightFormat:
        return self.first.format

    @property
    def shape(self) -> tuple[int, int, int]:
        return len(self), *self.first.shape

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self.arrays)


def make_weight(array_NK: F32 | U16, format: WeightFormat, group_size: int = DEFAULT_GROUP_SIZE) -> Weight:  # noqa: A002
    """Round a float32 or bfloat16 (uint16 bits) matrix to a format; to nearest in all of them.

    Raises ConfigError for an unknown format, a group size below 1, a matrix that is not 2-D or of another dtype.
    """
    if array_NK.ndim != 2 or array_NK.dtype not in (np.float32, np.uint16):
        raise ConfigError(
            f"make_weight got a {array_NK.ndim}-dimensional array of {array_NK.dtype}; it takes matrices (out, in) of "
            "float32 or bfloat16 bits (uint16). Convert the array first."
        )
    if group_size < 1:
        raise ConfigError(f"group_size is {group_size}; it must be 1 or more. 32 is the usual choice.")
    if format == "fp32":
        return Float32Weight(np.ascontiguousarray(_to_f32(array_NK)))
    if format == "bf16":
        bits = array_NK if array_NK.dtype == np.uint16 else kernels.f32_to_bf16(np.ascontiguousarray(array_NK))
        return BFloat16Weight(np.ascontiguousarray(bits))
    if format == "int8":
        q_NK, scales_NG = _quantize_in_blocks(array_NK, 127, group_size)
        return Int8Weight(q_NK, scales_NG, group_size)
    if format == "int4":
        q_NK, scales_NG = _quantize_in_blocks(array_NK, 7, group_size)
        return Int4Weight(pack_int4(q_NK), scales_NG, group_size, array_NK.shape[1])
    raise ConfigError(f"weight format {format!r} is unknown; expected fp32, bf16, int8 or int4. Choose one of these.")


def quantize_symmetric(weight_NK: F32, q_max: int, group_size: int) -> tuple[I8, F32]:
    """Round to nearest with one scale a group: q = round(w / scale), scale = max |w| / q_max -> q_NK, scales_NG.

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
    # A group of zeros keeps scale 0: it dequantises to zeros, and dividing by 1 avoids 0/0.
    divisor_NG = np.where(scales_NG > 0, scales_NG, np.float32(1.0))
    # A scale so small that it is denormal makes quotients beyond q_max; the clip keeps them in.
    q_NGS = np.clip(np.rint(padded_NGS / divisor_NG[:, :, None]), -q_max, q_max).astype(np.int8)
    return np.ascontiguousarray(q_NGS.reshape(n, -1)[:, :k]), scales_NG.astype(np.float32)


def _quantize_in_blocks(array_NK: F32 | U16, q_max: int, group_size: int) -> tuple[I8, F32]:
    """`quantize_symmetric` over blocks of rows: the intermediate float32 arrays of a whole embedding take gigabytes."""
    n, k = array_NK.shape
    q_NK, scales_NG = np.empty((n, k), np.int8), np.empty((n, -(-k // group_size)), np.float32)
    step = max(1, _BLOCK_VALUES // max(1, k))
    for begin in range(0, n, step):
        rows = slice(begin, begin + step)
        q_NK[rows], scales_NG[rows] = quantize_symmetric(_to_f32(array_NK[rows]), q_max, group_size)
    return q_NK, scales_NG


def pack_int4(q_NK: I8) -> U8:
    """[N, K] values in -8..7 to [N, ceil(K/2)] bytes; an odd last column is paired with 0."""
    n, k = q_NK.shape
    stored = np.full((n, k + k % 2), 8, np.uint8)
    np.add(q_NK, 8, out=stored[:, :k], casting="unsafe")
    # Two columns seen as one little-endian number: the odd one's nibble is 4 bits too high.
    pairs_NB = stored.view("<u2")
    packed_NB: U8 = (pairs_NB | (pairs_NB >> 4)).astype(np.uint8)
    return packed_NB


def concat_rows(*weights: Weight) -> Weight:
    """One matrix of all output rows, in order; exact in every format. All must agree in format and width."""
    first = weights[0]
    layouts = [(w.format, w.shape[1], getattr(w, "group_size", 0)) for w in weights]
    if len(set(layouts)) > 1:
        raise CheckpointError(
            f"matrices that are one here are stored unlike each other (format, width, group size: {layouts}). Quantise "
            "gate and up projections of a layer alike, for example with `tusi quantize`."
        )
    return first.with_arrays(tuple(np.concatenate(arrays) for arrays in zip(*(w.arrays for w in weights), strict=True)))


def stack_weights(count: int, make: Callable[[int], Weight]) -> StackedWeight:
    """Stack `count` matrices of one shape and format, made one at a time so that only one is held twice."""
    first = make(0)
    arrays = tuple(empty_array((count, *array.shape), array.dtype) for array in first.arrays)
    for e in range(count):
        for stacked, array in zip(arrays, (make(e) if e else first).arrays, strict=True):
            stacked[e] = array
    return StackedWeight(first.with_arrays(tuple(array[0] for array in arrays)), arrays)


def slice_rows(weight: Weight, begin: int, end: int) -> Weight:
    """Output rows begin..end; a view."""
    return weight.with_arrays(tuple(array[begin:end] for array in weight.arrays))


def _add_bias(out_TN: F32, bias_N: F32 | None) -> F32:
    if bias_N is not None:
        out_TN += bias_N
    return out_TN


def _to_f32(array: F32 | U16) -> F32:
    if array.dtype == np.uint16:
        return kernels.bf16_to_f32(np.ascontiguousarray(array))
    return array  # type: ignore[return-value]


def _dequantize(q_NK: I8, scales_NG: F32, group_size: int) -> F32:
    return q_NK.astype(np.float32) * np.repeat(scales_NG, group_size, axis=1)[:, : q_NK.shape[1]]


def _unpack_int4(qweight_NB: U8, k: int) -> I8:
    q_NK = np.empty((len(qweight_NB), 2 * qweight_NB.shape[1]), np.int8)
    q_NK[:, 0::2] = (qweight_NB & 0x0F).astype(np.int8) - 8
    q_NK[:, 1::2] = (qweight_NB >> 4).astype(np.int8) - 8
    return q_NK[:, :k]
