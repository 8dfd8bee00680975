"""A model that is watched while the engine runs it: where the time of a picture goes, which experts a step touches."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tusi.models.attention_metadata import AttentionMetadata, LayerKVCache
from tusi.models.config import Ernie4_5_VLMoeConfig
from tusi.models.model import Ernie4_5_VLMoeForConditionalGeneration
from tusi.models.moe import RoutingRecorder
from tusi.quant.weights import F32


@dataclass(slots=True)
class WatchedModel:
    """Passes everything on to `inner`.

    vision_seconds, resampler_seconds: of all media since they were set to 0. counts_experts: note in experts_by_step,
    for each forward pass, how many distinct text experts each layer read; costs time, so not while timing.
    """

    inner: Ernie4_5_VLMoeForConditionalGeneration
    vision_seconds: float = 0.0
    resampler_seconds: float = 0.0
    counts_experts: bool = False
    experts_by_step: list[dict[int, int]] = field(default_factory=list)

    @property
    def config(self) -> Ernie4_5_VLMoeConfig:
        return self.inner.config

    def embed(self, input_ids_T: NDArray[np.int64]) -> F32:
        return self.inner.embed(input_ids_T)

    def get_media_features(self, pixel_values: F32, grid_thw: tuple[int, int, int]) -> F32:
        begin = time.perf_counter()
        hidden_PD = self.inner.vision_tower(pixel_values, grid_thw)
        middle = time.perf_counter()
        features_TD = self.inner.resampler_model(hidden_PD, grid_thw)
        self.vision_seconds += middle - begin
        self.resampler_seconds += time.perf_counter() - middle
        return features_TD

    def forward(
        self,
        inputs_embeds_TD: F32,
        position_ids_3T: NDArray[np.int32],
        vision_mask_T: NDArray[np.bool_],
        attn: AttentionMetadata,
        kv_caches: Sequence[LayerKVCache],
    ) -> F32:
        routing = RoutingRecorder() if self.counts_experts else None
        hidden_TD = self.inner.forward(
            inputs_embeds_TD, position_ids_3T, vision_mask_T, attn, kv_caches, routing=routing
        )
        if routing is not None:
            text_T = ~vision_mask_T
            self.experts_by_step.append(
                {layer: len(np.unique(routing.topk_ids(layer)[text_T])) for layer in routing.calls}
            )
        return hidden_TD

    def compute_logits(self, hidden_TD: F32) -> F32:
        return self.inner.compute_logits(hidden_TD)
