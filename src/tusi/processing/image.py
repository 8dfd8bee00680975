"""Decodes pictures of every common kind to plain 8-bit RGB. Bytes, PIL images or arrays in, PIL RGB images out.

What is done to a picture that is not plain RGB, so that nobody has to guess:
- EXIF orientation is applied (as transformers' loader does); a damaged EXIF block counts as none.
- Transparency (alpha channel, palette, colour key) is composited over white.
- 16-bit greyscale is scaled to 8 bits (65535 becomes 255), not clipped.
- Of animated or multi-page files the first frame is taken. CMYK and the like are converted without colour profiles.
The size is read from the header and checked before any pixel is decoded.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from typing import Final, NoReturn, cast

import numpy as np
from numpy.typing import NDArray
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageOps,
    JpegImagePlugin,
    MpoImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from tusi.core.errors import UnsupportedMedia
from tusi.processing.frames import has_more_frames
from tusi.processing.limits import MediaLimits, check_limit
from tusi.processing.quiet import pillow_warnings_silenced

# Importing a plugin registers it. The list is closed: others run external programs (EPS) or are all risk and no use.
_PLUGINS = (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    JpegImagePlugin,
    MpoImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)
_FORMATS: Final = ("PNG", "JPEG", "MPO", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")
_FORMAT_NAMES: Final = "PNG, JPEG, WebP, GIF, BMP, TIFF, PPM or AVIF"

# What Pillow's decoders raise on damaged files (found by fuzzing), beside OSError: they index and unpack unchecked.
DECODER_ERRORS: Final = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    AssertionError,
    EOFError,
    RuntimeError,
    MemoryError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


def load_image(data: bytes, limits: MediaLimits, *, param: str | None = None) -> Image.Image:
    """Decode an encoded picture to RGB. Raises UnsupportedMedia."""
    if not data:
        raise UnsupportedMedia(
            f"the picture is empty (0 bytes). Expected a {_FORMAT_NAMES} file. Check what was sent.", param=param
        )
    with pillow_warnings_silenced():
        image = _open(data, param)
        _check_num_frames(image, data, limits, param)
        return to_rgb(image, limits, param=param)


def read_size(data: bytes, *, param: str | None = None) -> tuple[int, int]:
    """(width, height) of an encoded picture as its header has them; EXIF may turn it yet. Raises UnsupportedMedia."""
    with pillow_warnings_silenced():
        return _open(data, param).size


def to_rgb(image: Image.Image, limits: MediaLimits, *, param: str | None = None) -> Image.Image:
    """Bring a PIL image (decoded or not) upright and to RGB. Raises UnsupportedMedia."""
    width, height = image.size
    if width < 1 or height < 1:
        raise UnsupportedMedia(
            f"the picture is {width} x {height} pixels; both sides must be at least 1. Send one that is not empty.",
            param=param,
        )
    check_limit(
        width * height,
        limits,
        "max_image_pixels",
        what=f"pixels of a {width} x {height} picture",
        advice="Scale the picture down before sending it, or raise the limit.",
        param=param,
    )
    with pillow_warnings_silenced():
        try:
            image.load()
        except DECODER_ERRORS as error:
            _refuse_damaged(error, param)
        try:
            return _convert(_upright(image), param)
        except DECODER_ERRORS as error:
            _refuse_damaged(error, param)


def array_to_image(array: NDArray[np.generic], limits: MediaLimits, *, param: str | None = None) -> Image.Image:
    """Take a uint8 array [H, W], [H, W, 1], [H, W, 3] or [H, W, 4] as a picture. Raises UnsupportedMedia."""
    if array.dtype != np.uint8:
        hint = "(array * 255).round().astype('uint8') if its values run from 0 to 1" if array.dtype.kind == "f" else ""
        raise UnsupportedMedia(
            f"the array has dtype {array.dtype}; pictures are uint8 with values 0 to 255. Convert it first"
            f"{': ' + hint if hint else ''}.",
            param=param,
        )
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.ndim not in (2, 3) or channels not in (1, 3, 4):
        hint = " Move the channels last: array.transpose(1, 2, 0)." if array.ndim == 3 and array.shape[0] <= 4 else ""
        raise UnsupportedMedia(
            f"the array has shape {array.shape}; expected (height, width), or (height, width, channels) with 1, 3 or 4 "
            f"channels.{hint or ' Give one picture at a time, in that shape.'}",
            param=param,
        )
    if 0 in array.shape:
        raise UnsupportedMedia(
            f"the array has shape {array.shape}: no pixels. Send a picture that is not empty.", param=param
        )
    pixels = cast("NDArray[np.uint8]", array[:, :, 0] if array.ndim == 3 and channels == 1 else array)
    return to_rgb(Image.fromarray(np.ascontiguousarray(pixels)), limits, param=param)


def _open(data: bytes, param: str | None) -> Image.Image:
    """Find the decoder by the file's first bytes.

    Not Image.open: that refuses at a pixel count which is global to the process, before ours can be asked.
    """
    prefix = data[:16]
    for name in _FORMATS:
        if name not in Image.OPEN:
            continue
        factory, accept = Image.OPEN[name]
        if accept is not None and accept(prefix) is not True:
            continue
        try:
            return cast("Callable[[io.BytesIO, str], Image.Image]", factory)(io.BytesIO(data), "")
        except DECODER_ERRORS as error:
            _refuse_damaged(error, param)
    raise UnsupportedMedia(
        f"the picture is in no known format (it starts with {prefix!r}). Expected {_FORMAT_NAMES}. Convert it to PNG "
        f"or JPEG (HEIC, SVG and PDF are not read).",
        param=param,
    )


def _check_num_frames(image: Image.Image, data: bytes, limits: MediaLimits, param: str | None) -> None:
    try:
        has_more = has_more_frames(image, data, limits.max_image_frames)
    except DECODER_ERRORS as error:
        _refuse_damaged(error, param)
    if has_more:
        raise UnsupportedMedia(
            f"the picture has more than {limits.max_image_frames:,} frames or pages (max_image_frames). Send the page "
            "that matters, or the frames as a video.",
            param=param,
            code="media_limit_exceeded",
        )


def _upright(image: Image.Image) -> Image.Image:
    """A new picture, never the given one: callers paint on it."""
    try:
        return ImageOps.exif_transpose(image)
    except DECODER_ERRORS:
        # Cameras and editors write broken EXIF into sound pictures; every viewer shows them as they lie.
        return image.copy()


def _convert(image: Image.Image, param: str | None) -> Image.Image:
    if image.mode in ("F", "LAB"):
        raise UnsupportedMedia(
            f"the picture has {'32-bit floating-point' if image.mode == 'F' else 'CIELAB'} pixels, whose brightness "
            f"on a screen is not defined here. Convert it to 8-bit RGB.",
            param=param,
        )
    if image.mode == "I" or image.mode.startswith("I;16"):
        return _from_16_bits(image, param)
    if image.has_transparency_data:
        # The reference composites over white too (and older versions of it drop the alpha channel).
        rgba = image.convert("RGBA")
        background = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(background, rgba).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _from_16_bits(image: Image.Image, param: str | None) -> Image.Image:
    grey = np.asarray(image).astype(np.int64)
    low, high = int(grey.min()), int(grey.max())
    if low < 0 or high > 65535:
        raise UnsupportedMedia(
            f"the picture has integer pixels from {low} to {high}; 16 bits (0 to 65535) are read. Convert it to 8 "
            f"or 16 bits.",
            param=param,
        )
    return Image.fromarray(((grey + 128) // 257).astype(np.uint8)).convert("RGB")


def _refuse_damaged(error: BaseException, param: str | None) -> NoReturn:
    if isinstance(error, UnsupportedMedia):
        raise error
    if isinstance(error, Image.DecompressionBombError):
        # Some of Pillow's plugins ask this themselves while they read the header.
        raise UnsupportedMedia(
            f"the picture has more pixels than Pillow decodes in this process (Image.MAX_IMAGE_PIXELS: {error}). Scale "
            f"the picture down before sending it.",
            param=param,
            code="media_limit_exceeded",
        ) from error
    raise UnsupportedMedia(
        f"the picture cannot be decoded ({type(error).__name__}: {str(error)[:200]}). Expected a whole, undamaged "
        f"{_FORMAT_NAMES} file. Save it anew, or send it as PNG or JPEG.",
        param=param,
    ) from error
