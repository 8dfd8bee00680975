"""The painted time: its text, and every pixel of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from tusi.core.errors import CheckpointError
from tusi.processing.text_fonts import ROBOTO
from tusi.processing.timestamps import TimestampPainter, _Typeface, format_timestamp


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "time: 00:00:00.00"),
        (67.5, "time: 00:01:07.50"),
        (3599.994, "time: 00:59:59.99"),
        (3661.125, "time: 01:01:01.12"),
        (360000, "time: 100:00:00.00"),
    ],
)
def test_text(seconds: float, text: str) -> None:
    assert format_timestamp(seconds) == text


@pytest.mark.parametrize("size", [(640, 360), (128, 500), (31, 47), (10, 10)])
def test_pixels_are_the_references(size: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    painted = Image.fromarray(noise)
    TimestampPainter().paint(painted, 67.5)
    expected = Image.fromarray(noise)
    # The reference's own lines, from transformers' Ernie4_5_VLMoeVideoProcessor.
    font_size = int(min(*expected.size) * 0.1)
    font = ImageFont.truetype(str(ROBOTO), font_size)
    ImageDraw.Draw(expected).text(
        (0, 0),
        "time: 00:01:07.50",
        font=font,
        fill=(0, 0, 0),
        stroke_width=int(font_size * 0.1),
        stroke_fill=(255, 255, 255),
    )
    np.testing.assert_array_equal(np.asarray(painted), np.asarray(expected))
    assert (np.asarray(painted) != noise).any()


def test_what_is_remembered_is_what_would_be_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_Typeface, "MAX_MASKS", 3)
    frames = [[Image.new("RGB", (200, 200), (9, 9, 9)) for _ in range(2)] for _ in range(4)]
    for seconds, (first, again) in enumerate(frames):
        TimestampPainter().paint(first, seconds)
        TimestampPainter().paint(again, seconds)
        assert first.tobytes() == again.tobytes()
    assert len({first.tobytes() for first, _ in frames}) == len(frames)


def test_tiny_frames_stay_as_they_are() -> None:
    frame = Image.new("RGB", (9, 200), (1, 2, 3))
    TimestampPainter().paint(frame, 1.0)
    assert frame.getcolors() == [(9 * 200, (1, 2, 3))]


def test_a_broken_font_is_the_checkpoints_fault(tmp_path: Path) -> None:
    (tmp_path / "font.ttf").write_bytes(b"no font")
    with pytest.raises(CheckpointError, match=r"font.ttf cannot be read.*built-in font"):
        TimestampPainter(tmp_path / "font.ttf").paint(Image.new("RGB", (100, 100)), 0)


def test_the_font_comes_with_its_licence() -> None:
    licence = (ROBOTO.parent / "LICENSE-Roboto.txt").read_text(encoding="utf-8")
    assert "Google Inc." in licence
    assert "Apache License" in licence
