"""Paragraphs of text in a picture: wrapped, coloured, cut when long. Knows nothing of models or conversations."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from tusi.processing.text_fonts import writable

Colour = tuple[int, int, int]
_LABEL_WIDTH, _LABEL_SIZE, _GAP = 96, 15, 12
_GREY: Colour = (140, 140, 140)
# A word of Latin text, a single character of what breaks anywhere, white space, a line's end.
_PIECE = re.compile(r"\n|[^\S\n]+|[\u2e80-\uffff]|[^\s\u2e80-\uffff]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A paragraph. label: stands at its left; bar: a stroke of that colour between the two."""

    label: str
    text: str
    size: int = 18
    colour: Colour = (30, 30, 30)
    bar: Colour = (210, 210, 210)
    max_lines: int = 12


def draw_blocks(blocks: Sequence[Block], width: int, font: Path | None = None) -> tuple[Image.Image, int]:
    """The blocks under each other on white, and how many characters no font here could write."""
    laid = [_laid_out(block, width, font) for block in blocks]
    height = sum(block.height + _GAP for block in laid)
    result = Image.new("RGB", (width, max(1, height)), (255, 255, 255))
    pen = ImageDraw.Draw(result)
    y = 0
    for block in laid:
        block.draw(pen, y)
        y += block.height + _GAP
    return result, sum(block.num_missing for block in laid)


@dataclass(frozen=True, slots=True)
class _LaidOut:
    block: Block
    lines: list[str]
    face: ImageFont.FreeTypeFont
    num_missing: int

    @property
    def line_height(self) -> int:
        return round(self.block.size * 1.4)

    @property
    def height(self) -> int:
        return self.line_height * len(self.lines)

    def draw(self, pen: ImageDraw.ImageDraw, y: int) -> None:
        label, face, _ = writable(self.block.label, _LABEL_SIZE)
        pen.text((0, y + self.line_height / 2), label, fill=_GREY, font=face, anchor="lm")
        pen.rectangle((_LABEL_WIDTH, y, _LABEL_WIDTH + 3, y + self.height - 1), fill=self.block.bar)
        for number, line in enumerate(self.lines):
            place = (_LABEL_WIDTH + 16, y + (number + 0.5) * self.line_height)
            pen.text(place, line, fill=self.block.colour, font=self.face, anchor="lm")


def _laid_out(block: Block, width: int, font: Path | None) -> _LaidOut:
    text, face, num_missing = writable(block.text.strip().expandtabs(4), block.size, font)
    lines = list(_wrapped(text, face, width - _LABEL_WIDTH - 20)) or [""]
    if len(lines) > block.max_lines:
        cut = len(lines) - block.max_lines + 1
        lines = [*lines[: block.max_lines - 1], f"[{cut} more lines]"]
    return _LaidOut(block, lines, face, num_missing)


def _wrapped(text: str, face: ImageFont.FreeTypeFont, width: int) -> Iterator[str]:
    """Lines no wider than width: Latin text breaks between words, Chinese anywhere."""
    line = ""
    for piece in _PIECE.findall(text):
        if piece == "\n":
            yield line
            line = ""
        elif face.getlength(line + piece) <= width:
            line += piece
        else:
            if line:
                yield line.rstrip()
            line = piece.lstrip()
            while face.getlength(line) > width:  # a word longer than a line
                end = max(1, next(i for i in range(1, len(line) + 1) if face.getlength(line[:i]) > width) - 1)
                yield line[:end]
                line = line[end:]
    if line:
        yield line
