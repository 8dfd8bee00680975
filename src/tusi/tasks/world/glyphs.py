"""Printed text: Roboto's Latin letters and digits as cached masks. Chinese is not printed (see the package's notes)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from tusi.processing.text_fonts import ROBOTO


@dataclass(frozen=True, slots=True, eq=False)
class Ink:
    """A line of text as coverage, trimmed to its ink. keep_HW1 is what stays of the ground, of 256."""

    keep_HW1: NDArray[np.uint16]

    @property
    def width(self) -> int:
        return int(self.keep_HW1.shape[1])

    @property
    def height(self) -> int:
        return int(self.keep_HW1.shape[0])


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(ROBOTO), size, layout_engine=ImageFont.Layout.BASIC)


@lru_cache(maxsize=4096)
def ink(text: str, size: int, bold: bool = True) -> Ink:
    """A text at a font size. bold thickens strokes by half a pixel or so: small models read thin print badly."""
    font = _font(size)
    stroke = 0.5 if bold else 0
    left, top, right, bottom = font.getbbox(text, stroke_width=stroke)
    mask = Image.new("L", (int(right - left) + 4, int(bottom - top) + 4))
    ImageDraw.Draw(mask).text((2 - left, 2 - top), text, font=font, fill=255, stroke_width=stroke)
    box = mask.getbbox()
    assert box is not None, f"nothing to print in {text!r}"
    coverage = np.asarray(mask.crop(box), dtype=np.uint16)[..., None]
    return Ink((256 - (coverage * 256 + 127) // 255).astype(np.uint16))
