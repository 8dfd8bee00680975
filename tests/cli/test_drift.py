"""`tusi drift` with real (tiny, random) models: nothing against itself, little at 8 bits, more at 4."""

from __future__ import annotations

import gc
import json
import weakref
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tusi.cli.drift import TeacherForced
from tusi.core.types import WeightFormatChoice
from tusi.models.quantize import quantize_checkpoint
from tusi.models.random_checkpoint import write_random_checkpoint

SMALL = ("--samples", "1", "--families", "stem,zoom")


def test_what_quantising_cost(run: Run, tiny_model: Path, tmp_path: Path) -> None:
    cells = {}
    for name, options in {
        "itself": (),
        "int8": ("--other-dtype", "int8"),
        "int4": ("--other-dtype", "int4"),
    }.items():
        code, printed, err = run("drift", str(tiny_model), str(tiny_model), *SMALL, *options, "--json")
        assert code == 0, err
        cells[name] = json.loads(printed)["all"]
    assert cells["itself"]["agreement"] == 1.0
    assert cells["itself"]["kl"] == 0.0
    assert cells["itself"]["logprob"] == cells["itself"]["other_logprob"]
    assert 0.0 < cells["int8"]["kl"] < cells["int4"]["kl"]
    quantize_checkpoint(tiny_model, tmp_path / "q", bits=4)
    code, printed, _ = run("drift", str(tiny_model), str(tmp_path / "q"), *SMALL)
    assert code == 0
    rows = [line.split(" | ") for line in printed.splitlines()]
    assert [row[0] for row in rows] == ["| family", "| ---", "| stem", "| zoom", "| all"]
    assert rows[-1][2] == str(cells["int4"]["tokens"])


def test_one_model_is_in_memory_at_a_time(run: Run, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[weakref.ref[TeacherForced]] = []
    alive: list[int] = []
    load = TeacherForced.__init__

    def watched(self: TeacherForced, name: str, dtype: WeightFormatChoice, *more: object) -> None:
        gc.collect()
        alive.append(sum(one() is not None for one in held))
        load(self, name, dtype)
        held.append(weakref.ref(self))

    monkeypatch.setattr(TeacherForced, "__init__", watched)
    code, _, err = run("drift", str(tiny_model), str(tiny_model), *SMALL)
    assert code == 0, err
    assert alive == [0, 0]


def test_wrong_use(run: Run, tiny_model: Path, tmp_path: Path) -> None:
    code, _, err = run("drift", str(tiny_model), str(tmp_path / "nothing"))
    assert code != 0
    assert "tusi:" in err
    code, _, err = run("drift", str(tiny_model), str(tiny_model), "--families", "poetry")
    assert code == 2
    assert "cannot evaluate family poetry" in err
    quantize_checkpoint(tiny_model, tmp_path / "q", bits=4)
    code, _, err = run("drift", str(tiny_model), str(tmp_path / "q"), "--other-dtype", "bf16")
    assert code == 2
    assert "stored quantised to int4" in err
    write_random_checkpoint(tmp_path / "other", seed=3)
    code, _, err = run("drift", str(tiny_model), str(tmp_path / "other"), *SMALL)
    assert code == 0, err  # another model with the same tokenizer may be compared
