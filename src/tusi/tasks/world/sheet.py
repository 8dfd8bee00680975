"""Contact sheets: samples drawn side by side, so that a person can look at what the model sees.

In: samples. Out: one RGB picture with, for each, the picture or some frames, what the tools returned, the question, the
thoughts, the calls and the gold answer. Chinese text needs a font with Chinese, which the package does not ship: the
system's is taken, or one that is named.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tusi.chat.messages import ImagePart, Message, TextPart
from tusi.processing.text_fonts import check_font, writable
from tusi.tasks.gold import BoxesGold, BoxGold, Gold, PointGold
from tusi.tasks.world.sample import Clip, Pixels, WorldSample

TILE_WIDTH, PICTURE_HEIGHT, LINE, MARGIN = 470, 200, 15, 8
TEXT_LINES, TEXT_SIZE = 13, 12
MAX_FRAMES = 8
RED, INK, GREY, GREEN = (200, 30, 30), (20, 20, 20), (110, 110, 110), (0, 110, 40)


def contact_sheet(samples: Sequence[WorldSample], *, columns: int = 4, font: Path | None = None) -> Image.Image:
    """All samples on one sheet, columns a row. Raises ConfigError for a font that is none."""
    if font is not None:
        check_font(font)
    height = 2 * MARGIN + PICTURE_HEIGHT + TEXT_LINES * LINE
    columns = min(columns, max(1, len(samples)))
    rows = -(-len(samples) // columns)
    sheet = Image.new("RGB", (columns * TILE_WIDTH, rows * height), (255, 255, 255))
    for index, sample in enumerate(samples):
        tile = _tile(sample, font, height)
        sheet.paste(tile, (index % columns * TILE_WIDTH, index // columns * height))
    return sheet


def _tile(sample: WorldSample, font: Path | None, height: int) -> Image.Image:
    tile = Image.new("RGB", (TILE_WIDTH, height), (255, 255, 255))
    pen = ImageDraw.Draw(tile)
    x = MARGIN
    pictures = list(_pictures(sample))
    room = (TILE_WIDTH - MARGIN * (len(pictures) + 1)) // len(pictures)
    for picture in pictures:
        picture.thumbnail((room, PICTURE_HEIGHT), Image.Resampling.LANCZOS)
        tile.paste(picture, (x, MARGIN))
        x += picture.width + MARGIN
    y = 2 * MARGIN + PICTURE_HEIGHT
    for colour, text in _lines(sample):
        shown, face, _ = writable(text, TEXT_SIZE, font)
        for line in _wrapped(shown, face, TILE_WIDTH - 2 * MARGIN):
            if y + LINE <= height:
                pen.text((MARGIN, y), line, fill=colour, font=face)
            y += LINE
    pen.rectangle((0, 0, TILE_WIDTH - 1, height - 1), outline=(200, 200, 200))
    return tile


def _pictures(sample: WorldSample) -> Iterator[Image.Image]:
    """The media with the gold boxes drawn, then every picture that a tool returned."""
    for medium in sample.media:
        if isinstance(medium, Clip):
            yield _strip(medium)
        else:
            yield _with_boxes(medium, sample.gold)
    for message in sample.trace:
        for part in message.content:
            if isinstance(part, ImagePart):
                yield Image.fromarray(np.asarray(part.source))


def _with_boxes(pixels: Pixels, gold: Gold) -> Image.Image:
    picture = Image.fromarray(pixels)
    boxes = (
        [gold.box.bbox_2d] if isinstance(gold, BoxGold)
        else [box.bbox_2d for box in gold.boxes] if isinstance(gold, BoxesGold)
        else [gold.bbox_2d] if isinstance(gold, PointGold)
        else []
    )  # fmt: skip
    pen = ImageDraw.Draw(picture)
    for x1, y1, x2, y2 in boxes:
        x, y = picture.width / 1000, picture.height / 1000
        pen.rectangle((x1 * x, y1 * y, x2 * x - 1, y2 * y - 1), outline=RED)
    return picture


def _strip(clip: Clip) -> Image.Image:
    """Up to MAX_FRAMES frames in two rows, each with its time."""
    chosen = sorted({round(i * (len(clip.frames) - 1) / (MAX_FRAMES - 1)) for i in range(MAX_FRAMES)})
    height, width = clip.frames[0].shape[:2]
    columns = -(-len(chosen) // 2)
    strip = Image.new("RGB", (columns * (width + 4), 2 * (height + 4)), (255, 255, 255))
    for place, index in enumerate(chosen):
        frame = Image.fromarray(clip.frames[index])
        ImageDraw.Draw(frame).text((2, 2), f"{clip.times[index]:g} s", fill=INK)
        strip.paste(frame, (place % columns * (width + 4), place // columns * (height + 4)))
    return strip


def _lines(sample: WorldSample) -> Iterator[tuple[tuple[int, int, int], str]]:
    yield GREY, f"{sample.id}  {'x'.join(map(str, _size(sample)))}"
    yield INK, sample.question
    for message in sample.trace:
        yield from _turn(message)
    # Rivals are every other name there is; they would fill the tile.
    yield RED, re.sub(r", rivals=\(.*?\)", "", f"gold: {sample.gold}")[:200]


def _size(sample: WorldSample) -> tuple[int, int]:
    medium = sample.media[0]
    pixels = medium.frames[0] if isinstance(medium, Clip) else medium
    return pixels.shape[1], pixels.shape[0]


def _turn(message: Message) -> Iterator[tuple[tuple[int, int, int], str]]:
    if message.reasoning:
        yield GREY, f"[{message.reasoning}]"
    for call in message.tool_calls:
        yield GREEN, f"-> {call.name} {call.arguments}"
    for part in message.content:
        if isinstance(part, TextPart):
            yield (GREEN if message.role == "tool" else INK), ("<- " if message.role == "tool" else "") + part.text


def _wrapped(text: str, face: ImageFont.FreeTypeFont, width: int) -> Iterator[str]:
    """Lines no wider than width; breaks anywhere, as Chinese may."""
    line = ""
    for character in text:
        if character == "\n" or face.getlength(line + character) > width:
            yield line
            line = "" if character == "\n" else character
        else:
            line += character
    yield line
