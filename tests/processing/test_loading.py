"""Each medium of a prompt is brought in once; across prompts, once while the cache keeps it."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.fixtures.videos import make_video, numbered_frame
from tusi.chat.messages import ImagePart, VideoPart
from tusi.core.errors import RequestError, UnsupportedMedia
from tusi.processing import loading
from tusi.processing.cache import MediaCache
from tusi.processing.config import ProcessorConfig, VideoConfig
from tusi.processing.limits import MediaLimits
from tusi.processing.loading import MediaLoader
from tusi.processing.sources import KeptFile

CONFIG = ProcessorConfig(video=VideoConfig(min_pixels=784, max_pixels=8 * 784))
PIXELS = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)


def encoded(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


PNG = encoded(PIXELS)


def loader(cache: MediaCache | None = None, **request: Any) -> MediaLoader:
    return MediaLoader(config=CONFIG, limits=MediaLimits(), request=request, cache=cache)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of the encoded pictures that were decoded."""
    sizes: list[int] = []
    real = loading.load_image

    def load_image(data: bytes, *args: Any, **kwargs: Any) -> Image.Image:
        sizes.append(len(data))
        return real(data, *args, **kwargs)

    monkeypatch.setattr(loading, "load_image", load_image)
    return sizes


def test_an_upload_is_decoded_once_a_prompt(decoded: list[int], tmp_path: Path) -> None:
    path = tmp_path / "file-1"
    path.write_bytes(PNG)
    one = loader()
    assert one.load(ImagePart(KeptFile(path)), "i") is one.load(ImagePart(KeptFile(path)), "i")
    assert len(decoded) == 1


def test_equal_sources_are_decoded_once_a_prompt(decoded: list[int]) -> None:
    one = loader()
    url = "data:image/png;base64," + base64.b64encode(PNG).decode()
    file = io.BytesIO(PNG)
    for source in (PNG, bytes(bytearray(PNG)), bytearray(PNG)):
        assert one.load(ImagePart(source), "images[0]") is one.load(ImagePart(PNG), "images[0]")
    assert len(decoded) == 1
    assert one.load(ImagePart(url), "i") is one.load(ImagePart(url), "i")
    # A file object can be read only once, but may stand in a prompt twice.
    assert one.load(ImagePart(file), "i") is one.load(ImagePart(file), "i")
    assert len(decoded) == 3


def test_other_options_are_another_medium(decoded: list[int]) -> None:
    one = loader()
    large = one.load(ImagePart(PNG), "i")
    small = one.load(ImagePart(PNG, {"max_pixels": 4 * 784}), "i")
    assert large.grid_thw != small.grid_thw
    assert len(decoded) == 2


def test_cache_across_prompts(decoded: list[int], tmp_path: Path) -> None:
    cache = MediaCache(max_bytes=10**7)
    first = loader(cache).load(ImagePart(PNG), "i")
    (tmp_path / "same.png").write_bytes(PNG)
    assert loader(cache).load(ImagePart(tmp_path / "same.png"), "i") is first
    assert len(decoded) == 1
    assert loader(cache, image_max_pixels=4 * 784).load(ImagePart(PNG), "i") is not first
    clip = make_video(4, container="mov", codec="mjpeg")
    video = loader(cache).load(VideoPart(clip), "v")
    assert loader(cache).load(VideoPart(clip), "v") is video
    assert loader(cache).load(VideoPart(clip, {"target_frames": 2}), "v") is not video
    assert (cache.hits, cache.misses) == (2, 4)


def test_a_changed_file_is_not_taken_from_the_cache(tmp_path: Path) -> None:
    cache = MediaCache(max_bytes=10**7)
    path = tmp_path / "a.png"
    path.write_bytes(PNG)
    first = loader(cache).load(ImagePart(path), "i")
    path.write_bytes(encoded(255 - PIXELS))
    assert loader(cache).load(ImagePart(path), "i").mm_hash != first.mm_hash


def test_every_shape_of_a_video() -> None:
    frames = [numbered_frame(i) for i in range(3)]
    jpegs = ",".join(base64.b64encode(encoded(f, "JPEG")).decode() for f in frames)
    options = {"timestamps": (0.0, 1.0, 7.0)}
    for source in (
        frames,
        tuple(frames),
        np.stack(frames),
        [Image.fromarray(f) for f in frames],
        [encoded(f) for f in frames],
        f"data:video/jpeg;base64,{jpegs}",
    ):
        medium = loader().load(VideoPart(source, options), "videos[0]")
        assert medium.timestamps == (0.0, 1.0, 7.0)
        assert medium.grid_thw[0] == 4
    for single in (frames[0], Image.fromarray(frames[0])):
        assert loader().load(VideoPart(single, {"fps": 1}), "v").grid_thw[0] == 2


def test_errors_carry_the_place() -> None:
    for part, kind in (
        (ImagePart(b"x"), UnsupportedMedia),
        (ImagePart(3), UnsupportedMedia),
        (VideoPart(b"x"), UnsupportedMedia),
        (VideoPart(PNG), UnsupportedMedia),
        (ImagePart(PNG, {"zoom": 2}), RequestError),
    ):
        with pytest.raises(kind) as caught:
            loader().load(part, "somewhere[4]")
        assert caught.value.param == "somewhere[4]"
