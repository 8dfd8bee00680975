"""A picture to its first token, and where the time goes: decoding, vision tower, resampler, prefill."""

from __future__ import annotations

import io
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from tusi.bench.ceilings import Beside, Peaks
from tusi.bench.samples import Samples
from tusi.bench.text import run_until_first_token
from tusi.bench.watched import WatchedModel
from tusi.bench.work import prefill_macs, vision_macs
from tusi.chat.messages import ImagePart
from tusi.chat.prompt import MediaSegment, TextSegment
from tusi.engine.core import EngineCore
from tusi.engine.request import MultiModalFeature, PlaceholderRange, Request
from tusi.engine.sampling_params import SamplingParams
from tusi.processing.processor import Processor
from tusi.processing.types import ProcessedPrompt

PARTS = ("decode", "vision tower", "resampler", "prefill")
QUESTION = "What is in this picture?"


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureResult:
    """Seconds from a JPEG file's bytes to the first token, in all and by PARTS.

    vision_mfu, prefill_mfu: shares of the peak of the units that those parts use.
    """

    width: int
    height: int
    patches: int
    tokens: int
    seconds: Samples
    parts: Mapping[str, Samples]
    bandwidth: Samples
    vision_mfu: Samples | None
    prefill_mfu: Samples | None

    def as_json(self) -> dict[str, Any]:
        return {
            "width": self.width,
            "height": self.height,
            "patches": self.patches,
            "prompt_tokens": self.tokens,
            "time_to_first_token_seconds": self.seconds.as_json(),
            "parts_seconds": {name: part.as_json() for name, part in self.parts.items()},
            "bandwidth_gb_per_second": self.bandwidth.as_json(),
            "vision_mfu": self.vision_mfu.as_json() if self.vision_mfu else None,
            "prefill_mfu": self.prefill_mfu.as_json() if self.prefill_mfu else None,
        }


@dataclass(slots=True)
class PictureBench:
    """Measures one engine over one watched model."""

    core: EngineCore
    model: WatchedModel
    processor: Processor
    peaks: Peaks
    rounds: int
    _count: int = 0

    def first_token(self, width: int, height: int) -> PictureResult:
        """A question about a JPEG of this size, `rounds` times, each time another picture (nothing may be reused)."""
        beside = Beside()
        rows: list[list[float]] = []
        for number in range(self.rounds):
            data = jpeg_of(width, height, seed=number)
            with beside.run():
                rows.append(self._one(data))
        processed = self._process(jpeg_of(width, height, seed=0))
        parts = {name: Samples.of(column) for name, column in zip(PARTS, zip(*rows, strict=True), strict=True)}
        patches, vision_tokens = len(processed.media[0].pixel_values), int((processed.moe_mm_token_type_ids != 0).sum())
        tokens = len(processed.input_ids)
        return PictureResult(
            width=width,
            height=height,
            patches=patches,
            tokens=tokens,
            seconds=Samples.of([sum(row) for row in rows]),
            parts=parts,
            bandwidth=Samples.of(beside.rates),
            vision_mfu=self._share(vision_macs(self.model.inner, patches), parts["vision tower"]),
            prefill_mfu=self._share(
                prefill_macs(self.model.inner, tokens - vision_tokens, vision_tokens), parts["prefill"]
            ),
        )

    def _one(self, data: bytes) -> list[float]:
        self.model.vision_seconds = self.model.resampler_seconds = 0.0
        begin = time.perf_counter()
        request = self._request(self._process(data))
        decoded = time.perf_counter()
        self.core.add_request(request)
        run_until_first_token(self.core)
        engine = time.perf_counter() - decoded
        vision, resampler = self.model.vision_seconds, self.model.resampler_seconds
        return [decoded - begin, vision, resampler, engine - vision - resampler]

    def _process(self, data: bytes) -> ProcessedPrompt:
        return self.processor.process([MediaSegment(ImagePart(data)), TextSegment(QUESTION)])

    def _request(self, processed: ProcessedPrompt) -> Request:
        self._count += 1
        return Request(
            request_id=f"picture-{self._count}",
            prompt_token_ids=processed.input_ids,
            sampling_params=SamplingParams(temperature=0.0, max_tokens=1, ignore_eos=True),
            mm_features=tuple(
                MultiModalFeature(
                    mm_hash=item.mm_hash,
                    modality=item.modality,
                    position=PlaceholderRange(item.offset, item.length),
                    data=item,
                )
                for item in processed.media
            ),
            position_ids=processed.position_ids,
            token_types=processed.moe_mm_token_type_ids,
            mrope_position_delta=processed.mrope_position_delta,
        )

    def _share(self, macs: Mapping[Any, float], seconds: Samples) -> Samples | None:
        floor = self.peaks.seconds(macs)
        return None if floor is None else Samples.of([floor / s for s in seconds.values])


def jpeg_of(width: int, height: int, *, seed: int) -> bytes:
    """A file such as a camera writes: smooth colours with some detail, so that decoding it costs what a photo costs."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (max(height // 16, 1), max(width // 16, 1), 3), np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), np.int16)
    noisy = np.clip(smooth + rng.integers(-6, 7, smooth.shape, np.int16), 0, 255).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(noisy).save(out, "JPEG", quality=90)
    return out.getvalue()
