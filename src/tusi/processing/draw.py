"""Boxes and points drawn into a picture, so that a person sees what the model means.

In: an RGB picture as the model saw it (upright, whole) and shapes in the model's 0-1000 frame. Out: a new picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from tusi.chat.boxes import Box, Point, Shape
from tusi.processing.text_fonts import font_for

# Told apart by people who confuse red and green, on dark and on bright pictures (Okabe and Ito's set).
COLOURS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167))


@dataclass(frozen=True, slots=True)
class Mark:
    """A shape to be drawn. caption: what its tag says, or fallback where no font here has the caption's characters."""

    shape: Shape
    caption: str
    colour: tuple[int, int, int]
    fallback: str = ""


def draw_shapes(image: Image.Image, shapes: Sequence[Shape]) -> Image.Image:
    """Return a copy with every shape that lies inside, its number and its label. Others are left out: see is_inside.

    A label whose characters no font here has is shown by its number alone (1 is the first shape).
    """
    marks = [
        Mark(shape, f"{number} {shape.label or ''}", COLOURS[(number - 1) % len(COLOURS)], fallback=str(number))
        for number, shape in enumerate(shapes, start=1)
    ]
    return draw_marks(image, marks)


def draw_marks(
    image: Image.Image, marks: Sequence[Mark], *, font: Path | None = None, min_line: int = 2, min_text: int = 12
) -> Image.Image:
    """Return a copy with every mark whose shape lies inside.

    font: a file to write with what Roboto has not. min_line, min_text: pixels of lines and letters at least.
    """
    result = image.convert("RGB")
    canvas = ImageDraw.Draw(result)
    short_side = min(result.size)
    line = max(min_line, short_side // 250)
    text_size = max(min_text, short_side // 35)
    for mark in marks:
        if not mark.shape.is_inside:
            continue
        anchor = _outline(canvas, mark.shape, result.size, mark.colour, line)
        caption = _caption(mark, text_size, font)
        if caption is not None:
            _tag(canvas, caption, anchor, mark.colour, result.size)
    return result


def _outline(
    canvas: ImageDraw.ImageDraw, shape: Shape, size: tuple[int, int], colour: tuple[int, int, int], line: int
) -> tuple[float, float]:
    """Draw the shape, dark beneath so that it shows on any background; return where its tag goes."""
    if isinstance(shape, Point):
        x, y = shape.to_pixels(*size)
        radius = 3 * line
        ring = (x - radius, y - radius, x + radius, y + radius)
        canvas.ellipse(ring, fill=colour, outline=(0, 0, 0), width=max(1, line // 2))
        return x + radius, y - radius
    x1, y1, x2, y2 = _on_pixels(shape, size)
    canvas.rectangle((x1, y1, x2, y2), outline=(0, 0, 0), width=line + 2)
    canvas.rectangle((x1 + 1, y1 + 1, max(x1 + 1, x2 - 1), max(y1 + 1, y2 - 1)), outline=colour, width=line)
    return x1, y1


def _on_pixels(box: Box, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Whole pixels that lie in the picture: its right edge (1000) is the last column, not the one after it."""
    width, height = size
    x1, y1, x2, y2 = (round(value) for value in box.to_pixels(width, height))
    x1, y1 = min(x1, width - 1), min(y1, height - 1)
    return x1, y1, max(x1, min(x2, width) - 1), max(y1, min(y2, height) - 1)


def _caption(mark: Mark, text_size: int, named: Path | None) -> tuple[str, ImageFont.FreeTypeFont] | None:
    for text in (" ".join(mark.caption.split())[:60], mark.fallback):
        font = font_for(text, text_size, named)
        if text and font is not None:
            return text, font
    return None


def _tag(
    canvas: ImageDraw.ImageDraw,
    caption: tuple[str, ImageFont.FreeTypeFont],
    anchor: tuple[float, float],
    colour: tuple[int, int, int],
    size: tuple[int, int],
) -> None:
    """Write the caption on a patch above the anchor, or below where there is no room, always inside the picture."""
    text, font = caption
    left, top, right, bottom = canvas.textbbox((0, 0), text, font=font)
    width, height = right - left + 6, bottom - top + 6
    x = max(0, min(anchor[0], size[0] - width))
    y = anchor[1] - height if anchor[1] >= height else anchor[1]
    y = max(0, min(y, size[1] - height))
    canvas.rectangle((x, y, x + width, y + height), fill=colour)
    ink = (0, 0, 0) if sum(colour) > 330 else (255, 255, 255)
    canvas.text((x + 3 - left, y + 3 - top), text, font=font, fill=ink)
