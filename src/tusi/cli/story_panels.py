"""Pictures side by side: inputs at the left, what tools returned at the right, each scaled to its place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from tusi.chat.messages import VideoPart
from tusi.cli.text_blocks import Colour
from tusi.processing.frame_sampling import FrameSampling, sample_frames
from tusi.processing.limits import MediaLimits
from tusi.processing.media import open_picture
from tusi.processing.sources import open_source
from tusi.processing.text_fonts import writable
from tusi.processing.timestamps import TimestampPainter
from tusi.processing.video import read_frames
from tusi.processing.video_index import index_video

GAP, CAPTION_HEIGHT, CAPTION_SIZE = 16, 26, 17
MAX_FRAMES, FRAME_COLUMNS, FRAME_WIDTH = 8, 4, 280
_HEIGHT = 620
_MIN_HEIGHT = 150
_MAX_ENLARGEMENT = 4.0
_LEFT_SHARE = 0.62
_FRAME = 4


@dataclass(frozen=True, slots=True)
class Panel:
    """A picture with a caption under it. finish: draws into the picture once it has its size; frame: its border."""

    image: Image.Image
    caption: str = ""
    frame: Colour | None = None
    finish: Callable[[Image.Image], Image.Image] | None = None

    def render(self, width: int, height: int, font: Path | None) -> Image.Image:
        """The panel within these bounds, aspect kept."""
        room = height - (CAPTION_HEIGHT if self.caption else 0)
        scale = min(width / self.image.width, room / self.image.height, _MAX_ENLARGEMENT)
        size = (max(1, round(self.image.width * scale)), max(1, round(self.image.height * scale)))
        picture = self.image.resize(size, Image.Resampling.LANCZOS)
        if self.finish:
            picture = self.finish(picture)
        if self.frame:
            ImageDraw.Draw(picture).rectangle((0, 0, size[0] - 1, size[1] - 1), outline=self.frame, width=_FRAME)
        if not self.caption:
            return picture
        text, face, _ = writable(self.caption, CAPTION_SIZE, font)
        wide = min(width, max(size[0], round(face.getlength(text)) + 1))
        panel = Image.new("RGB", (wide, size[1] + CAPTION_HEIGHT), (255, 255, 255))
        panel.paste(picture, (0, 0))
        place = (0, size[1] + CAPTION_HEIGHT / 2)
        ImageDraw.Draw(panel).text(place, text, fill=(90, 90, 90), font=face, anchor="lm")
        return panel


def lay_out(left: Sequence[Panel], right: Sequence[Panel], width: int, font: Path | None = None) -> Image.Image | None:
    """Both columns on white, no wider than they need and at most width; None if there is nothing to show."""
    left_width = width if not right else round(width * _LEFT_SHARE)
    shown = _column(left, left_width, _HEIGHT, font)
    # What a narrow input leaves free belongs to the crops.
    start = shown.width + GAP if shown else 0
    beside = _column(right, width - start, max(shown.height if shown else _HEIGHT, 2 * _MIN_HEIGHT), font)
    columns = [column for column in (shown, beside) if column]
    if not columns:
        return None
    size = (start + beside.width if beside else columns[0].width, max(column.height for column in columns))
    result = Image.new("RGB", size, (255, 255, 255))
    for x, column in zip((0, start), (shown, beside), strict=True):
        if column:
            result.paste(column, (x, 0))
    return result


def frames_panel(part: VideoPart, limits: MediaLimits) -> Panel:
    """Up to MAX_FRAMES frames of a video with their times painted on, as the model sees them."""
    frames = []
    painter = TimestampPainter()
    for seconds, frame in _frames(part, limits):
        height = max(1, round(frame.height * FRAME_WIDTH / frame.width))
        shown = frame.resize((FRAME_WIDTH, height), Image.Resampling.LANCZOS)
        painter.paint(shown, seconds)
        frames.append(shown)
    columns = min(FRAME_COLUMNS, len(frames))
    rows = -(-len(frames) // columns)
    cell = max(frame.height for frame in frames)
    sheet = Image.new("RGB", (columns * (FRAME_WIDTH + 4) - 4, rows * (cell + 4) - 4), (255, 255, 255))
    for place, frame in enumerate(frames):
        sheet.paste(frame, (place % columns * (FRAME_WIDTH + 4), place // columns * (cell + 4)))
    return Panel(sheet)


def _column(panels: Sequence[Panel], width: int, height: int, font: Path | None) -> Image.Image | None:
    if not panels:
        return None
    share = max(_MIN_HEIGHT, (height - GAP * (len(panels) - 1)) // len(panels))
    shown = [panel.render(width, share, font) for panel in panels]
    total = sum(image.height for image in shown) + GAP * (len(shown) - 1)
    column = Image.new("RGB", (max(image.width for image in shown), total), (255, 255, 255))
    y = 0
    for image in shown:
        column.paste(image, (0, y))
        y += image.height + GAP
    return column


def _frames(part: VideoPart, limits: MediaLimits) -> list[tuple[float, Image.Image]]:
    if isinstance(part.source, list | tuple):
        fps = float(part.options.get("fps") or 1.0)
        times = part.options.get("timestamps") or [i / fps for i in range(len(part.source))]
        chosen = np.unique(np.linspace(0, len(part.source) - 1, MAX_FRAMES).round().astype(int))
        return [(float(times[i]), open_picture(part.source[i], limits)) for i in chosen]
    sampling = FrameSampling(target_frames=MAX_FRAMES)
    with open_source(part.source, "video", limits) as file:
        index = index_video(file, limits)
        wanted = sample_frames(index.times, sampling)
        return [(float(index.times.times_N[i]), frame) for i, frame in read_frames(file, index, wanted, limits)]
