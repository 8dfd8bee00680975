"""benchmarks/layer_error.py on the small shape: layers err as their format says, and one that errs more is seen."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tusi.models import parameters
from tusi.models.shapes import named_shape
from tusi.quant.weights import pack_weight

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "layer_error.py"


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("layer_error", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["layer_error"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["layer_error"]


def test_errors_are_those_that_the_format_promises(script: ModuleType) -> None:
    rows = script.compare(script.draw_case(named_shape("small"), tokens=48, seed=1))
    assert len(rows) == 16
    for row in rows:
        assert row.is_sound, row
        assert 0.85 < row.error / row.expected < 1.15, row


def test_scales_twice_as_coarse_are_seen(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    real = parameters.make_weight

    def coarser(array: Any, form: Any, group_size: int, activations: Any) -> Any:
        weight = real(array, form, group_size, activations)
        if form not in ("int4", "int8"):
            return weight
        codes, scales = weight.unpacked()
        halved = (codes.astype("i2") + (codes & 1)) // 2
        return pack_weight(halved.astype("i1"), scales + 0x80, group_size, 4 if form == "int4" else 8)

    monkeypatch.setattr(script, "ACTIVATIONS", ("int8",))
    monkeypatch.setattr(script, "FORMATS", (("int4", 7),))
    monkeypatch.setattr(parameters, "make_weight", coarser)
    rows = script.compare(script.draw_case(named_shape("small"), tokens=48, seed=1))
    assert not any(row.is_sound for row in rows)
