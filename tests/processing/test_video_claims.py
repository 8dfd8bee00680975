"""Headers that lie about how much a video holds, and honest ones that look like it."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import av
import numpy as np
import pytest

from tests.fixtures.videos import make_video, numbered_frame
from tusi.core.errors import UnsupportedMedia
from tusi.processing import video_claims
from tusi.processing.limits import MediaLimits
from tusi.processing.video_index import VideoIndex, index_video

LIMITS = MediaLimits()
MANY = 88_000_000
"""About as many as FFmpeg makes room for at once."""


def index(data: bytes, limits: MediaLimits = LIMITS) -> VideoIndex:
    return index_video(io.BytesIO(data), limits, param="videos[0]")


def put(data: bytes, box: bytes, offset: int, *numbers: int) -> bytes:
    """The file with 32-bit numbers written into its first box of a name."""
    at = data.index(box) + offset
    packed = struct.pack(f">{len(numbers)}I", *numbers)
    return data[:at] + packed + data[at + len(packed) :]


def with_samples(count: int) -> bytes:
    """An MP4 of 30 frames whose header claims count samples of one byte each, all in one chunk."""
    return put(put(make_video(30), b"stsz", 8, 1, count), b"stsc", 16, count)


def in_fragments() -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4", options={"movflags": "frag_keyframe+empty_moov"}) as output:
        stream = output.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 128, 64, "yuv420p"
        for number in range(30):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(numbered_frame(number), format="rgb24")))
        output.mux(stream.encode(None))
    return file.getvalue()


def with_tracks(data: bytes, count: int) -> bytes:
    """The same file with its track repeated."""
    track, moov = data.index(b"trak") - 4, data.index(b"moov") - 4
    (length,) = struct.unpack_from(">I", data, track)
    (whole,) = struct.unpack_from(">I", data, moov)
    box = data[track : track + length]
    return put(data[:track] + box * count + data[track + length :], b"moov", -4, whole + length * (count - 1))


def with_plain_sound(seconds: int) -> bytes:
    """A MOV with uncompressed sound: its header claims 48,000 samples for each second."""
    file = io.BytesIO()
    with av.open(file, "w", format="mov") as output:
        video, sound = output.add_stream("mjpeg", rate=1), output.add_stream("pcm_s16le", rate=48_000)
        video.width, video.height, video.pix_fmt = 128, 64, "yuvj420p"
        for second in range(seconds):
            output.mux(video.encode(av.VideoFrame.from_ndarray(numbered_frame(second), format="rgb24")))
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 48_000), np.int16), format="s16", layout="mono")
            frame.sample_rate, frame.pts = 48_000, second * 48_000
            output.mux(sound.encode(frame))
        output.mux(video.encode(None))
        output.mux(sound.encode(None))
    return file.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        with_samples(MANY),
        put(put(in_fragments(), b"trun", 4, 1), b"trun", 8, MANY),  # no size, no time of its own for any sample
        with_tracks(with_samples(1_900_000), 6),
    ],
    ids=["a table", "a fragment", "many tracks"],
)
def test_a_small_file_that_claims_millions_of_frames_is_refused(data: bytes) -> None:
    assert len(data) < 20_000
    with pytest.raises(
        UnsupportedMedia, match=r"header claims: [\d,]+ is over the limit of .*max_video_index"
    ) as caught:
        index(data, MediaLimits(max_video_index_bytes=64 << 20))
    assert (caught.value.param, caught.value.code) == ("videos[0]", "media_limit_exceeded")


@pytest.mark.parametrize("count", [10_000, 1_000_000])
def test_what_costs_little_is_left_to_the_decoder(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_claims, "_try_out", lambda *_: pytest.fail("it was tried out"))
    data = put(make_video(30), b"stts", 12, count)  # a count that is not used: samples beyond the table
    assert len(index(data).pts) == 30
    file = io.BytesIO(with_samples(count))
    video_claims.check_claims(file, "mov", LIMITS)


def test_uncompressed_sound_is_no_lie() -> None:
    seconds = video_claims.TRUSTED_SAMPLES // 48_000 + 1
    assert len(index(with_plain_sound(seconds)).pts) == seconds


@pytest.mark.parametrize("container", ["mp4", "matroska", "avi"])
def test_what_is_tried_out_is_read_all_the_same(container: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_claims, "_claimed_samples", lambda _: None)
    assert len(index(make_video(30, container=container)).pts) == 30


def test_a_compressed_header_is_tried_out(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(video_claims, "_try_out", lambda *_: asked.append(1) or 0)
    video_claims.check_claims(io.BytesIO(bytes(100) + b"cmov" + bytes(100)), "mov", LIMITS)
    assert asked == [1]


def test_claims_are_found_wherever_the_file_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    data = make_video(30) + put(in_fragments(), b"trun", 8, 70_000)
    found = []
    for chunk in (5, 64, 1 << 20):
        monkeypatch.setattr(video_claims, "_CHUNK", chunk)
        found.append(video_claims._claimed_samples(io.BytesIO(data)))
    assert found[0] == found[1] == found[2]
    assert found[0] >= 70_030


@pytest.mark.parametrize("script", ["raise SystemExit(3)", "import os; os.abort()", "print('nothing')"])
def test_a_trial_that_comes_to_no_end_is_a_refusal(
    script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "trial.py").write_text(script)
    monkeypatch.setattr(video_claims, "_TRIAL", tmp_path / "trial.py")
    with pytest.raises(UnsupportedMedia, match="claims 88,000,000 samples, and an attempt to read it came to no end"):
        index(with_samples(MANY))


def test_a_trial_does_not_go_on_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_claims, "_PATIENCE", 0.01)
    with pytest.raises(UnsupportedMedia, match="no end"):
        index(with_samples(MANY))
