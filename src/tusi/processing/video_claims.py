"""Refuses a video whose header claims frames that would fill the memory, before it is opened in this process.

FFmpeg's demuxer for MP4 and MOV believes how many samples a header claims and makes its list of them while it opens the
file: 3 KB that claim 90 million frames take five gigabytes. Packets are counted later (`video_index`), which is too
late for that. So claims are added up first, by a look for the boxes that make them wherever bytes look like one; a file
that claims no more than TRUSTED_SAMPLES is opened as it is. Any other is tried out: a process of its own, whose memory
is bounded, opens and reads it as `video_index` will, and says what that took. Honest files of that kind exist:
uncompressed sound counts each of its samples, and its list stays short.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import BinaryIO, Final

from tusi.core.env import child_environment
from tusi.core.errors import UnsupportedMedia
from tusi.processing.limits import MediaLimits, check_limit

TRUSTED_SAMPLES: Final = 2_000_000
"""As many samples take some 150 MiB at most."""

_COUNTS: Final = {b"stsz": 12, b"stz2": 12, b"trun": 8}
"""Boxes that claim samples, and where in them, from their name on, the number stands (32 bits)."""
_PACKED_HEADER: Final = b"cmov"
"""A header that is compressed: what it claims cannot be seen."""
_OVERLAP: Final = 16
_CHUNK: Final = 1 << 22
_TRIAL: Final = Path(__file__).parent / "video_trial.py"
_PATIENCE: Final = 60.0  # seconds
_FAULTY: Final = "Send a file whose header says what it holds; any program that converts videos writes one."


def check_claims(file: BinaryIO, formats: str, limits: MediaLimits, *, param: str | None = None) -> None:
    """Raise UnsupportedMedia if opening the video would take too much memory. formats: as `open_video` allows them."""
    claimed = _claimed_samples(file)
    if claimed is not None and claimed <= TRUSTED_SAMPLES:
        return
    needed = _try_out(file, formats, limits)
    if needed is None:
        shown = "samples without end" if claimed is None else f"{claimed:,} samples"
        raise UnsupportedMedia(
            f"the video's header claims {shown}, and an attempt to read it came to no end. {_FAULTY}",
            param=param,
            code="media_limit_exceeded",
        )
    check_limit(
        needed,
        limits,
        "max_video_index_bytes",
        what="bytes of memory that the list of all the samples takes which the video's header claims",
        advice=_FAULTY,
        param=param,
    )


def _claimed_samples(file: BinaryIO) -> int | None:
    """At least as many as the boxes of the file claim together; None if that cannot be seen."""
    file.seek(0)
    total, kept = 0, b""
    while chunk := file.read(_CHUNK):
        data = kept + chunk
        if _PACKED_HEADER in data:
            return None
        # A box at the very end is looked at together with what follows it.
        end = len(data) - _OVERLAP
        for name, offset in _COUNTS.items():
            at = data.find(name)
            while 0 <= at <= end:
                total += int(struct.unpack_from(">I", data, at + offset)[0])
                at = data.find(name, at + 1)
        kept = data[max(0, end + 1) :]
    return total


def _try_out(file: BinaryIO, formats: str, limits: MediaLimits) -> int | None:
    """Bytes of memory that opening and reading it takes; None if it did not come to an end."""
    with tempfile.TemporaryFile() as copy:
        file.seek(0)
        shutil.copyfileobj(file, copy, _CHUNK)
        copy.seek(0)
        try:
            done = subprocess.run(  # noqa: S603  # our own file
                [sys.executable, "-P", str(_TRIAL), formats, str(limits.max_video_index_bytes)],
                stdin=copy,
                capture_output=True,
                env=child_environment(PYTHONPATH=os.pathsep.join(path for path in sys.path if path)),
                timeout=_PATIENCE,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return None
    return int(done.stdout) if done.returncode == 0 and done.stdout.strip().isdigit() else None
