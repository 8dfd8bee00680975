"""A model of any shape with random weights, made in memory in its final format: for benchmarks and load tests.

In: a configuration and a format. Out: a whole model. Codes are drawn, not quantised from numbers that were drawn, so
the 28 B shape takes seconds, and never more memory than it has in the end. Values keep signals near 1 in every layer
and routers spread their choice: speed, memory and how many experts are read are those of real weights. Answers mean
nothing.

What is not said here about a format is learnt from one matrix of zeros in it: how many arrays there are, their shapes
and types. A layout may change without this file.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from tusi import kernels
from tusi.core.types import Activations, WeightFormat
from tusi.models.config import Ernie4_5_VLMoeConfig
from tusi.models.key_table import TensorSpec, tensor_specs
from tusi.models.model import Ernie4_5_VLMoeForConditionalGeneration
from tusi.models.parameters import Parameters, Progress, format_of
from tusi.models.safetensors_io import Array
from tusi.quant.memory import empty_array
from tusi.quant.weights import DEFAULT_GROUP_SIZE, F32, StackedWeight, Weight, make_weight

_POOL_BYTES = 1 << 24
"""Random bytes that all codes are cut from, each piece beginning elsewhere: drawing 16 GB would take a minute."""
_CODE_DEVIATION = {"int8": 73.9, "int4": 4.32}
"""Standard deviation of codes that are evenly distributed over -128..127 and -7..7."""
_WHOLE = 64
"""A matrix whose sides are multiples of this fills every layout without a rest; others are quantised from numbers."""


def random_model(
    config: Ernie4_5_VLMoeConfig,
    weight_format: WeightFormat = "int4",
    *,
    group_size: int = DEFAULT_GROUP_SIZE,
    activations: Activations = "int8",
    seed: int = 0,
    progress: Progress | None = None,
) -> Ernie4_5_VLMoeForConditionalGeneration:
    """Every part of the model `config` describes. The same seed gives the same weights. Raises MemoryError."""
    params = RandomParameters(
        config, weight_format, group_size=group_size, activations=activations, seed=seed, progress=progress
    )
    return Ernie4_5_VLMoeForConditionalGeneration.from_parameters(config, weight_format, params)


class RandomParameters(Parameters):
    """Parameters that are made when asked for."""

    def __init__(
        self,
        config: Ernie4_5_VLMoeConfig,
        asked: WeightFormat,
        *,
        group_size: int = DEFAULT_GROUP_SIZE,
        activations: Activations = "int8",
        seed: int = 0,
        progress: Progress | None = None,
    ) -> None:
        super().__init__(
            _NoTensors(config, tensor_specs(config)),
            asked,
            group_size=group_size,
            activations=activations,
            progress=progress,
        )
        self._draw = _Draw(np.random.default_rng(seed), group_size, activations)

    def weight(self, name: str) -> Weight:
        return self.joined(name)

    def joined(self, *names: str) -> Weight:
        specs = [self._spec(name) for name in names]
        rows, width = sum(spec.shape[0] for spec in specs), specs[0].shape[1]
        matrix = self._draw.matrix(rows, width, self._format(specs[0]))
        for spec in specs:
            self._meter.count(spec)
        return matrix

    def experts(self, name: str) -> StackedWeight:
        spec = self._spec(name)
        count, n, k = spec.shape
        stacked = self._draw.stack(count, n, k, self._format(spec))
        self._meter.count(spec)
        return stacked

    def exact(self, name: str) -> F32:
        spec = self._spec(name)
        array = self._draw.exact(spec)
        self._meter.count(spec)
        return array

    def _spec(self, name: str) -> TensorSpec:
        return self._source.specs[self._prefix + name]

    def _format(self, spec: TensorSpec) -> WeightFormat:
        return format_of(spec.kind, self._asked)


class _Draw:
    """Draws matrices."""

    def __init__(self, rng: np.random.Generator, group_size: int, activations: Activations) -> None:
        self._rng = rng
        self._group_size = group_size
        self._activations: Activations = activations
        # Stored nibbles 1..15 are codes of mean 0. With -8 among them every row would add the same half scale of the
        # sum of its inputs, which after some layers is all that is left of a signal.
        low, high = rng.integers(1, 16, (2, _POOL_BYTES), np.uint8)
        self._pools = {"int4": low | (high << 4), "int8": np.frombuffer(rng.bytes(_POOL_BYTES), np.uint8)}
        self._normal = rng.standard_normal(_POOL_BYTES // 16, np.float32)
        self._scaled: dict[tuple[int, WeightFormat], NDArray[Any]] = {}
        self._layouts: dict[tuple[int, int, WeightFormat], Weight] = {}

    def matrix(self, n: int, k: int, wanted: WeightFormat) -> Weight:
        """[N, K] with entries of deviation 1 / sqrt(K)."""
        if self._is_ragged(n, k):
            numbers = self._rng.standard_normal((n, k), np.float32) / np.float32(math.sqrt(k))
            return make_weight(numbers, wanted, self._group_size, self._activations)
        layout = self._layout(n, k, wanted)
        arrays = tuple(empty_array(array.shape, array.dtype) for array in layout.arrays)
        self._fill(arrays, k, wanted)
        return layout.with_arrays(arrays)

    def stack(self, count: int, n: int, k: int, wanted: WeightFormat) -> StackedWeight:
        """`count` such matrices in one piece."""
        first = self.matrix(n, k, wanted)
        arrays = tuple(empty_array((count, *array.shape), array.dtype) for array in first.arrays)
        for e in range(count):
            made = first if e == 0 else self.matrix(n, k, wanted) if self._is_ragged(n, k) else None
            one = tuple(array[e] for array in arrays)
            if made is None:
                self._fill(one, k, wanted)
                continue
            for to, array in zip(one, made.arrays, strict=True):
                to[...] = array
        return StackedWeight(first.with_arrays(tuple(array[0] for array in arrays)), arrays)

    def exact(self, spec: TensorSpec) -> F32:
        """Norms near 1, biases near 0; routers whose logits have deviation 1, and no correction of their choice."""
        if spec.name.endswith("e_score_correction_bias"):
            return np.zeros(spec.shape, np.float32)
        values = self._rng.standard_normal(spec.shape, np.float32)
        if len(spec.shape) > 1:
            return values / np.float32(math.sqrt(spec.shape[-1]))
        return values * np.float32(0.02) + np.float32(0.0 if spec.name.endswith("bias") else 1.0)

    def _is_ragged(self, n: int, k: int) -> bool:
        return bool(n % _WHOLE or k % _WHOLE or k % self._group_size)

    def _layout(self, n: int, k: int, wanted: WeightFormat) -> Weight:
        """What the format makes of zeros of this shape; its arrays serve as patterns only."""
        if (n, k, wanted) not in self._layouts:
            zeros = np.zeros((n, k), np.float32)
            self._layouts[n, k, wanted] = make_weight(zeros, wanted, self._group_size, self._activations)
        return self._layouts[n, k, wanted]

    def _fill(self, arrays: tuple[NDArray[Any], ...], k: int, wanted: WeightFormat) -> None:
        for array in arrays:
            if array.dtype.itemsize == 1:
                self._tile(array.view(np.uint8), self._pools[wanted])
            elif wanted in ("int8", "int4"):
                scale = np.full(1, 1.0 / math.sqrt(k) / _CODE_DEVIATION[wanted], np.float32)
                array[...] = (kernels.f32_to_bf16(scale) if array.dtype == np.uint16 else scale)[0]
            else:
                self._tile(array, self._numbers(k, wanted))

    def _numbers(self, k: int, wanted: WeightFormat) -> NDArray[Any]:
        if (k, wanted) not in self._scaled:
            numbers = self._normal / np.float32(math.sqrt(k))
            self._scaled[k, wanted] = kernels.f32_to_bf16(numbers) if wanted == "bf16" else numbers
        return self._scaled[k, wanted]

    def _tile(self, array: NDArray[Any], pool: NDArray[Any]) -> None:
        """Fill with pieces of the pool, from a place drawn anew each time."""
        flat = array.reshape(-1)
        begin = int(self._rng.integers(len(pool)))
        done = 0
        while done < len(flat):
            piece = pool[begin : begin + len(flat) - done]
            flat[done : done + len(piece)] = piece
            done += len(piece)
            begin = 0


@dataclass(frozen=True, slots=True)
class _NoTensors:
    """The source of Parameters that read nothing."""

    config: Ernie4_5_VLMoeConfig
    specs: Mapping[str, TensorSpec]

    def __iter__(self) -> Iterator[str]:
        return iter(self.specs)

    def __getitem__(self, name: str, /) -> Array:
        self._refuse(name)

    def expert(self, name: str, e: int) -> Array:
        self._refuse(f"{name} of expert {e}")

    def stored_bytes(self, name: str) -> int:
        return self.specs[name].size

    def packed(self, name: str, expert: int | None = None) -> Weight | None:
        self._refuse(name)

    def _refuse(self, name: str) -> NoReturn:
        raise AssertionError(f"{name} was asked of a source that has no tensors")
