from __future__ import annotations

import json

import numpy as np
import pytest

from tusi.core.errors import CheckpointError
from tusi.core.types import WeightFormat
from tusi.quant.rebuild import describe, rebuild
from tusi.quant.weights import StackedWeight, make_weight, stack_weights

FORMATS: tuple[WeightFormat, ...] = ("fp32", "bf16", "int8", "int4")


def matrix(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((21, 45), np.float32)


@pytest.mark.parametrize("weight_format", FORMATS)
def test_a_weight_comes_back_from_plain_values_and_arrays(weight_format: WeightFormat) -> None:
    weight = make_weight(matrix(0), weight_format)
    description, arrays = describe(weight)
    again = rebuild(json.loads(json.dumps(description)), {name: array.copy() for name, array in arrays.items()})
    assert type(again) is type(weight)
    assert again.shape == weight.shape
    assert np.array_equal(again.to_f32(), weight.to_f32())  # type: ignore[union-attr]


@pytest.mark.parametrize("weight_format", FORMATS)
def test_a_stack_comes_back_with_all_its_matrices(weight_format: WeightFormat) -> None:
    stack = stack_weights(3, lambda e: make_weight(matrix(e), weight_format))
    description, arrays = describe(stack)
    again = rebuild(json.loads(json.dumps(description)), {name: array.copy() for name, array in arrays.items()})
    assert isinstance(again, StackedWeight)
    assert again.shape == stack.shape
    for e in range(3):
        assert np.array_equal(again[e].to_f32(), stack[e].to_f32())
    # One piece of memory: the first matrix is a view of the stack.
    assert again.first.arrays[0].ctypes.data == again.arrays[0].ctypes.data


@pytest.mark.parametrize(
    "description", [{}, {"class": "Path", "fields": {}}, {"class": "Int4Weight", "fields": {"x": 1}}]
)
def test_what_no_weight_looks_like_is_an_error(description: dict[str, object]) -> None:
    with pytest.raises(CheckpointError, match="tusi pack"):
        rebuild(description, {})
