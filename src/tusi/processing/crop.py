"""Cropping a picture by a box in the model's own frame: 0-1000 of the *original* picture, whatever was shown to it.

In: uint8 RGB pixels and `bbox_2d`. Out: uint8 RGB pixels of the region, grown to a least side and scaled up when small.
Pure: it knows nothing of tools, tokens or the processor's pixel budget.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tusi.core.errors import RequestError

COORDINATE_RANGE = 1000
MIN_SIDE = 28
MIN_PIXELS = 224 * 224
MAX_ASPECT = 100


def crop_by_bbox(
    pixels_HW3: NDArray[np.uint8],
    bbox_2d: Sequence[float],
    *,
    min_side: int = MIN_SIDE,
    min_pixels: int = MIN_PIXELS,
) -> NDArray[np.uint8]:
    """The region [x1, y1, x2, y2] (0-1000 of the original) of a picture, ready to be shown again.

    Coordinates beyond the picture are clamped. A region thinner than min_side pixels grows around its centre, as far as
    the picture allows; one with fewer than min_pixels is scaled up (bicubic, aspect kept) to about that many.
    Raises RequestError for a box that is not four finite numbers, is empty or reversed, or is absurdly thin.
    """
    left, top, right, bottom = pixel_region(bbox_2d, pixels_HW3.shape[1], pixels_HW3.shape[0], min_side=min_side)
    region = pixels_HW3[top:bottom, left:right]
    height, width = region.shape[:2]
    if max(height, width) > MAX_ASPECT * min(height, width):
        raise RequestError(
            f"bbox_2d {list(bbox_2d)} is {width}x{height} pixels; a crop may be at most {MAX_ASPECT} times longer than "
            "wide; ask for a less extreme box",
            param="bbox_2d",
        )
    scale = math.sqrt(min_pixels / (height * width))
    if scale <= 1:
        return np.ascontiguousarray(region)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Image.fromarray(np.ascontiguousarray(region)).resize(size, Image.Resampling.BICUBIC))


def pixel_region(
    bbox_2d: Sequence[float], width: int, height: int, *, min_side: int = MIN_SIDE
) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) in pixels of a width x height picture: rounded outwards, clamped, grown."""
    x1, y1, x2, y2 = checked_bbox(bbox_2d)
    left, right = _span(x1, x2, width, min_side)
    top, bottom = _span(y1, y2, height, min_side)
    return left, top, right, bottom


def checked_bbox(bbox_2d: object) -> list[float]:
    """A box as four numbers clamped to 0-1000. Raises RequestError for one that is none."""
    values = list(bbox_2d) if isinstance(bbox_2d, Sequence) and not isinstance(bbox_2d, str) else []
    numbers = [float(v) for v in values if isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v)]
    if len(numbers) != 4 or len(values) != 4:
        raise RequestError(
            f"bbox_2d is {bbox_2d!r}; expected four finite numbers [x1, y1, x2, y2]; "
            "give the corners in 0-1000 of the original picture",
            param="bbox_2d",
        )
    x1, y1, x2, y2 = (min(max(v, 0.0), float(COORDINATE_RANGE)) for v in numbers)
    if x1 >= x2 or y1 >= y2:
        raise RequestError(
            f"bbox_2d {values} holds no area inside the picture; expected x1 < x2 and y1 < y2 within 0-1000; "
            "give the top-left corner, then the bottom-right one, in 0-1000 of the original picture",
            param="bbox_2d",
        )
    return [x1, y1, x2, y2]


def _span(low: float, high: float, length: int, min_side: int) -> tuple[int, int]:
    """A range of pixels that covers [low, high] of 0-1000, at least min_side long where the picture is."""
    start = math.floor(low * length / COORDINATE_RANGE)
    stop = min(length, math.ceil(high * length / COORDINATE_RANGE))
    wanted = min(min_side, length)
    if stop - start < wanted:
        start = min(max(0, (start + stop - wanted) // 2), length - wanted)
        stop = start + wanted
    return start, stop
