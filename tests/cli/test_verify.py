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
from tusi.models.pack import pack_checkpoint
from tusi.quant.memory import HUGE_PAGE

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


def test_packed_files_are_checked_by_their_own_sums(run: Run, mini: Path) -> None:
    run("verify", "--record", "--files-only")
    path = pack_checkpoint(mini, "int4")
    code, out, _ = run("verify", "--files-only")
    assert code == 0
    assert "tusi-mini: all " in out
    assert "tusi-int4.packed" in out
    assert "is as it was written" in out
    flip_a_bit(path)
    code, out, _ = run("verify", "--files-only")
    assert code == 1
    assert "tusi-mini: tusi-int4.packed is damaged where " in out
    assert "make it again with `tusi pack`" in out
    assert "Install or copy it anew" not in out
    code, out, _ = run("verify", "--files-only", "--json")
    assert code == 1
    assert json.loads(out)["packed"] == ["tusi-int4.packed"]


def test_a_packed_folder_needs_no_manifest(run: Run, mini: Path, tmp_path: Path) -> None:
    path = pack_checkpoint(mini, "int8", out=tmp_path / "alone")
    code, out, err = run("verify", str(tmp_path / "alone"))
    assert code == 0
    assert "is as it was written" in out
    assert "what it scores was not compared" in err
    flip_a_bit(path)
    assert run("verify", str(tmp_path / "alone"))[0] == 1
    path.write_bytes(path.read_bytes()[:-5])
    code, out, _ = run("verify", str(tmp_path / "alone"))
    assert code == 1
    assert "tusi-int8.packed cannot be used: " in out


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[HUGE_PAGE + 1000] ^= 4
    path.write_bytes(content)
