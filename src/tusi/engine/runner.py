"""Turns a SchedulerOutput into tensors, runs the model, returns logits. Owns the KV arrays and the media features.

`batch` packs the tokens of all scheduled requests one after another.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tusi.core.errors import EngineError
from tusi.engine.batch import InputBatch
from tusi.engine.config import EngineConfig
from tusi.engine.kv_cache import KVCacheShape, allocate_kv_caches, resolve_num_blocks
from tusi.engine.request import MultiModalFeature
from tusi.engine.scheduler import ScheduledRequest, SchedulerOutput
from tusi.models.attention_metadata import AttentionMetadata, LayerKVCache
from tusi.models.config import Ernie4_5_VLMoeConfig

F32 = NDArray[np.float32]


class RunnableModel(Protocol):
    """What the engine asks of a model; `models.model.Ernie4_5_VLMoeForConditionalGeneration` is one."""

    @property
    def config(self) -> Ernie4_5_VLMoeConfig:
        """Sizes of the model."""
        ...

    def embed(self, input_ids_T: NDArray[np.int64]) -> F32:
        """Embeddings [T, D], in an array of the caller's own."""
        ...

    def get_media_features(self, pixel_values: F32, grid_thw: tuple[int, int, int]) -> F32:
        """Features of one picture or video, a row [D] for each of its placeholder tokens."""
        ...

    def forward(
        self,
        inputs_embeds_TD: F32,
        position_ids_3T: NDArray[np.int32],
        vision_mask_T: NDArray[np.bool_],
        attn: AttentionMetadata,
        kv_caches: Sequence[LayerKVCache],
    ) -> F32:
        """Final hidden states [T, D]; stores the tokens' keys and values."""
        ...

    def compute_logits(self, hidden_TD: F32) -> F32:
        """Logits [T, V]."""
        ...


class MediaData(Protocol):
    """What MultiModalFeature.data must be for this runner; `processing.types.MediaItem` is one."""

    @property
    def pixel_values(self) -> F32: ...

    @property
    def grid_thw(self) -> tuple[int, int, int]: ...


class ModelRunner:
    """Runs steps. Raises EngineError if the model returns what does not fit."""

    def __init__(self, model: RunnableModel, config: EngineConfig) -> None:
        text = model.config.text_config
        shape = KVCacheShape(
            num_hidden_layers=text.num_hidden_layers,
            num_key_value_heads=text.num_key_value_heads,
            head_dim=text.head_dim,
        )
        self._model = model
        self._batch = InputBatch(config.block_size)
        self.vocab_size = text.vocab_size
        self.num_blocks = resolve_num_blocks(config, shape)
        self._kv_caches = allocate_kv_caches(config, shape, self.num_blocks)
        self._encoder_cache: dict[str, F32] = {}

    @property
    def num_encoder_cache_rows(self) -> int:
        """Feature rows in memory."""
        return sum(len(features) for features in self._encoder_cache.values())

    def execute(self, output: SchedulerOutput) -> F32:
        """Compute a step. Returns logits [R, V] of the scheduled requests that need them, in their order."""
        for mm_hash in output.free_encoder_mm_hashes:
            del self._encoder_cache[mm_hash]
        for feature in output.media_to_encode:
            self._encoder_cache[feature.mm_hash] = self._encode(feature)
        if not output.scheduled:
            return np.empty((0, self.vocab_size), np.float32)
        batch = self._batch.prepare(output.scheduled)
        embeds_TD = self._model.embed(batch.input_ids_T)
        self._insert_features(embeds_TD, output.scheduled)
        hidden_TD = self._model.forward(
            embeds_TD, batch.position_ids_3T, batch.vision_mask_T, batch.attn, self._kv_caches
        )
        if len(batch.logits_rows_R) == 0:
            return np.empty((0, self.vocab_size), np.float32)
        if len(batch.logits_rows_R) < len(hidden_TD):
            hidden_TD = hidden_TD[batch.logits_rows_R]
        return self._model.compute_logits(hidden_TD)

    def encode_media(self, data: MediaData) -> F32:
        """Features of a medium that belongs to no request, a row [D] for each placeholder; nothing is kept."""
        return self._model.get_media_features(data.pixel_values, data.grid_thw)

    def release(self) -> None:
        """Give back the memory of both caches; the runner is of no use afterwards."""
        self._kv_caches = ()
        self._encoder_cache.clear()

    def _encode(self, feature: MultiModalFeature) -> F32:
        data: MediaData = feature.data  # type: ignore[assignment]  # opaque to requests; checked by `admission`
        rows = self._model.get_media_features(data.pixel_values, data.grid_thw)
        if len(rows) != feature.position.length:
            raise EngineError(
                f"the vision tower made {len(rows)} rows of a medium with grid {data.grid_thw}, but the prompt has "
                f"{feature.position.length} placeholders for it; processor and model disagree on the merge size."
            )
        return rows

    def _insert_features(self, embeds_TD: F32, scheduled: Sequence[ScheduledRequest]) -> None:
        packed_start = 0
        for item in scheduled:
            for feature in item.request.mm_features:
                begin = max(feature.position.offset, item.start)
                end = min(feature.position.end, item.end)
                if begin < end:
                    rows = self._encoder_cache[feature.mm_hash]
                    to = packed_start - item.start
                    offset = feature.position.offset
                    embeds_TD[begin + to : end + to] = rows[begin - offset : end - offset]
            packed_start += item.num_scheduled_tokens
