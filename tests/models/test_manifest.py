from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tusi.core.errors import CheckpointError
from tusi.models.manifest import MANIFEST_FILE, check_files, read_manifest, write_manifest


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_model, copy)
    write_manifest(copy, {"any": [1.0]})
    return copy


def test_what_was_written_down_is_read_back_and_holds(folder: Path) -> None:
    manifest = read_manifest(folder)
    assert manifest.scores == {"any": [1.0]}
    assert set(manifest.files) == {path.name for path in folder.iterdir()} - {MANIFEST_FILE}
    assert check_files(folder, manifest) == []
    assert write_manifest(folder, {"any": [1.0]}) == manifest


def test_every_kind_of_damage_is_named(folder: Path) -> None:
    manifest = read_manifest(folder)
    weights = folder / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    (folder / "config.json").unlink()
    (folder / "preprocessor_config.json").write_text("{}")
    (folder / "extra.py").write_text("")
    (folder / ".hidden").write_text("")
    said = {problem.name: problem.what for problem in check_files(folder, manifest)}
    assert set(said) == {"model.safetensors", "config.json", "preprocessor_config.json", "extra.py"}
    assert said["config.json"] == "is missing"
    assert said["model.safetensors"].startswith("has SHA-256 ")
    assert said["preprocessor_config.json"].startswith("has 2 bytes instead of ")
    assert said["extra.py"] == "is not in the manifest"


def test_a_manifest_that_cannot_be_used_says_so(folder: Path) -> None:
    path = folder / MANIFEST_FILE
    good = json.loads(path.read_text())
    for text, message in (
        ("{", "is not a manifest"),
        (json.dumps({**good, "files": 3}), "is not a manifest \\(files"),
        (json.dumps({**good, "format": 2}), "is of format 2, and this version reads 1"),
    ):
        path.write_text(text)
        with pytest.raises(CheckpointError, match=message):
            read_manifest(folder)
    path.unlink()
    with pytest.raises(CheckpointError, match=r"has no manifest.json.*--record"):
        read_manifest(folder)
