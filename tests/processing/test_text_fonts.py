from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from tusi.core.errors import ConfigError
from tusi.processing import text_fonts
from tusi.processing.text_fonts import GAP, ROBOTO, check_font, font_for, writable


@pytest.fixture(autouse=True)
def no_system_fonts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_fonts, "WIDE_FONTS", ())


def test_latin_text_is_written_whole() -> None:
    text, face, num_missing = writable("A cat, 42 kg.\nReally?", 20)
    assert (text, num_missing) == ("A cat, 42 kg.\nReally?", 0)
    assert face.path == str(ROBOTO)
    assert font_for("A cat", 20) is not None


def test_what_no_font_has_is_left_out_and_counted_never_drawn_as_boxes() -> None:
    text, face, num_missing = writable("写着437。Yes 很好", 20)
    assert text == f"{GAP}437{GAP}Yes {GAP}"
    assert num_missing == 5
    assert font_for("写着437", 20) is None
    canvas = Image.new("L", (300, 40))
    ImageDraw.Draw(canvas).text((0, 0), text, fill=255, font=face)
    expected = Image.new("L", (300, 40))
    ImageDraw.Draw(expected).text((0, 0), "...437...Yes ...", fill=255, font=face)
    assert canvas.tobytes() == expected.tobytes()


def test_a_named_font_is_used_for_what_roboto_lacks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    named = tmp_path / "named.ttf"
    named.write_bytes(ROBOTO.read_bytes())
    real = text_fonts._has_glyph
    monkeypatch.setattr(text_fonts, "_has_glyph", lambda path, char: path == named or real(path, char))
    face = font_for("猫", 20, named)
    assert face is not None
    assert face.path == str(named)
    assert writable("猫 and cat", 20, named)[2] == 0
    latin = font_for("cat", 20, named)
    assert latin is not None
    assert latin.path == str(ROBOTO)


def test_a_file_that_is_no_font(tmp_path: Path) -> None:
    (tmp_path / "no.ttf").write_text("words")
    for path in (tmp_path / "no.ttf", tmp_path / "absent.ttf"):
        with pytest.raises(ConfigError, match="expected a TrueType or OpenType file"):
            check_font(path)
    check_font(ROBOTO)
