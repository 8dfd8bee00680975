"""Turns a SchedulerOutput into tensors, runs the model, returns logits. Owns the KV arrays and the media features.

Packs the tokens of all scheduled requests one after another. Keeps nothing else of a request from step to step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tusi.core.errors import EngineError
from tusi.engine.config import EngineConfig
from tusi.engine.kv_cache import KVCacheShape, allocate_kv_caches, resolve_num_blocks
from tusi.engine.request import MultiModalFeature, Request
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


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInput:
    """The packed tokens of one step."""

    input_ids_T: NDArray[np.int64]
    position_ids_3T: NDArray[np.int32]
    vision_mask_T: NDArray[np.bool_]
    attn: AttentionMetadata
    logits_rows_R: NDArray[np.int64]


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
        self._block_size = config.block_size
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
        batch = prepare_inputs(output.scheduled, self._block_size)
        embeds_TD = self._model.embed(batch.input_ids_T)
        self._insert_features(embeds_TD, output.scheduled)
        hidden_TD = self._model.forward(
            embeds_TD, batch.position_ids_3T, batch.vision_mask_T, batch.attn, self._kv_caches
        )
        if len(batch.logits_rows_R) == 0:
            return np.empty((0, self.vocab_size), np.float32)
        return self._model.compute_logits(hidden_TD[batch.logits_rows_R])

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


def prepare_inputs(scheduled: Sequence[ScheduledRequest], block_size: int) -> ModelInput:
    """Pack the scheduled tokens of all requests: ids, positions, vision mask, and where keys and values lie."""
    lengths_R = np.array([s.num_scheduled_tokens for s in scheduled], np.int64)
    query_start_loc_R1 = np.concatenate([[0], np.cumsum(lengths_R)]).astype(np.int32)
    block_table_RB = np.zeros((len(scheduled), max(len(s.block_ids) for s in scheduled)), np.int32)
    slots = []
    for row, item in zip(block_table_RB, scheduled, strict=True):
        row[: len(item.block_ids)] = item.block_ids
        index_T = np.arange(item.start, item.end)
        slots.append(row[index_T // block_size].astype(np.int64) * block_size + index_T % block_size)
    return ModelInput(
        input_ids_T=np.concatenate([np.array(s.request.token_ids(s.start, s.end), np.int64) for s in scheduled]),
        position_ids_3T=np.concatenate([_positions(s.request, s.start, s.end) for s in scheduled], axis=1),
        vision_mask_T=np.concatenate([_vision_mask(s.request, s.start, s.end) for s in scheduled]),
        attn=AttentionMetadata(
            query_start_loc_R1=query_start_loc_R1,
            seq_lens_R=np.array([s.end for s in scheduled], np.int32),
            block_table_RB=block_table_RB,
            slot_mapping_T=np.concatenate(slots),
        ),
        logits_rows_R=np.array(
            [end - 1 for s, end in zip(scheduled, query_start_loc_R1[1:], strict=True) if s.needs_logits], np.int64
        ),
    )


def _positions(request: Request, start: int, end: int) -> NDArray[np.int32]:
    """[3, end - start]: the processor's for the prompt, index + mrope_position_delta on all axes after it."""
    num_prompt = request.num_prompt_tokens
    generated = np.arange(max(start, num_prompt), max(end, num_prompt), dtype=np.int32)
    generated_3T = np.tile(generated + np.int32(request.mrope_position_delta), (3, 1))
    if request.position_ids is None:
        prompt_3T = np.tile(np.arange(min(start, num_prompt), min(end, num_prompt), dtype=np.int32), (3, 1))
    else:
        prompt_3T = np.asarray(request.position_ids, np.int32)[:, start:end]
    return np.concatenate([prompt_3T, generated_3T], axis=1)


def _vision_mask(request: Request, start: int, end: int) -> NDArray[np.bool_]:
    """True where a prompt token goes to the vision experts; generated tokens are always text."""
    mask_T = np.zeros(end - start, np.bool_)
    prompt_part = np.frombuffer(request.token_flags[start:end], np.uint8)
    mask_T[: len(prompt_part)] = prompt_part != 0
    return mask_T
