"""The decoder: pre-norm layers of attention and feed-forward over packed tokens.

In: embeddings, 3-D positions, the vision mask, where tokens lie in the cache. Out: hidden states after the final norm.
Knows nothing of requests, pictures or the vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tusi import kernels
from tusi.models.attention import TextAttention
from tusi.models.attention_metadata import AttentionMetadata, LayerKVCache
from tusi.models.config import Ernie4_5_VLMoeTextConfig
from tusi.models.moe import MLP, Bool, MoeBlock, RoutingRecorder
from tusi.models.parameters import Parameters
from tusi.models.rope import Positions, text_rope
from tusi.quant.weights import F32


@dataclass(frozen=True, slots=True)
class DecoderLayer:
    layer_idx: int
    self_attn: TextAttention
    mlp: MLP | MoeBlock
    input_layernorm_D: F32
    post_attention_layernorm_D: F32
    eps: float

    @classmethod
    def load(cls, params: Parameters, config: Ernie4_5_VLMoeTextConfig, layer_idx: int) -> DecoderLayer:
        sparse = config.mlp_layer_types[layer_idx] == "sparse"
        mlp = params.under("mlp.")
        return cls(
            layer_idx=layer_idx,
            self_attn=TextAttention.load(params.under("self_attn."), config),
            mlp=MoeBlock.load(mlp, config) if sparse else MLP.load(mlp),
            input_layernorm_D=params.exact("input_layernorm.weight"),
            post_attention_layernorm_D=params.exact("post_attention_layernorm.weight"),
            eps=config.rms_norm_eps,
        )

    def __call__(
        self,
        hidden_TD: F32,
        cos_TP: F32,
        sin_TP: F32,
        vision_mask_T: Bool,
        attn: AttentionMetadata,
        kv_cache: LayerKVCache,
        routing: RoutingRecorder | None,
    ) -> F32:
        """The next layer's hidden states, in the same array."""
        eps = self.eps
        hidden_TD = self.self_attn.residual(hidden_TD, self.input_layernorm_D, eps, cos_TP, sin_TP, attn, kv_cache)
        if isinstance(self.mlp, MLP):
            return self.mlp.residual(hidden_TD, self.post_attention_layernorm_D, eps)
        hidden_TD, topk_weights_TK, topk_ids_TK = self.mlp.residual(
            hidden_TD, self.post_attention_layernorm_D, eps, vision_mask_T
        )
        if routing is not None:
            routing.record(self.layer_idx, topk_ids_TK, topk_weights_TK)
        return hidden_TD


@dataclass(frozen=True, slots=True)
class TextModel:
    layers: tuple[DecoderLayer, ...]
    norm_D: F32
    config: Ernie4_5_VLMoeTextConfig

    @classmethod
    def load(cls, params: Parameters, config: Ernie4_5_VLMoeTextConfig) -> TextModel:
        return cls(
            layers=tuple(
                DecoderLayer.load(params.under(f"layers.{n}."), config, n) for n in range(config.num_hidden_layers)
            ),
            norm_D=params.exact("norm.weight"),
            config=config,
        )

    def __call__(
        self,
        hidden_TD: F32,
        position_ids_3T: Positions,
        vision_mask_T: Bool,
        attn: AttentionMetadata,
        kv_caches: Sequence[LayerKVCache],
        routing: RoutingRecorder | None = None,
    ) -> F32:
        cos_TP, sin_TP = text_rope(position_ids_3T, self.config)
        hidden_TD = hidden_TD.copy()  # the layers add to it in place
        for layer, kv_cache in zip(self.layers, kv_caches, strict=True):
            hidden_TD = layer(hidden_TD, cos_TP, sin_TP, vision_mask_T, attn, kv_cache, routing)
        return kernels.rms_norm(hidden_TD, self.norm_D, self.config.rms_norm_eps)
