"""Media on their way through a run: fetched once before it, and made fit to be sent elsewhere after it."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from dataclasses import replace
from typing import TypeVar

import numpy as np
from PIL import Image

from tusi.chat.messages import ImagePart, Part
from tusi.processing.limits import MediaLimits
from tusi.processing.sources import open_source

PartT = TypeVar("PartT", bound=Part)

MAX_ENCODED_PIXELS = 2_000_000
"""Of a picture that is sent out; larger ones are scaled down, for a whole photograph as PNG is tens of megabytes."""


def downloaded(content: Iterable[PartT], limits: MediaLimits) -> tuple[PartT, ...]:
    """Pictures behind URLs as their bytes, so that tools and later turns need not fetch them again."""
    return tuple(_downloaded(part, limits) for part in content)


def encoded(content: Iterable[Part]) -> tuple[Part, ...]:
    """Pictures that are pixels (uint8 RGB [H, W, 3]) as PNG in data URLs."""
    return tuple(
        replace(part, source=_data_url(part.source))
        if isinstance(part, ImagePart) and isinstance(part.source, np.ndarray)
        else part
        for part in content
    )


def _downloaded(part: PartT, limits: MediaLimits) -> PartT:
    if not isinstance(part, ImagePart):
        return part
    if not (isinstance(part.source, str) and part.source.lower().startswith(("http://", "https://"))):
        return part
    with open_source(part.source, "image", limits) as file:
        return replace(part, source=file.read())


def _data_url(pixels_HW3: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> str:
    picture = Image.fromarray(pixels_HW3)
    scale = (MAX_ENCODED_PIXELS / max(1, picture.width * picture.height)) ** 0.5
    if scale < 1:
        picture = picture.resize((max(1, int(picture.width * scale)), max(1, int(picture.height * scale))))
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
