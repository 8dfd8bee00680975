"""Opens a video container and finds out when its frames are shown, without decoding any.

A binary file and limits go in; an `OpenVideo` or a `VideoIndex` comes out. Nothing that the container claims about its
duration or frame count is believed: packets are counted, and `video_claims` looks before FFmpeg may believe it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import BinaryIO, Final, NoReturn

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Disposition
from av.video.stream import VideoStream

from tusi.core.errors import UnsupportedMedia
from tusi.processing.frame_sampling import FrameTimes
from tusi.processing.limits import MediaLimits, check_limit
from tusi.processing.video_claims import check_claims

# Closed on purpose: playlists (HLS, DASH, concat) make FFmpeg open other files and URLs.
_FORMATS: Final = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,gif"  # names of FFmpeg's demuxers
)
_FORMAT_NAMES: Final = "MP4, MOV, WebM, MKV, AVI, MPEG, FLV, WMV, OGG or GIF"
VIDEO_ERRORS: Final = (FFmpegError, OSError, ValueError, EOFError, OverflowError, MemoryError, LookupError)


@dataclass(frozen=True, slots=True)
class VideoIndex:
    """The frames of a video in the order in which they are shown.

    pts: presentation time stamps, rising, in the stream's time base. keyframes: indices of frames that decoding can
    start at. exact: False if packets lack time stamps, so that decoded frames can only be told apart by counting.
    """

    pts: tuple[int, ...]
    keyframes: tuple[int, ...]
    times: FrameTimes
    exact: bool


@contextmanager
def open_video(file: BinaryIO, limits: MediaLimits, param: str | None) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a container from its first byte and choose its video stream. Raises UnsupportedMedia."""
    file.seek(0)
    try:
        container = av.open(
            file,
            mode="r",
            options={"format_whitelist": _FORMATS, "protocol_whitelist": "none"},
            metadata_errors="replace",
        )
    except VIDEO_ERRORS as error:
        refuse_damaged(error, param)
    with container:
        yield container, _video_stream(container, limits, param)


def index_video(file: BinaryIO, limits: MediaLimits, *, param: str | None = None) -> VideoIndex:
    """Read all packets of the video and list its frames. Raises UnsupportedMedia."""
    check_claims(file, _FORMATS, limits, param=param)
    with open_video(file, limits, param) as (container, stream):
        if container.duration:
            _check_seconds(container.duration / av.time_base, limits, param)
        time_base = stream.time_base or Fraction(1, 1000)
        shown: dict[int, bool] = {}
        # AVI stores no presentation times: with reordered frames FFmpeg's are guesses that do not match the frames.
        exact = not (container.format.name == "avi" and stream.codec_context.has_b_frames)
        first: int | None = None
        try:
            for packet in container.demux(stream):
                time = packet.pts if packet.pts is not None else packet.dts
                if time is None or packet.is_discard:
                    continue
                exact = exact and packet.pts is not None
                first = time if first is None else min(first, time)
                _check_seconds(float((time - first) * time_base), limits, param)
                shown[time] = shown.get(time, False) or packet.is_keyframe
                check_limit(
                    len(shown), limits, "max_source_frames", what="frames in the video", advice=_SHORTER, param=param
                )
        except VIDEO_ERRORS as error:
            if not shown:
                refuse_damaged(error, param)
        if not shown:
            refuse_damaged(ValueError("it holds no video frames"), param)
        pts = sorted(shown)
        _check_seconds(float((pts[-1] - pts[0]) * time_base), limits, param)
        rate = stream.average_rate or stream.guessed_rate
    times_N = (np.array(pts, dtype=np.float64) - pts[0]) * float(time_base)
    return VideoIndex(
        pts=tuple(pts),
        keyframes=tuple(i for i, time in enumerate(pts) if shown[time]),
        times=FrameTimes.of(times_N, declared_rate=float(rate) if rate else None, resolution=float(time_base)),
        exact=exact,
    )


def check_frame_size(width: int, height: int, limits: MediaLimits, param: str | None) -> None:
    """Raise UnsupportedMedia if frames of this size may not be decoded."""
    check_limit(
        width * height,
        limits,
        "max_frame_pixels",
        what=f"pixels of a {width} x {height} video frame",
        advice="Scale the video down before sending it, or raise the limit.",
        param=param,
    )


def refuse_damaged(error: BaseException, param: str | None) -> NoReturn:
    """Turn what a decoder raised into UnsupportedMedia (which passes unchanged)."""
    if isinstance(error, UnsupportedMedia):
        raise error
    raise UnsupportedMedia(
        f"the video cannot be decoded ({type(error).__name__}: {str(error)[:200]}). Expected a whole, undamaged file: "
        f"{_FORMAT_NAMES}. Convert it to MP4 with H.264 and send that.",
        param=param,
    ) from error


_SHORTER = "Cut the video, or raise the limit."


def _check_seconds(seconds: float, limits: MediaLimits, param: str | None) -> None:
    check_limit(
        round(seconds, 2),
        limits,
        "max_video_seconds",
        what="length of the video in seconds",
        advice=_SHORTER,
        param=param,
    )


def _video_stream(container: InputContainer, limits: MediaLimits, param: str | None) -> VideoStream:
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams:
        kinds = sorted(str(s.type) for s in container.streams) or ["no"]
        raise UnsupportedMedia(
            f"the file has no video stream (it holds {', '.join(kinds)} streams). Expected a video with a picture "
            f"track. Audio is not understood by this model.",
            param=param,
        )
    stream = streams[0]
    if not hasattr(stream, "codec_context") or stream.codec_context is None:
        refuse_damaged(ValueError("its codec is not supported"), param)
    check_frame_size(stream.codec_context.width, stream.codec_context.height, limits, param)
    # The decoder itself refuses to allocate more, should a later header claim a larger frame.
    stream.codec_context.options = {"max_pixels": str(limits.max_frame_pixels)}
    return stream
