from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tusi.backends.fake import FakeBackend
from tusi.cli import session
from tusi.cli.main import main
from tusi.models import embedded


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder: two pictures and a file that is called a video."""
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (200, 100), (10, 20, 30)).save("photo.jpg")
    Image.new("RGB", (50, 50)).save("other.png")
    Path("clip.mp4").write_bytes(b"\0\0\0\x18ftypisom0000")
    Path("notes.txt").write_text("words")
    return tmp_path


@pytest.fixture(autouse=True)
def clean_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TUSI_MODEL", "TUSI_API_KEY", "HF_ENDPOINT", "HF_TOKEN", "FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TUSI_CACHE", str(tmp_path / "cache"))
    # Whether a source tree has the embedded model must not decide what these tests see.
    monkeypatch.setattr(embedded, "FOLDER", tmp_path / "no-embedded-model")


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> FakeBackend:
    """What `--model fake` opens; queue replies on it."""
    fake = FakeBackend()
    monkeypatch.setattr(session, "load_backend", lambda name, options: fake)
    monkeypatch.setenv("TUSI_MODEL", "fake")
    return fake


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """run("ask", ...) -> exit code, standard output, standard error."""

    def run_main(*args: str) -> tuple[int, str, str]:
        code = main(args)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run_main
