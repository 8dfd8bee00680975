"""Paints the time of a frame into its upper left corner, which is how the model is told when things happen.

The text, its size, place and outline are the reference's (transformers' video processor), with the same typeface.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from tusi.core.errors import CheckpointError
from tusi.processing.text_fonts import ROBOTO

_SIZE_FACTOR = 0.1


def format_timestamp(seconds: float) -> str:
    """67.5 becomes `time: 00:01:07.50`."""
    hours, rest = seconds // 3600, seconds % 3600
    return f"time: {int(hours):02d}:{int(rest // 60):02d}:{rest % 60:05.02f}"


class _Typeface(ImageFont.FreeTypeFont):
    """A typeface that remembers what it has drawn: drawing a time costs more than all else that a small frame does."""

    MAX_MASKS = 512

    def getmask2(self, *args: Any, **kwargs: Any) -> tuple[Any, tuple[int, int]]:
        """As Pillow's; whoever paints with a mask does not change it."""
        masks = self.__dict__.setdefault("_masks", {})
        key = (args, tuple(sorted(kwargs.items())))
        if key not in masks:
            if len(masks) >= self.MAX_MASKS:
                masks.clear()
            masks[key] = super().getmask2(*args, **kwargs)
        found: tuple[Any, tuple[int, int]] = masks[key]
        return found


class _Typefaces(threading.local):
    """Those of one thread, by path and size."""

    MAX_FACES = 32

    def __init__(self) -> None:
        self.faces: dict[tuple[Path, int], _Typeface] = {}


_typefaces = _Typefaces()


class TimestampPainter:
    """Paints the frames of videos. Typefaces, and the times they have drawn, are kept for the thread's next video."""

    def __init__(self, font: Path | None = None) -> None:
        self._path = font or ROBOTO

    def paint(self, frame: Image.Image, seconds: float) -> None:
        """Paint seconds onto the RGB frame, in place. One under 10 pixels has no room for text and stays as it is."""
        font_size = int(min(frame.size) * _SIZE_FACTOR)
        if font_size < 1:
            return
        ImageDraw.Draw(frame).text(
            (0, 0),
            format_timestamp(seconds),
            font=self._font(font_size),
            fill=(0, 0, 0),
            stroke_width=int(font_size * _SIZE_FACTOR),
            stroke_fill=(255, 255, 255),
        )

    def _font(self, size: int) -> _Typeface:
        faces = _typefaces.faces
        if (self._path, size) not in faces:
            if len(faces) >= _typefaces.MAX_FACES:
                faces.clear()
            try:
                faces[self._path, size] = _Typeface(str(self._path), size)
            except OSError as error:
                raise CheckpointError(
                    f"the font {self._path} cannot be read ({error}); timestamps are painted with it. Download the "
                    f"checkpoint again, or remove that file to use the built-in font."
                ) from error
        return faces[self._path, size]
