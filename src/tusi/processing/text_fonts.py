"""Finds a font that can write a text: the one that the package ships, one that was named, or a system's with Chinese.

The shipped Roboto has no Chinese, Japanese or Korean. What no font here has is never drawn as empty boxes.
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

from PIL import ImageFont

from tusi.core.errors import ConfigError

ROBOTO = Path(__file__).parent / "fonts" / "Roboto-Regular.ttf"
# Where systems keep a font with Chinese.
WIDE_FONTS = tuple(
    map(
        Path,
        (
            "/usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc",
            "/usr/share/fonts/google-noto-cjk/NotoSansCJK-Regular.ttc",
            "/usr/share/fonts/noto-cjk/NotoSansCJK-Regular.ttc",
            "/usr/share/fonts/truetype/wqy/wqy-microhei.ttc",
            "/System/Library/Fonts/PingFang.ttc",
            "C:/Windows/Fonts/msyh.ttc",
        ),
    )
)
GAP = "..."
"""Stands for characters that cannot be written."""

_NO_CHARACTER = "\U0010ffff"
_PROBE_SIZE = 16


def check_font(path: Path) -> None:
    """Raises ConfigError for a file that is not a font."""
    try:
        ImageFont.truetype(str(path), _PROBE_SIZE)
    except OSError as error:
        raise ConfigError(
            f"cannot read the font {path} ({error}); expected a TrueType or OpenType file. Name another."
        ) from error


def font_for(text: str, size: int, named: Path | None = None) -> ImageFont.FreeTypeFont | None:
    """The first font with every character of the text, at a size in pixels; None if there is none here."""
    for path in _candidates(named):
        if not _missing(path, text):
            return _font(path, size)
    return None


def writable(text: str, size: int, named: Path | None = None) -> tuple[str, ImageFont.FreeTypeFont, int]:
    """The text as it can be written, the font that has most of it, and how many characters were left out of it."""
    missing = {path: _missing(path, text) for path in _candidates(named)}
    best = min(missing, key=lambda path: sum(char in missing[path] for char in text))
    lacking = missing[best]
    if not lacking:
        return text, _font(best, size), 0
    shown = re.sub(f"[{re.escape(''.join(sorted(lacking)))}]+", GAP, text)
    return shown, _font(best, size), sum(char in lacking for char in text)


def _candidates(named: Path | None) -> list[Path]:
    """Roboto first, so that Latin text looks the same everywhere."""
    return [ROBOTO, *([] if named is None else [named]), *(path for path in WIDE_FONTS if path.exists())]


def _missing(path: Path, text: str) -> set[str]:
    return {char for char in set(text) if not char.isspace() and not _has_glyph(path, char)}


@lru_cache(maxsize=8192)
def _has_glyph(path: Path, char: str) -> bool:
    font = _font(path, _PROBE_SIZE)
    return bytes(font.getmask(char)) != bytes(font.getmask(_NO_CHARACTER))


@lru_cache(maxsize=64)
def _font(path: Path, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(path), size)
