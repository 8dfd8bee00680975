"""Weight matrices in the four formats, behind one protocol: multiply, look rows up, widen.

Owns how a matrix of shape (out, in) = (N, K) lies in memory and which kernel multiplies it. Goes in: float32 or
bfloat16 (uint16 bits) arrays; comes out: `Weight` objects that take and give float32. Knows nothing of models.

    fp32         weight_NK float32
    bf16         weight_NK uint16, the bits
    int8, int4   packed codes and their scales; see `integer`
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from tusi import kernels
from tusi.core.errors import CheckpointError, ConfigError
from tusi.core.types import Activations, WeightFormat
from tusi.quant.integer import (
    LAYOUT_VERSION,
    Int4Weight,
    Int8Weight,
    IntegerWeight,
    NotFiniteError,
    concat_packed,
    integer_nbytes,
    pack_weight,
    quantize_symmetric,
)
from tusi.quant.memory import empty_array

__all__ = [
    "DEFAULT_GROUP_SIZE",
    "F32",
    "I8",
    "I32",
    "I64",
    "LAYOUT_VERSION",
    "U8",
    "U16",
    "Activations",
    "BFloat16Weight",
    "Float32Weight",
    "Int4Weight",
    "Int8Weight",
    "IntegerWeight",
    "NotFiniteError",
    "StackedWeight",
    "Weight",
    "concat_rows",
    "make_weight",
    "pack_weight",
    "stack_weights",
    "weight_nbytes",
    "with_activations",
]

F32 = NDArray[np.float32]
U16 = NDArray[np.uint16]
I8 = NDArray[np.int8]
U8 = NDArray[np.uint8]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]

DEFAULT_GROUP_SIZE = 32
_BLOCK_VALUES = 1 << 20


class Weight(Protocol):
    """A matrix of shape (out, in), whatever its format. Activations are float32 on both sides."""

    @property
    def format(self) -> WeightFormat: ...

    @property
    def shape(self) -> tuple[int, int]: ...

    @property
    def arrays(self) -> tuple[NDArray[np.generic], ...]:
        """The arrays that hold it, all of them."""

    def with_arrays(self, arrays: tuple[NDArray[np.generic], ...]) -> Weight:
        """A matrix of the same shape and format over other arrays."""

    @property
    def nbytes(self) -> int: ...

    @property
    def activations(self) -> Activations:
        """What products do with their input: round it to eight bits, or take it as it is."""

    def linear(self, x_TK: F32, bias_N: F32 | None = None) -> F32:
        """x @ weight.T (+ bias) -> [T, N]"""

    def normed_linear(self, x_TK: F32, norm_K: F32, eps: float) -> F32:
        """rms_norm(x) @ weight.T -> [T, N]"""

    def linear_add(self, x_TK: F32, residual_TN: F32) -> F32:
        """residual + x @ weight.T, in place; returns the residual."""

    @property
    def matrix(self) -> kernels.Matrix:
        """The same for `kernels.run_stack`."""

    def rows(self, ids_T: I64) -> F32:
        """The rows with these ids -> [T, K]; an embedding look-up."""

    def to_f32(self) -> F32: ...


class _Base:
    """What the two float formats share."""

    __slots__ = ()

    @property
    def arrays(self) -> tuple[NDArray[np.generic], ...]:
        raise NotImplementedError

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self.arrays)

    @property
    def activations(self) -> Literal["float32"]:
        return "float32"

    def _product(self, x_TK: F32, **fused: Any) -> F32:
        """x @ weight.T with what the kernel does in the same call."""
        raise NotImplementedError

    def linear(self, x_TK: F32, bias_N: F32 | None = None) -> F32:
        return self._product(x_TK, bias_N=bias_N)

    def normed_linear(self, x_TK: F32, norm_K: F32, eps: float) -> F32:
        return self._product(x_TK, norm_K=norm_K, eps=eps)

    def linear_add(self, x_TK: F32, residual_TN: F32) -> F32:
        return self._product(x_TK, add=True, out=residual_TN)


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

    def _product(self, x_TK: F32, **fused: Any) -> F32:
        return kernels.gemm_f32(x_TK, self.weight_NK, **fused)

    @property
    def matrix(self) -> kernels.PlainMatrix:
        return kernels.PlainMatrix(self.weight_NK)

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

    def _product(self, x_TK: F32, **fused: Any) -> F32:
        return kernels.gemm_bf16(x_TK, self.weight_NK, **fused)

    @property
    def matrix(self) -> kernels.PlainMatrix:
        return kernels.PlainMatrix(self.weight_NK)

    def rows(self, ids_T: I64) -> F32:
        return kernels.bf16_to_f32(self.weight_NK[ids_T])

    def to_f32(self) -> F32:
        return kernels.bf16_to_f32(self.weight_NK)


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


def make_weight(
    array_NK: F32 | U16,
    format: WeightFormat,  # noqa: A002
    group_size: int = DEFAULT_GROUP_SIZE,
    activations: Activations = "int8",
) -> Weight:
    """Round a float32 or bfloat16 (uint16 bits) matrix to a format; to nearest in all of them.

    activations: what products over the integer formats do with their input.

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
        return pack_weight(*_quantize_in_blocks(array_NK, 127, group_size), group_size, 8, activations)
    if format == "int4":
        return pack_weight(*_quantize_in_blocks(array_NK, 7, group_size), group_size, 4, activations)
    raise ConfigError(f"weight format {format!r} is unknown; expected fp32, bf16, int8 or int4. Choose one of these.")


def _quantize_in_blocks(array_NK: F32 | U16, q_max: int, group_size: int) -> tuple[I8, U16]:
    """`quantize_symmetric` over blocks of rows: the intermediate float32 arrays of a whole embedding take gigabytes."""
    n, k = array_NK.shape
    q_NK, scales_NG = np.empty((n, k), np.int8), np.empty((n, -(-k // group_size)), np.uint16)
    step = max(1, _BLOCK_VALUES // max(1, k))
    for begin in range(0, n, step):
        rows = slice(begin, begin + step)
        q_NK[rows], scales_NG[rows] = quantize_symmetric(_to_f32(array_NK[rows]), q_max, group_size)
    return q_NK, scales_NG


def weight_nbytes(format: WeightFormat, n: int, k: int, group_size: int = DEFAULT_GROUP_SIZE) -> int:  # noqa: A002
    """Bytes that the arrays of a matrix (n, k) take in memory, exactly."""
    if format in ("fp32", "bf16"):
        return (4 if format == "fp32" else 2) * n * k
    return integer_nbytes(4 if format == "int4" else 8, n, k, group_size)


def concat_rows(*weights: Weight) -> Weight:
    """One matrix of all output rows, in order; exact in every format. All must agree in format and width."""
    first = weights[0]
    layouts = [(w.format, w.shape[1], getattr(w, "group_size", 0)) for w in weights]
    if len(set(layouts)) > 1:
        raise CheckpointError(
            f"matrices that are one here are stored unlike each other (format, width, group size: {layouts}). Quantise "
            "gate and up projections of a layer alike, for example with `tusi quantize`."
        )
    if isinstance(first, IntegerWeight):
        return concat_packed([weight for weight in weights if isinstance(weight, IntegerWeight)])
    joined = tuple(np.concatenate(arrays) for arrays in zip(*(w.arrays for w in weights), strict=True))
    return first.with_arrays(joined)


def stack_weights(count: int, make: Callable[[int], Weight]) -> StackedWeight:
    """Stack `count` matrices of one shape and format, made one at a time so that only one is held twice."""
    first = make(0)
    arrays = tuple(empty_array((count, *array.shape), array.dtype) for array in first.arrays)
    for e in range(count):
        for stacked, array in zip(arrays, (make(e) if e else first).arrays, strict=True):
            stacked[e] = array
    return StackedWeight(first.with_arrays(tuple(array[0] for array in arrays)), arrays)


def with_activations(weight: Weight | StackedWeight, activations: Activations) -> Weight | StackedWeight:
    """The same matrices over the same arrays; products over integer formats do this with their input."""
    if isinstance(weight, StackedWeight):
        first = with_activations(weight.first, activations)
        return replace(weight, first=first)  # type: ignore[arg-type]  # a stack holds no stacks
    return replace(weight, activations=activations) if isinstance(weight, IntegerWeight) else weight


def _to_f32(array: F32 | U16) -> F32:
    if array.dtype == np.uint16:
        return kernels.bf16_to_f32(np.ascontiguousarray(array))
    return array  # type: ignore[return-value]
