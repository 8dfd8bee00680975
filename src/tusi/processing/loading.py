"""Brings each medium of one prompt in once: decides what a source is, and looks in the memo and the cache first."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from threading import BoundedSemaphore
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from tusi.chat.messages import ImagePart, VideoPart
from tusi.processing.cache import MediaCache
from tusi.processing.config import ProcessorConfig
from tusi.processing.image import load_image
from tusi.processing.limits import MediaLimits
from tusi.processing.media import (
    ProcessedMedium,
    open_picture,
    process_frame_list,
    process_image,
    process_video_file,
)
from tusi.processing.options import ImageOptions, VideoOptions, image_options, video_options
from tusi.processing.sources import KeptFile, decode_base64, open_source

_HASH_CHUNK = 1 << 20
# A picture that the limits allow may take a gigabyte while it is decoded; a server has hundreds of requests at once.
_AT_ONCE = {"image": BoundedSemaphore(4), "video": BoundedSemaphore(2)}


@dataclass(kw_only=True)
class MediaLoader:
    """Loads the media of one prompt. request: its mm_processor_kwargs. cache: shared between prompts, or None."""

    config: ProcessorConfig
    limits: MediaLimits
    request: Mapping[str, Any]
    cache: MediaCache | None = None
    _memo: dict[Hashable, ProcessedMedium] = field(default_factory=dict)

    def load(self, part: ImagePart | VideoPart, param: str) -> ProcessedMedium:
        """Return the processed medium. Raises RequestError and UnsupportedMedia, with param."""
        options: ImageOptions | VideoOptions
        if isinstance(part, ImagePart):
            options = image_options(self.config.image, self.request, part.options, param=param)
        else:
            options = video_options(self.config.video, self.request, part.options, param=param)
        key = (type(part), _source_key(part.source), options)
        if key not in self._memo:
            self._memo[key] = self._load(part.source, options, param)
        return self._memo[key]

    def _load(self, source: object, options: ImageOptions | VideoOptions, param: str) -> ProcessedMedium:
        if isinstance(options, ImageOptions):
            if isinstance(source, Image.Image | np.ndarray):
                picture = open_picture(source, self.limits, param=param)
                return process_image(picture, options, self.config.image, self.limits, param=param)
            with open_source(source, "image", self.limits, param=param) as file:
                return self._through_cache(file, options, param)
        frames = _as_frames(source, self.limits, param)
        if frames is not None:
            return process_frame_list(frames, options, self.config.video, self.limits, param=param)
        with open_source(source, "video", self.limits, param=param) as file:
            return self._through_cache(file, options, param)

    def _through_cache(self, file: BinaryIO, options: ImageOptions | VideoOptions, param: str) -> ProcessedMedium:
        if self.cache is None:
            return self._process(file, options, param)
        key = (_digest(file), options, self.config)
        medium = self.cache.get(key)
        if medium is None:
            medium = self._process(file, options, param)
            self.cache.put(key, medium)
        return medium

    def _process(self, file: BinaryIO, options: ImageOptions | VideoOptions, param: str) -> ProcessedMedium:
        with _AT_ONCE["image" if isinstance(options, ImageOptions) else "video"]:
            return self._process_now(file, options, param)

    def _process_now(self, file: BinaryIO, options: ImageOptions | VideoOptions, param: str) -> ProcessedMedium:
        if isinstance(options, ImageOptions):
            picture = load_image(file.read(), self.limits, param=param)
            return process_image(picture, options, self.config.image, self.limits, param=param)
        return process_video_file(file, options, self.config.video, self.limits, param=param)


def _as_frames(source: object, limits: MediaLimits, param: str) -> Sequence[object] | None:
    """The pictures of a video that is given as such, or None if it is a video file."""
    if isinstance(source, list | tuple):
        return source
    if isinstance(source, np.ndarray):
        return list(source) if source.ndim == 4 else [source]
    if isinstance(source, Image.Image):
        return [source]
    if isinstance(source, str) and source[:30].lower().startswith("data:video/jpeg;base64,"):
        # vLLM's clients send frames so: one data URL, a JPEG after each comma.
        payloads = source.split(",")[1:]
        return [decode_base64(payload, "max_image_bytes", limits, param) for payload in payloads]
    return None


def _source_key(source: object) -> Hashable:
    """Equal only for sources that hold the same medium while the prompt's parts are alive."""
    if isinstance(source, str):
        return ("text", source)
    if isinstance(source, bytes | bytearray | memoryview):
        return ("bytes", hashlib.sha256(source).digest())
    if isinstance(source, list | tuple):
        return tuple(_source_key(frame) for frame in source)
    if isinstance(source, KeptFile):
        return source
    return ("object", id(source))


def _digest(file: BinaryIO) -> bytes:
    digest = hashlib.sha256()
    while chunk := file.read(_HASH_CHUNK):
        digest.update(chunk)
    file.seek(0, io.SEEK_SET)
    return digest.digest()
