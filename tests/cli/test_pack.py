from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tusi.models.random_checkpoint import write_random_checkpoint


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_random_checkpoint(tmp_path / "model")


def test_packs_beside_the_model(run: Run, model: Path) -> None:
    code, out, err = run("pack", str(model), "--dtype", "int4")
    assert (code, err) == (0, "")
    path = model / "tusi-int4.packed"
    assert out.startswith(f"{path} (")
    assert path.is_file()


def test_packs_into_a_folder_of_its_own(run: Run, model: Path, tmp_path: Path) -> None:
    assert run("pack", str(model), str(tmp_path / "out"), "--dtype", "int8")[0] == 0
    shutil.rmtree(model)
    code, out, _ = run(
        "bench", str(tmp_path / "out"), "--weight-memory", "mmap", "--rounds", "1", "--tokens", "1", "--context", "64",
        "--prompts", "none", "--sequences", "1", "--image", "none",
    )  # fmt: skip
    assert code == 0
    assert "int8" in out


def test_too_small_a_disk_is_told_before(run: Run, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(model)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10))
    code, _, err = run("pack", str(model))
    assert code == 2
    assert "another disk" in err
    assert not list(model.glob("*.packed"))


def test_a_folder_that_cannot_be_written_is_told(run: Run, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied", "model")

    monkeypatch.setattr("tusi.cli.pack.pack_checkpoint", refuse)
    code, _, err = run("pack", str(model))
    assert code == 2
    assert "Permission denied" in err
