"""Run as a script by `video_claims`: reads a video from standard input and prints how much memory that took, in bytes.

    python -P video_trial.py FORMATS MAX_BYTES < VIDEO

It imports nothing of the package, so that it starts quickly, and its memory is bounded: a header that claims more than
fits fails here and not in the process of the caller. FFmpeg passes over a list for which there is no room and reads on,
so what must be detected is that memory grew by more than MAX_BYTES; the bound therefore lies higher by the largest
piece that FFmpeg ever asks for at once. If the machine has no room, this process is the first to go.
"""

from __future__ import annotations

import contextlib
import resource
import sys
from pathlib import Path

import av
from av.error import FFmpegError

_LARGEST_PIECE = 2**31


def main(formats: str, max_bytes: int) -> None:
    """See the module."""
    adjustment = Path("/proc/self/oom_score_adj")
    if adjustment.exists():
        adjustment.write_text("1000", encoding="ascii")
    before, peak_before = _virtual("VmSize"), _peak()
    bound = before + max_bytes + _LARGEST_PIECE + 2**26
    resource.setrlimit(resource.RLIMIT_AS, (bound, bound))
    with contextlib.suppress(FFmpegError, OSError, ValueError, EOFError, OverflowError, MemoryError, LookupError):
        _read(formats)  # the caller will meet what goes wrong, and knows what to say about it
    print(max(_virtual("VmPeak") - before, _peak() - peak_before, 0))  # noqa: T201  # the result


def _read(formats: str) -> None:
    options = {"format_whitelist": formats, "protocol_whitelist": "none"}
    with av.open(sys.stdin.buffer, mode="r", options=options, metadata_errors="replace") as container:
        for _ in container.demux(container.streams.video):
            pass


def _virtual(name: str) -> int:
    """A figure of the process's address space; 0 where the system does not say."""
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="ascii", errors="replace").splitlines() if status.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), 0)


def _peak() -> int:
    """The most memory that the process has had, in bytes."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
