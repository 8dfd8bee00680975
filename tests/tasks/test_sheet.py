"""Contact sheets hold every sample."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import ImageFont

from tusi.core.errors import ConfigError
from tusi.processing import text_fonts
from tusi.tasks.world import FAMILIES, generate, sheet
from tusi.tasks.world.sheet import TILE_WIDTH, contact_sheet


def test_a_sheet_has_a_tile_for_every_sample() -> None:
    samples = [generate(family, 3, "en", 0) for family in FAMILIES]
    drawn = np.asarray(contact_sheet(samples, columns=3))
    assert drawn.shape[1] == 3 * TILE_WIDTH
    tiles = [
        drawn[r * drawn.shape[0] // 2 :][: drawn.shape[0] // 2, c * TILE_WIDTH :][:, :TILE_WIDTH]
        for r in (0, 1)
        for c in range(3)
    ]
    assert all((tile < 250).mean() > 0.05 for tile in tiles)


def test_a_font_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.ttf").write_text("no font")
    with pytest.raises(ConfigError, match="TrueType"):
        contact_sheet([generate("stem", 1, "zh", 0)], font=tmp_path / "x.ttf")


def test_chinese_is_written_with_a_font_that_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def write(text: str, size: int, named: Path | None = None) -> tuple[str, ImageFont.FreeTypeFont, int]:
        asked.append((text, named))
        return text_fonts.writable("ok", size)

    monkeypatch.setattr(sheet, "writable", write)
    sample = generate("stem", 1, "zh", 0)
    contact_sheet([sample], font=text_fonts.ROBOTO)
    assert (sample.question, text_fonts.ROBOTO) in asked
