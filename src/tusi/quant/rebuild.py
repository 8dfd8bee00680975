"""Weights as arrays and a description in plain values, and back: what a file must hold so that loading is copying.

Works on the dataclasses themselves, whatever their fields: arrays are arrays, everything else is written down as it is.
A layout that changes needs no change here, only another LAYOUT_VERSION.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tusi.core.errors import CheckpointError
from tusi.quant import weights
from tusi.quant.weights import StackedWeight, Weight

Arrays = dict[str, NDArray[Any]]
_PLAIN = (int, str, float, bool)
_STACK = "stack."


def describe(weight: Weight | StackedWeight) -> tuple[dict[str, Any], Arrays]:
    """Class and plain fields of a weight, and its arrays by field. A stack's are those of all its matrices."""
    if isinstance(weight, StackedWeight):
        description, arrays = describe(weight.first)
        own = {name: _same_place(array, weight) for name, array in arrays.items()}
        return {**description, "class": _STACK + description["class"]}, own
    plain: dict[str, Any] = {}
    arrays = {}
    for field in fields(weight):  # type: ignore[arg-type]
        value = getattr(weight, field.name)
        if isinstance(value, np.ndarray):
            arrays[field.name] = value
        else:
            assert isinstance(value, _PLAIN), f"{type(weight).__name__}.{field.name} is neither an array nor plain"
            plain[field.name] = value
    return {"class": type(weight).__name__, "fields": plain}, arrays


def rebuild(description: Mapping[str, Any], arrays: Arrays) -> Weight | StackedWeight:
    """The weight that was described, over these arrays. Raises CheckpointError for what no weight looks like."""
    name = str(description.get("class"))
    try:
        if name.startswith(_STACK):
            first = _one(name.removeprefix(_STACK), description["fields"], {key: a[0] for key, a in arrays.items()})
            return StackedWeight(first, tuple(_whole(part, arrays) for part in first.arrays))
        return _one(name, description["fields"], arrays)
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise CheckpointError(
            f"a packed weight of class {name!r} cannot be made again ({error!r}); it was written by another version. "
            "Pack the model again with `tusi pack`."
        ) from error


def _one(name: str, plain: Mapping[str, Any], arrays: Arrays) -> Weight:
    made = getattr(weights, name)
    if not (isinstance(made, type) and hasattr(made, "with_arrays")):
        raise KeyError(name)
    weight: Weight = made(**plain, **arrays)
    return weight


def _same_place(first: NDArray[Any], stack: StackedWeight) -> NDArray[Any]:
    """The array of a stack whose first element `first` is."""
    return next(array for array in stack.arrays if array[0].ctypes.data == first.ctypes.data)


def _whole(first: NDArray[Any], arrays: Arrays) -> NDArray[Any]:
    return next(array for array in arrays.values() if array[0].ctypes.data == first.ctypes.data)
