"""How many frames or pages a picture file has, without decoding any, and without counting further than asked.

Only the first one is ever shown to the model. A file with thousands is no picture that somebody means to show, and
whatever looks at all of them would be busy for long.
"""

from __future__ import annotations

from PIL import Image

_GIF_EXTENSION, _GIF_IMAGE = 0x21, 0x2C


def has_more_frames(image: Image.Image, data: bytes, limit: int) -> bool:
    """Whether an opened picture file has more than `limit` frames. May raise what Pillow's decoders raise."""
    if image.format == "GIF":
        return _gif_has_more(data, limit)
    if image.format == "TIFF":
        # n_frames would follow the chain of directories to its end, however long that is.
        try:
            image.seek(limit)
        except EOFError:
            return False
        finally:
            image.seek(0)
        return True
    return int(getattr(image, "n_frames", 1)) > limit  # known from the header


def _gif_has_more(data: bytes, limit: int) -> bool:
    """Walks the blocks; a file that breaks off has the frames that were seen until then."""
    count, at = 0, 13 + _table_size(data[10] if len(data) > 10 else 0)
    while at < len(data):
        if data[at] == _GIF_EXTENSION:
            at = _after_sub_blocks(data, at + 2)
        elif data[at] == _GIF_IMAGE:
            count += 1
            if count > limit:
                return True
            flags = data[at + 9] if at + 9 < len(data) else 0
            at = _after_sub_blocks(data, at + 11 + _table_size(flags))
        else:
            at += 1  # readers skip what they do not know
    return False


def _table_size(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _after_sub_blocks(data: bytes, at: int) -> int:
    while at < len(data) and data[at]:
        at += 1 + data[at]
    return at + 1
