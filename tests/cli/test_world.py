"""`tusi world show`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tusi.cli.main import main
from tusi.tasks.world.generate import generate


def test_show_draws_a_sheet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "sheet.png"
    assert main(["world", "show", str(out), "--count", "6", "--split", "eval", "--language", "zh"]) == 0
    with Image.open(out) as sheet:
        assert sheet.width > 1000
    assert "6 samples" in capsys.readouterr().out


def test_save_writes_the_bare_picture_and_says_what_to_ask(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "sum.png"
    sample = generate("stem", 2, "en", 5, "eval", kind="arithmetic")
    choice = ["--family", "stem", "--kind", "arithmetic", "--difficulty", "2", "--seed", "5", "--split", "eval"]
    assert main(["world", "save", str(out), *choice]) == 0
    with Image.open(out) as picture:
        np.testing.assert_array_equal(np.asarray(picture), sample.media[0])
    said = capsys.readouterr().out
    assert sample.question in said
    assert f"right answer: {sample.answer}" in said


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        (["draw", "x.png"], "tusi world show OUT.png"),
        (["save", "x.png", "--family", "video"], "other than video"),
        (["show", "x.gif"], "end the name in .png"),
        (["show", "x.png", "--family", "maths"], "stem"),
        (["show", "x.png", "--family", "stem", "--kind", "gears"], "arithmetic"),
        (["show", "x.png", "--kind", "gears"], "name the family"),
        (["show", "x.png", "--difficulty", "9"], "1, 2, 3, 4, 5"),
        (["show", "x.png", "--language", "fr"], "en, zh"),
    ],
)
def test_wrong_usage_says_what_is_right(
    arguments: list[str],
    advice: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["world", *arguments]) == 2
    assert advice in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
