from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tusi.cli import doctor as doctor_module
from tusi.cli.diagnosis import Finding

FINE = Finding(section="memory", name="memory", value="9 GB")
COULD_BE_BETTER = Finding(section="memory", name="huge pages", value="never", level="note", advice="turn them on")
BROKEN = Finding(section="packages", name="numpy", value="missing", level="broken", advice="pip install numpy")


def test_all_is_well(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_module, "diagnose", lambda: [FINE, COULD_BE_BETTER])
    code, out, _ = run("doctor")
    assert code == 0
    assert out.splitlines()[:4] == [
        "memory",
        "  memory             9 GB",
        "! huge pages         never",
        "                     -> turn them on",
    ]
    assert "Nothing is broken." in out


def test_something_broken_is_exit_code_1(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_module, "diagnose", lambda: [FINE, BROKEN])
    code, out, _ = run("doctor")
    assert code == 1
    assert "X numpy              missing" in out
    assert "-> pip install numpy" in out


def test_json(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_module, "diagnose", lambda: [BROKEN])
    code, out, _ = run("doctor", "--json")
    assert code == 1
    assert json.loads(out) == {
        "ok": False,
        "findings": [
            {
                "section": "packages",
                "name": "numpy",
                "value": "missing",
                "level": "broken",
                "advice": "pip install numpy",
            }
        ],
    }


def test_a_model_is_loaded_and_its_memory_told(run: Run, tiny_model: Path) -> None:
    code, out, _ = run("doctor", "--model", str(tiny_model), "--dtype", "int8")
    assert code == 0
    lines = {line[2:20].strip(): line[20:] for line in out.partition("\nmodel\n")[2].splitlines()}
    assert "(int8)" in lines["model"]
    assert "to the first token" in lines["start"]
    # The whole process is told of, these tests included.
    assert re.search(r"\d [MG]B", lines["memory, steady"])
    assert re.search(r"\d [MG]B", lines["memory, peak"])


def test_a_model_that_cannot_be_loaded_is_broken(run: Run, tmp_path: Path) -> None:
    code, out, _ = run("doctor", "--model", str(tmp_path / "nothing"))
    assert code == 1
    assert "X model" in out
