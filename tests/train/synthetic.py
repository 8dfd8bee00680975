"""Batches made by hand: one row with a picture, one with a video, one of text, without template or processor."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tusi.models.config_io import load_config
from tusi.processing.types import MediaItem, ProcessedPrompt
from tusi.train.collate import Batch, TokenIds, collate
from tusi.train.encode import IGNORE, TrainExample

GRIDS = {"image": (1, 4, 4), "video": (4, 4, 2)}


class SyntheticSource:
    """Batch `index` is a pure function of the seed and the index; `period` batches repeat for ever."""

    def __init__(self, folder: Path, *, seed: int = 0, period: int = 1000) -> None:
        self._config = load_config(folder)
        self._seed = seed
        self._period = period
        self.ids = TokenIds(image=self._config.image_token_id, video=self._config.video_token_id)

    def batch(self, index: int) -> Batch:
        rng = np.random.default_rng([self._seed, index % self._period])
        return collate([self._example(rng, kind) for kind in ("image", "video", "text")], self.ids)

    def _example(self, rng: np.random.Generator, kind: str) -> TrainExample:
        text = rng.integers(300, 400, size=12)
        if kind == "text":
            return _example(text, [], np.zeros(12, np.int32), np.zeros(12, np.int32))
        grid = GRIDS[kind]
        length = self._config.num_media_tokens(grid)
        config = self._config
        start, end = (
            (config.image_start_token_id, config.image_end_token_id)
            if kind == "image"
            else (config.video_start_token_id, config.video_end_token_id)
        )
        ids = np.concatenate([[start], np.zeros(length, np.int64), [end], text])
        value = 1 if kind == "image" else 2
        mm = np.zeros(len(ids), np.int32)
        mm[1 : length + 1] = value
        moe = mm.copy()
        moe[[0, length + 1]] = value
        pixels = rng.standard_normal((int(np.prod(grid)), 588), np.float32)
        item = MediaItem(
            modality="image" if kind == "image" else "video",
            pixel_values=pixels,
            grid_thw=grid,
            mm_hash="",
            offset=1,
            length=length,
            original_size=(56, 56),
        )
        return _example(ids, [item], mm, moe)


def _example(ids: np.ndarray, media: list[MediaItem], mm: np.ndarray, moe: np.ndarray) -> TrainExample:
    labels = np.where(np.arange(len(ids)) >= len(ids) - 6, ids, IGNORE)
    prompt = ProcessedPrompt(
        input_ids=tuple(int(i) for i in ids),
        mm_token_type_ids=mm,
        moe_mm_token_type_ids=moe,
        position_ids=np.tile(np.arange(len(ids), dtype=np.int32), (3, 1)),
        mrope_position_delta=0,
        media=tuple(media),
    )
    return TrainExample(prompt=prompt, labels=labels.astype(np.int64))
