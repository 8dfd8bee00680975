"""One picture or one video from its source to what the vision tower reads: patch rows, grid, hash. Knows no prompts.

`processor` decides where a medium stands in a prompt; this module makes the medium itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import BinaryIO, NoReturn

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tusi.core.errors import UnsupportedMedia
from tusi.core.types import Modality
from tusi.processing.config import PixelConfig, VideoConfig
from tusi.processing.frame_sampling import FrameSampling, FrameTimes, sample_frames
from tusi.processing.image import array_to_image, load_image, read_size, to_rgb
from tusi.processing.limits import MediaLimits, check_limit
from tusi.processing.options import ImageOptions, VideoOptions
from tusi.processing.pixels import RGB_CHANNELS, normalise, patchify, resize_rgb
from tusi.processing.positions import num_placeholder_tokens
from tusi.processing.resize import smart_resize
from tusi.processing.sources import open_source
from tusi.processing.timestamps import TimestampPainter
from tusi.processing.video import read_frames
from tusi.processing.video_index import index_video


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessedMedium:
    """A medium that is ready for the vision tower; the fields are those of `types.MediaItem`."""

    modality: Modality
    pixel_values: NDArray[np.float32]
    grid_thw: tuple[int, int, int]
    mm_hash: str
    original_size: tuple[int, int]
    timestamps: tuple[float, ...] = ()


def open_picture(source: object, limits: MediaLimits, *, param: str | None = None) -> Image.Image:
    """Return the RGB picture behind a source of any kind (PIL image, array, path, URL, bytes, ...)."""
    if isinstance(source, Image.Image):
        return to_rgb(source, limits, param=param)
    if isinstance(source, np.ndarray):
        return array_to_image(source, limits, param=param)
    with open_source(source, "image", limits, param=param) as file:
        return load_image(file.read(), limits, param=param)


def read_picture_size(source: object, limits: MediaLimits, *, param: str | None = None) -> tuple[int, int]:
    """(width, height) of an encoded picture (path, URL, bytes, ...) before EXIF turns it; no pixel is decoded."""
    with open_source(source, "image", limits, param=param) as file:
        return read_size(file.read(), param=param)


def process_image(
    picture: Image.Image, options: ImageOptions, config: PixelConfig, limits: MediaLimits, *, param: str | None = None
) -> ProcessedMedium:
    """Resize, cut and normalise an RGB picture."""
    encoder = _Encoder("image", picture.size, 1, options, config, limits, param)
    encoder.add(picture)
    return encoder.finish(())


def process_video_file(
    file: BinaryIO, options: VideoOptions, config: VideoConfig, limits: MediaLimits, *, param: str | None = None
) -> ProcessedMedium:
    """Sample, paint, resize, cut and normalise an encoded video."""
    if options.timestamps is not None:
        _refuse(
            "timestamps are given for a video file, which has its own",
            "Leave timestamps out; or give the video as a list of pictures.",
            param,
        )
    index = index_video(file, limits, param=param)
    wanted = sample_frames(index.times, options.sampling)
    shown = (
        (float(index.times.times_N[i]), frame) for i, frame in read_frames(file, index, wanted, limits, param=param)
    )
    return _process_frames(shown, len(wanted), options, config, limits, param)


def process_frame_list(
    sources: Sequence[object],
    options: VideoOptions,
    config: VideoConfig,
    limits: MediaLimits,
    *,
    param: str | None = None,
) -> ProcessedMedium:
    """Make a video of pictures that somebody has already taken from it.

    Their times are options.timestamps, or one every 1/fps seconds. All are used, unless they are more than max_frames
    (or target_frames): then they are sampled evenly by count.
    """
    if not sources:
        _refuse("the video is an empty list of frames", "Give at least one picture.", param)
    check_limit(
        len(sources), limits, "max_listed_frames", what="frames in the list", advice="Send fewer frames.", param=param
    )
    times = _frame_times(len(sources), options, param)
    target = options.sampling.target_frames
    keep = min(target if target > 0 else options.sampling.max_frames, len(sources))
    # By count, whatever their times: uneven times are what the caller chose to show.
    even = FrameTimes(times_N=np.arange(len(sources), dtype=np.float64), duration=float(len(sources)), rate=1.0)
    chosen = sample_frames(even, _exactly(options, keep))
    shown = ((times[i], open_picture(sources[i], limits, param=f"{param or 'video'}[{i}]")) for i in chosen)
    return _process_frames(shown, len(chosen), options, config, limits, param)


def _process_frames(
    frames: Iterator[tuple[float, Image.Image]],
    count: int,
    options: VideoOptions,
    config: VideoConfig,
    limits: MediaLimits,
    param: str | None,
) -> ProcessedMedium:
    check_limit(
        count,
        limits,
        "max_video_frames",
        what="frames taken from the video",
        advice="Set a lower fps, max_frames or target_frames, or raise the limit.",
        param=param,
    )
    padded = count + count % config.temporal_patch_size
    painter = TimestampPainter(config.font)
    encoder: _Encoder | None = None
    times: list[float] = []
    for seconds, frame in frames:
        if encoder is None:
            encoder = _Encoder("video", frame.size, padded, options, config, limits, param)
        if config.draw_on_frames:
            painter.paint(frame, seconds)
        encoder.add(frame)
        times.append(seconds)
    assert encoder is not None
    assert len(times) == count
    encoder.repeat_last(padded - count)
    return encoder.finish(tuple(times))


class _Encoder:
    """Collects the frames of one medium as patch rows. The first frame's size decides the grid of all."""

    def __init__(
        self,
        modality: Modality,
        size: tuple[int, int],
        frames: int,
        options: ImageOptions | VideoOptions,
        config: PixelConfig,
        limits: MediaLimits,
        param: str | None,
    ) -> None:
        self._config, self._modality, self._size = config, modality, size
        width, height = size
        self._height, self._width = smart_resize(
            height,
            width,
            factor=config.factor,
            min_pixels=options.min_pixels,
            max_pixels=options.max_pixels,
            param=param,
        )
        self._grid = (frames, self._height // config.patch_size, self._width // config.patch_size)
        check_limit(
            num_placeholder_tokens(modality, self._grid, config.merge_size),
            limits,
            "max_placeholder_tokens",
            what=f"tokens that one {modality} takes",
            advice=f"Lower {modality}_max_pixels{' or max_frames' if modality == 'video' else ''}, or raise the limit.",
            param=param,
        )
        self._rows = self._grid[1] * self._grid[2]
        self._pixel_values = np.empty(
            (frames * self._rows, RGB_CHANNELS * config.patch_size * config.patch_size), dtype=np.float32
        )
        self._filled = 0
        # Bytes before normalisation say the same in a quarter of the space; the constants of normalisation join them.
        self._hash = hashlib.blake2b(digest_size=32)
        self._hash.update(
            repr((modality, self._grid, config.image_mean, config.image_std, config.rescale_factor)).encode()
        )

    def add(self, picture: Image.Image) -> None:
        pixels_HWC = resize_rgb(picture, self._height, self._width, self._config.resample)
        patches_PX = patchify(pixels_HWC, self._config.patch_size, self._config.merge_size)
        self._hash.update(patches_PX.data)
        normalise(patches_PX, self._config, self._pixel_values[self._filled : self._filled + self._rows])
        self._filled += self._rows

    def repeat_last(self, times: int) -> None:
        """The resampler reads frames in pairs."""
        for _ in range(times):
            last = self._pixel_values[self._filled - self._rows : self._filled]
            self._pixel_values[self._filled : self._filled + self._rows] = last
            self._filled += self._rows

    def finish(self, timestamps: tuple[float, ...]) -> ProcessedMedium:
        assert self._filled == len(self._pixel_values)
        self._pixel_values.flags.writeable = False
        return ProcessedMedium(
            modality=self._modality,
            pixel_values=self._pixel_values,
            grid_thw=self._grid,
            mm_hash=self._hash.hexdigest(),
            original_size=self._size,
            timestamps=timestamps,
        )


def _frame_times(count: int, options: VideoOptions, param: str | None) -> list[float]:
    times, fps = options.timestamps, options.frames_fps
    if times is not None and fps is not None and fps > 0:
        _refuse("both timestamps and fps are given for a list of frames", "Give one of them.", param)
    if times is not None:
        if len(times) != count:
            _refuse(f"{len(times)} timestamps are given for {count} frames", "Give one for each frame.", param)
        return list(times)
    if fps is None or fps <= 0:
        _refuse(
            "a list of frames comes without their times, which are painted onto the frames for the model to read",
            "Give timestamps (seconds of each frame), or fps (the rate at which they were taken).",
            param,
        )
    return [i / fps for i in range(count)]


def _exactly(options: VideoOptions, count: int) -> FrameSampling:
    return replace(options.sampling, target_frames=count)


def _refuse(happened: str, advice: str, param: str | None) -> NoReturn:
    raise UnsupportedMedia(f"{happened}. {advice}", param=param)
