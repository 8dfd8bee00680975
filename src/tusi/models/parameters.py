"""From stored tensors to weights in the asked format, one tensor at a time.

Owns which format each kind of tensor takes:

    asked    decoder matrices   embedding, head   vision tower, resampler   patch embedding   routers, norms, biases
    fp32     fp32               fp32              fp32                      fp32              fp32
    bf16     bf16               bf16              bf16                      bf16              fp32
    int8     int8               bf16              int8                      bf16              fp32
    int4     int4               int8              int8                      bf16              fp32

int4 stops at the decoder: the rest is 4 % of the parameters, its errors reach every token, and a picture is read
through all 32 vision layers before the decoder can make up for anything. Embedding and head are one step finer than the
decoder. The quantizer (`quantize`) follows the same table. What a quantised checkpoint stores is taken as it is: codes
bit for bit, plain matrices in bf16 if stored so and else in fp32. Routers stay float32 because rounding them
changes which experts are chosen. Knows nothing of the forward pass.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Protocol

import numpy as np

from tusi.core.errors import CheckpointError, ConfigError
from tusi.core.types import WeightFormat, WeightFormatChoice
from tusi.kernels import bf16_to_f32
from tusi.models.config import Ernie4_5_VLMoeConfig
from tusi.models.key_table import Kind, TensorSpec
from tusi.models.safetensors_io import Array
from tusi.quant.weights import (
    DEFAULT_GROUP_SIZE,
    F32,
    Activations,
    IntegerWeight,
    NotFiniteError,
    StackedWeight,
    Weight,
    concat_rows,
    make_weight,
    stack_weights,
)

Progress = Callable[[str, int, int], None]
"""Called with the name of each tensor once it is loaded, the bytes read so far and all there are (as stored)."""


class TensorSource(Protocol):
    """A checkpoint, or tensors in memory."""

    @property
    def specs(self) -> Mapping[str, TensorSpec]: ...

    def __getitem__(self, name: str, /) -> Array: ...

    def expert(self, name: str, e: int) -> Array: ...

    def stored_bytes(self, name: str) -> int: ...

    @property
    def config(self) -> Ernie4_5_VLMoeConfig: ...

    def packed(self, name: str, expert: int | None = None) -> Weight | None:
        """A matrix that is stored as codes; None for one that is stored plain."""


def format_of(kind: Kind, asked: WeightFormat) -> WeightFormat:
    """The format that a tensor of this kind takes when the model is asked for in `asked`; the table above."""
    if kind == "exact":
        return "fp32"
    if asked in ("fp32", "bf16") or kind == "matrix":
        return asked
    if kind == "patch" or (asked == "int8" and kind in ("embedding", "head")):
        return "bf16"
    return "int8"


def choose_format(config: Ernie4_5_VLMoeConfig, asked: WeightFormatChoice) -> WeightFormat:
    """The format in which a checkpoint is loaded. Raises ConfigError if it is stored quantised in another one."""
    if asked not in ("auto", "fp32", "bf16", "int8", "int4"):
        raise ConfigError(
            f"dtype {asked!r} is unknown; expected fp32, bf16, int8 or int4, or auto. Choose one of these."
        )
    stored = config.quantization.weight_format if config.quantization else None
    if asked == "auto":
        return stored or "bf16"
    if stored not in (None, asked):
        raise ConfigError(
            f"dtype {asked} was asked for, and this checkpoint is stored quantised to {stored}; it is loaded as it is. "
            f"Ask for auto or {stored}, or take the checkpoint it was made from."
        )
    return asked


class Parameters:
    """Hands out the tensors of a model under their names, converted; `prefix` is put before each name."""

    def __init__(
        self,
        source: TensorSource,
        asked: WeightFormat,
        *,
        group_size: int = DEFAULT_GROUP_SIZE,
        activations: Activations = "int8",
        progress: Progress | None = None,
    ) -> None:
        """activations: what products over integer weights do with their input."""
        self._source = source
        self._asked: WeightFormat = asked
        self._group_size = group_size
        self._activations: Activations = activations
        self._prefix = ""
        self._meter = _Meter(source, progress)

    def under(self, prefix: str) -> Parameters:
        """The same parameters, seen from a module."""
        seen = copy.copy(self)
        seen._prefix = self._prefix + prefix
        return seen

    def weight(self, name: str) -> Weight:
        """A matrix (out, in)."""
        spec = self._source.specs[self._prefix + name]
        weight = self._stored(spec) or self._make(self._source[spec.name], spec)
        self._meter.count(spec)
        return weight

    def joined(self, *names: str) -> Weight:
        """Matrices of one width as one, their rows in order. Joined here, so that a packed file can hold the whole."""
        return concat_rows(*(self.weight(name) for name in names))

    def experts(self, name: str) -> StackedWeight:
        """A stack of E matrices (out, in), converted one by one."""
        spec = self._source.specs[self._prefix + name]

        def expert(e: int) -> Weight:
            return self._stored(spec, e) or self._make(self._source.expert(spec.name, e), spec)

        stacked = stack_weights(spec.shape[0], expert)
        self._meter.count(spec)
        return stacked

    def exact(self, name: str) -> F32:
        """A norm's weight, a bias or a router, as float32."""
        spec = self._source.specs[self._prefix + name]
        array = to_float32(self._source[spec.name])
        self._meter.count(spec)
        return array

    def _stored(self, spec: TensorSpec, expert: int | None = None) -> Weight | None:
        weight = self._source.packed(spec.name, expert)
        return replace(weight, activations=self._activations) if isinstance(weight, IntegerWeight) else weight

    def _make(self, array: Array, spec: TensorSpec) -> Weight:
        matrix = array if array.dtype == np.uint16 else array.astype(np.float32, copy=False)
        wanted = format_of(spec.kind, self._asked)
        if self._source.config.quantization is not None:
            wanted = "bf16" if array.dtype == np.uint16 else "fp32"
        try:
            return make_weight(matrix, wanted, self._group_size, self._activations)
        except NotFiniteError as error:
            raise CheckpointError(
                f"{spec.name} holds NaN or infinite values, so it cannot be quantised to {self._asked}. The file is "
                "damaged or the training run that wrote it diverged; download or export it again."
            ) from error


class _Meter:
    """Counts what has been loaded, for the progress callback."""

    def __init__(self, source: TensorSource, report: Progress | None) -> None:
        self.source = source
        self.report = report
        self.done = 0
        self.total = sum(source.stored_bytes(name) for name in source.specs)

    def count(self, spec: TensorSpec) -> None:
        self.done += self.source.stored_bytes(spec.name)
        if self.report is not None:
            self.report(spec.name, self.done, self.total)


def to_float32(array: Array) -> F32:
    """A stored tensor (float32, float16 or bfloat16 bits) widened to a contiguous array."""
    contiguous = np.ascontiguousarray(array)
    return bf16_to_f32(contiguous) if array.dtype == np.uint16 else contiguous.astype(np.float32, copy=False)
