"""Logits of every token of a prompt in one pass, without an engine: for parity tests, scoring and training checks.

In: a model and a processed prompt. Out: logits. Knows nothing of scheduling; its cache lives as long as the call.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tusi.core.errors import RequestError
from tusi.models.attention_metadata import AttentionMetadata, LayerKVCache, empty_kv_cache
from tusi.models.config import Ernie4_5_VLMoeTextConfig
from tusi.models.model import Ernie4_5_VLMoeForConditionalGeneration
from tusi.models.moe import RoutingRecorder
from tusi.quant.weights import F32

_BLOCK_SIZE = 16


class Medium(Protocol):
    """What is read of a `processing.types.MediaItem`."""

    @property
    def pixel_values(self) -> F32: ...

    @property
    def grid_thw(self) -> tuple[int, int, int]: ...

    @property
    def offset(self) -> int: ...

    @property
    def length(self) -> int: ...


class Prompt(Protocol):
    """What is read of a `processing.types.ProcessedPrompt`; models do not import processing."""

    @property
    def input_ids(self) -> Sequence[int]: ...

    @property
    def moe_mm_token_type_ids(self) -> NDArray[np.int32]: ...

    @property
    def position_ids(self) -> NDArray[np.int32]: ...

    @property
    def media(self) -> Sequence[Medium]: ...


def full_sequence_hidden(
    model: Ernie4_5_VLMoeForConditionalGeneration, prompt: Prompt, *, routing: RoutingRecorder | None = None
) -> F32:
    """Hidden states [T, D] after the final norm. Raises RequestError where a medium and its placeholders disagree."""
    tokens = len(prompt.input_ids)
    return model.forward(
        media_embeds(model, prompt),
        prompt.position_ids,
        np.asarray(prompt.moe_mm_token_type_ids) != 0,
        one_request_metadata(tokens),
        new_kv_caches(model.config.text_config, tokens),
        routing=routing,
    )


def media_embeds(model: Ernie4_5_VLMoeForConditionalGeneration, prompt: Prompt) -> F32:
    """What the decoder gets [T, D]: embeddings, and features where media stand. Raises RequestError."""
    embeds_TD = model.embed(prompt.input_ids)
    for number, medium in enumerate(prompt.media):
        features_TD = model.get_media_features(medium.pixel_values, medium.grid_thw)
        if len(features_TD) != medium.length:
            raise RequestError(
                f"medium {number} has {medium.length} placeholder tokens and {len(features_TD)} features (grid "
                f"{medium.grid_thw}); both must agree. Build the prompt with tusi.processing.",
                param=f"media[{number}]",
            )
        embeds_TD[medium.offset : medium.offset + medium.length] = features_TD
    return embeds_TD


def full_sequence_logits(
    model: Ernie4_5_VLMoeForConditionalGeneration, prompt: Prompt, *, routing: RoutingRecorder | None = None
) -> F32:
    """Logits [T, V]: row i is the distribution of the token after token i."""
    return model.compute_logits(full_sequence_hidden(model, prompt, routing=routing))


def one_request_metadata(tokens: int) -> AttentionMetadata:
    """One request whose `tokens` lie in blocks 0, 1, 2, ... of the caches of `new_kv_caches`."""
    return AttentionMetadata(
        query_start_loc_R1=np.array([0, tokens], np.int32),
        seq_lens_R=np.array([tokens], np.int32),
        block_table_RB=np.arange(-(-tokens // _BLOCK_SIZE), dtype=np.int32)[None],
        slot_mapping_T=np.arange(tokens, dtype=np.int64),
    )


def new_kv_caches(config: Ernie4_5_VLMoeTextConfig, tokens: int) -> list[LayerKVCache]:
    """A float32 cache a layer with room for `tokens`."""
    shape = (-(-tokens // _BLOCK_SIZE), _BLOCK_SIZE, config.num_key_value_heads, config.head_dim)
    return [empty_kv_cache(*shape, "float32") for _ in range(config.num_hidden_layers)]
