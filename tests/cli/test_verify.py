"""`tusi verify`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.fixtures.world_expert import expert_backend
from tusi.backends.fake import FakeBackend
from tusi.cli import session
from tusi.evals.world import world_tasks
from tusi.models import embedded
from tusi.models.manifest import read_manifest

SAMPLES = 4


@pytest.fixture
def mini(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of a checkpoint as the embedded model, whose answers are the expert's."""
    folder = tmp_path / "mini"
    shutil.copytree(tiny_model, folder)
    monkeypatch.setattr(embedded, "FOLDER", folder)
    answer_with(monkeypatch, lambda: expert_backend(world_tasks(samples=SAMPLES)))
    return folder


def answer_with(monkeypatch: pytest.MonkeyPatch, make_backend: Callable[[], FakeBackend]) -> None:
    monkeypatch.setattr(session, "load_backend", lambda name, options: make_backend())


def test_recorded_then_verified(run: Run, mini: Path) -> None:
    code, out, _ = run("verify", "--record", "--samples", str(SAMPLES))
    assert code == 0
    assert "and the scores written down" in out
    assert read_manifest(mini).scores is not None
    code, out, _ = run("verify")
    assert code == 0
    assert out.startswith("tusi-mini: all ")
    assert "| zoom | 4 | 100.0 | 100.0 (51-100) | 4 | agrees |" in out
    assert "The scores are the recorded ones, within statistical error." in out


def test_a_model_that_scores_worse_fails(run: Run, mini: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("verify", "--record", "--samples", str(SAMPLES))
    answer_with(monkeypatch, lambda: FakeBackend(["?"] * 100))
    code, out, _ = run("verify")
    assert code == 1
    assert "differ by more than statistical error" in out
    assert "DIFFERS" in out


def test_damaged_weights_fail_before_anything_is_asked(run: Run, mini: Path) -> None:
    run("verify", "--record", "--files-only")
    (mini / "model.safetensors").write_bytes(b"short")
    code, out, _ = run("verify")
    assert code == 1
    assert "tusi-mini: model.safetensors has 5 bytes instead of " in out
    assert "| family" not in out
    code, out, _ = run("verify", "--json", "--files-only")
    assert code == 1
    assert [problem["name"] for problem in json.loads(out)["problems"]] == ["model.safetensors"]


def test_a_folder_without_a_manifest_or_without_scores(run: Run, mini: Path) -> None:
    code, _, err = run("verify", str(mini))
    assert code == 1
    assert "there is nothing to verify it against" in err
    run("verify", str(mini), "--record", "--files-only")
    code, _, err = run("verify", str(mini))
    assert code == 1
    assert "the manifest has no scores" in err


def test_an_installation_without_the_model(run: Run) -> None:
    code, _, err = run("verify")
    assert code == 2
    assert "comes without tusi-mini" in err
