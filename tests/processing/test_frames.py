"""Pictures with thousands of frames or pages are refused, whatever the format, and those within the limit are not."""

from __future__ import annotations

import io
import struct

import pytest
from PIL import Image

from tusi.core.errors import UnsupportedMedia
from tusi.processing.frames import has_more_frames
from tusi.processing.image import load_image
from tusi.processing.limits import MediaLimits

KINDS = ("GIF", "WEBP", "PNG", "TIFF", "MPO")


def animated(kind: str, count: int) -> bytes:
    frames = [Image.new("RGB", (8, 8), (number * 50, 250 - number * 40, 7)) for number in range(count)]
    file = io.BytesIO()
    options = {"disposal": 2} if kind == "GIF" else {}
    frames[0].save(file, kind, save_all=True, append_images=frames[1:], **options)
    return file.getvalue()


def many(kind: str, count: int) -> bytes:
    """A GIF or TIFF of so many frames of one pixel, put together by hand: Pillow would take minutes."""
    if kind == "GIF":
        frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00"
        head = b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
        return head + frame * count + b"\x3b"
    tags = [(256, 1), (257, 1), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, 1), (279, 1)]
    entries = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    size = len(entries) + 4
    pages = (entries + struct.pack("<I", 10 + (n + 1) * size if n + 1 < count else 0) for n in range(count))
    return b"II*\0" + struct.pack("<I", 10) + b"\x80\0" + b"".join(pages)


@pytest.mark.parametrize("kind", KINDS)
def test_the_limit_is_exact(kind: str) -> None:
    data = animated(kind, 5)
    assert load_image(data, MediaLimits(max_image_frames=5)).size == (8, 8)
    with pytest.raises(UnsupportedMedia, match=r"more than 4 frames or pages \(max_image_frames\)") as caught:
        load_image(data, MediaLimits(max_image_frames=4), param="p")
    assert (caught.value.param, caught.value.code) == ("p", "media_limit_exceeded")


@pytest.mark.parametrize("kind", ["GIF", "TIFF"])
def test_ten_thousand_pages(kind: str) -> None:
    with pytest.raises(UnsupportedMedia, match="more than 1,000 frames or pages"):
        load_image(many(kind, 10_000), MediaLimits())
    assert load_image(many(kind, 10), MediaLimits()).size == (1, 1)


def test_gif_blocks_are_walked_to_the_end_of_the_file_only() -> None:
    data = animated("GIF", 3)
    image = Image.open(io.BytesIO(data))
    assert [has_more_frames(image, data[:end], 2) for end in (len(data), len(data) // 2, 20, 5, 0)] == [
        True, False, False, False, False,
    ]  # fmt: skip
    for end in range(len(data)):
        has_more_frames(image, data[:end] + b"\xff" * 40, 2)
