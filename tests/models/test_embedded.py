"""The name tusi-mini: where it leads, and what is said where the package has none."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tusi.core.errors import ConfigError
from tusi.models import embedded
from tusi.models.config_io import load_config
from tusi.models.hub import resolve_model
from tusi.models.manifest import check_files, read_manifest


@pytest.fixture
def mini(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny checkpoint in the place of the embedded one."""
    folder = tmp_path / "package" / embedded.EMBEDDED_MODEL
    shutil.copytree(tiny_model, folder)
    monkeypatch.setattr(embedded, "FOLDER", folder)
    return folder


def test_the_name_leads_to_the_package_even_beside_a_folder_of_that_name(
    mini: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(embedded.EMBEDDED_MODEL).mkdir()
    assert resolve_model("tusi-mini") == embedded.embedded_folder() == mini
    Path(embedded.EMBEDDED_MODEL, "config.json").write_text("{}")
    assert resolve_model("./tusi-mini") == Path("tusi-mini")


def test_it_is_the_default_unless_the_environment_names_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TUSI_MODEL", raising=False)
    assert embedded.default_model() == "tusi-mini"
    monkeypatch.setenv("TUSI_MODEL", "other")
    assert embedded.default_model() == "other"


def test_an_installation_without_it_names_the_other_choices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "FOLDER", tmp_path)
    assert not embedded.is_embedded_there()
    with pytest.raises(ConfigError, match="comes without tusi-mini") as caught:
        resolve_model("tusi-mini")
    for choice in ("--model", "TUSI_MODEL", "tusi pull", "tusi fit", "random"):
        assert choice in str(caught.value)


@pytest.mark.skipif(not embedded.is_embedded_there(), reason="this source tree has no tusi-mini")
def test_the_shipped_model_is_what_its_manifest_says_and_small() -> None:
    folder = embedded.embedded_folder()
    manifest = read_manifest(folder)
    assert check_files(folder, manifest) == []
    assert manifest.scores is not None
    assert sum(path.stat().st_size for path in folder.iterdir()) <= embedded.MAX_BYTES
    assert load_config(folder).dtype == "bfloat16"
