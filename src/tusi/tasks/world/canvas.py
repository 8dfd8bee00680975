"""A picture under construction: uint8 RGB pixels and the few ways to draw on them. Coordinates are pixels.

Every drawing call returns the box it covered, which is how annotations come to match pictures exactly.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from tusi.tasks.world import glyphs
from tusi.tasks.world.atlas import Sprite
from tusi.tasks.world.rng import Rng

Pixels = NDArray[np.uint8]
PixelBox = tuple[int, int, int, int]
Rgb = tuple[int, int, int]
Pen = ImageDraw.ImageDraw

INK: Rgb = (24, 26, 32)
# Middle pastels: white artwork and black outlines both stand out on them.
GROUNDS: tuple[Rgb, ...] = (
    (176, 205, 226), (186, 216, 186), (226, 208, 172), (216, 190, 206), (198, 196, 224),
    (170, 208, 204), (208, 208, 200), (222, 196, 176), (190, 200, 210), (204, 214, 176),
)  # fmt: skip


# Light falls on every ground from one side: warmer to the right, greener downwards, by at most so much of 255.
LIGHT_ACROSS: Rgb = (40, 0, -40)
LIGHT_DOWN: Rgb = (-20, 40, -20)
GRAIN = 13
"""How many levels of grey grain has."""


@lru_cache(maxsize=512)
def _ground(colour: Rgb, width: int, height: int) -> Pixels:
    """A lit ground. Rotary positions are relative: on an even ground no patch could tell where in the picture it is."""
    across = np.linspace(-0.5, 0.5, width, dtype=np.float32)[None, :, None] * np.asarray(LIGHT_ACROSS, np.float32)
    down = np.linspace(-0.5, 0.5, height, dtype=np.float32)[:, None, None] * np.asarray(LIGHT_DOWN, np.float32)
    lit = np.asarray(colour, np.float32) + across + down
    return np.ascontiguousarray(lit.round().clip(0, 255).astype(np.uint8))


@lru_cache(maxsize=32)
def _grain(width: int, height: int) -> NDArray[np.uint8]:
    raw = np.random.PCG64(7).random_raw(width * height // 8 + 1).view(np.uint8)[: width * height]
    return (raw % GRAIN).reshape(height, width, 1)


def readable_on(colour: str) -> Rgb:
    """Dark print on light colours, white on the others."""
    return INK if colour in ("yellow", "orange") else (255, 255, 255)


class Canvas:
    """Pixels [H, W, 3] and the operations on them."""

    __slots__ = ("pixels",)

    def __init__(self, pixels: Pixels) -> None:
        self.pixels = pixels

    @classmethod
    def plain(cls, width: int, height: int, colour: Rgb) -> Canvas:
        return cls(_ground(colour, width, height).copy())

    @classmethod
    def ground(cls, rng: Rng, width: int, height: int, difficulty: int) -> Canvas:
        """A background: plain when easy, then with grain."""
        canvas = cls(_ground(rng.choice(GROUNDS), width, height).copy())
        if difficulty >= 3 and rng.chance(0.4):
            canvas.pixels = np.minimum(canvas.pixels, 255 - GRAIN) + _grain(width, height)
        return canvas

    @property
    def width(self) -> int:
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        return int(self.pixels.shape[0])

    def blit(self, sprite: Sprite, x: int, y: int) -> PixelBox:
        """Put a sprite with its top-left corner at (x, y); it must fit."""
        right, bottom = x + sprite.width, y + sprite.height
        region = self.pixels[y:bottom, x:right]
        region[...] = sprite.over_HW3 + (region * sprite.keep_HW1 >> 8).astype(np.uint8)
        return x, y, right, bottom

    def rectangle(self, box: PixelBox, fill: Rgb) -> PixelBox:
        left, top, right, bottom = box
        # One row first: NumPy copies whole rows ten times faster than it repeats three bytes.
        row_W3 = np.empty((right - left, 3), np.uint8)
        row_W3[:] = fill
        self.pixels[top:bottom, left:right] = row_W3
        return box

    def text(self, text: str, x: int, y: int, size: int, colour: Rgb = INK, anchor: str = "lt") -> PixelBox:
        """Print a text; anchor: l, m or r, then t, m or b, of the ink itself. Clamped into the picture."""
        mark = glyphs.ink(text, size)
        x -= {"l": 0, "m": mark.width // 2, "r": mark.width}[anchor[0]]
        y -= {"t": 0, "m": mark.height // 2, "b": mark.height}[anchor[1]]
        x = min(max(0, x), self.width - mark.width)
        y = min(max(0, y), self.height - mark.height)
        right, bottom = x + mark.width, y + mark.height
        region = self.pixels[y:bottom, x:right]
        if colour == (0, 0, 0):
            region[...] = region * mark.keep_HW1 >> 8
        else:
            paint = np.asarray(colour, np.uint16) * (256 - mark.keep_HW1)
            region[...] = (region * mark.keep_HW1 + paint) >> 8
        return x, y, right, bottom

    @contextmanager
    def pen(self) -> Iterator[Pen]:
        """A PIL pen for lines, wedges and polygons; its strokes land here when the block ends."""
        picture = Image.fromarray(self.pixels)
        yield ImageDraw.Draw(picture)
        self.pixels = np.array(picture)
