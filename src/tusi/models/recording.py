"""Weights that note what they are multiplied with, and otherwise do what the plain ones do.

In: a source of plain tensors. Out: Parameters whose matrices, once modules are built of them, collect the second
moments of their inputs by name (and expert). Matrices that are joined when loaded, q, k and v for one, share theirs.
Knows nothing of samples.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tusi import kernels
from tusi.core.types import Activations, WeightFormat
from tusi.models.parameters import Parameters, TensorSource
from tusi.quant.compensated import Moments
from tusi.quant.weights import F32, I64, StackedWeight, Weight, concat_rows

Key = tuple[str, int | None]
"""A tensor's name in memory, and which expert of it."""


@dataclass(frozen=True, slots=True)
class Recording:
    """A `Weight`. It is none of the known formats to any fast path, so that its products are always asked of it."""

    weight: Weight
    moments: Moments

    @property
    def format(self) -> WeightFormat:
        return self.weight.format

    @property
    def shape(self) -> tuple[int, int]:
        return self.weight.shape

    @property
    def arrays(self) -> tuple[NDArray[np.generic], ...]:
        return self.weight.arrays

    def with_arrays(self, arrays: tuple[NDArray[np.generic], ...]) -> Recording:
        return Recording(self.weight.with_arrays(arrays), self.moments)

    @property
    def nbytes(self) -> int:
        return self.weight.nbytes

    @property
    def activations(self) -> Activations:
        return self.weight.activations

    def linear(self, x_TK: F32, bias_N: F32 | None = None) -> F32:
        self.moments.add(x_TK)
        return self.weight.linear(x_TK, bias_N)

    def normed_linear(self, x_TK: F32, norm_K: F32, eps: float) -> F32:
        return self.linear(kernels.rms_norm(x_TK, norm_K, eps))

    def linear_add(self, x_TK: F32, residual_TN: F32) -> F32:
        self.moments.add(x_TK)
        return self.weight.linear_add(x_TK, residual_TN)

    @property
    def matrix(self) -> kernels.Matrix:
        return self.weight.matrix

    def rows(self, ids_T: I64) -> F32:
        return self.weight.rows(ids_T)

    def to_f32(self) -> F32:
        return self.weight.to_f32()


@dataclass(frozen=True, slots=True)
class RecordingStack:
    """What modules read of a `StackedWeight`."""

    weights: StackedWeight
    moments: tuple[Moments, ...]

    def __len__(self) -> int:
        return len(self.weights)

    def __getitem__(self, expert: int) -> Recording:
        return Recording(self.weights[expert], self.moments[expert])

    @property
    def first(self) -> Recording:
        return self[0]

    @property
    def arrays(self) -> tuple[NDArray[np.generic], ...]:
        return self.weights.arrays

    @property
    def format(self) -> WeightFormat:
        return self.weights.format

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.weights.shape


@dataclass(frozen=True, slots=True)
class Records:
    """What was noted so far."""

    by_key: dict[Key, Moments] = field(default_factory=dict)


class RecordingParameters(Parameters):
    """Parameters in a plain format whose matrices write into `records`."""

    def __init__(self, source: TensorSource, asked: WeightFormat, records: Records) -> None:
        super().__init__(source, asked)
        self._records = records

    def weight(self, name: str) -> Weight:
        return self.joined(name)

    def joined(self, *names: str) -> Weight:
        plain = [super(RecordingParameters, self).weight(name) for name in names]
        weight = concat_rows(*plain) if len(plain) > 1 else plain[0]
        moments = Moments(weight.shape[1])
        self._records.by_key.update({(self._prefix + name, None): moments for name in names})
        return Recording(weight, moments)

    def experts(self, name: str) -> StackedWeight:
        weights = super().experts(name)
        moments = tuple(Moments(weights.shape[2]) for _ in range(len(weights)))
        self._records.by_key.update({(self._prefix + name, e): one for e, one in enumerate(moments)})
        stack: Any = RecordingStack(weights, moments)
        return stack  # type: ignore[no-any-return]
