"""The decoder: pre-norm layers of attention and feed-forward over packed tokens.

In: embeddings, 3-D positions, the vision mask, where tokens lie in the cache. Out: hidden states after the final norm.
Knows nothing of requests, pictures or the vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tusi import kernels
from tusi.models.attention import TextAttention
from tusi.models.attention_metadata import AttentionMetadata, LayerKVCache
from tusi.models.config import Ernie4_5_VLMoeTextConfig
from tusi.models.moe import MLP, Bool, MoeBlock, RoutingRecorder
from tusi.models.parameters import Parameters
from tusi.models.rope import Positions, text_rope
from tusi.quant.weights import F32, IntegerWeight


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
    """stack: all layers for one native call, where their weights allow it; `layers` one by one give the same bits."""

    layers: tuple[DecoderLayer, ...]
    norm_D: F32
    config: Ernie4_5_VLMoeTextConfig
    stack: kernels.DecoderStack | None

    @classmethod
    def load(cls, params: Parameters, config: Ernie4_5_VLMoeTextConfig) -> TextModel:
        layers = tuple(
            DecoderLayer.load(params.under(f"layers.{n}."), config, n) for n in range(config.num_hidden_layers)
        )
        return cls(layers, params.exact("norm.weight"), config, native_stack(layers, config))

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
        if self.stack is not None:
            self._run_stack(self.stack, hidden_TD, cos_TP, sin_TP, vision_mask_T, attn, kv_caches, routing)
        else:
            for layer, kv_cache in zip(self.layers, kv_caches, strict=True):
                hidden_TD = layer(hidden_TD, cos_TP, sin_TP, vision_mask_T, attn, kv_cache, routing)
        return kernels.rms_norm(hidden_TD, self.norm_D, self.config.rms_norm_eps)

    def _run_stack(
        self,
        stack: kernels.DecoderStack,
        hidden_TD: F32,
        cos_TP: F32,
        sin_TP: F32,
        vision_mask_T: Bool,
        attn: AttentionMetadata,
        kv_caches: Sequence[LayerKVCache],
        routing: RoutingRecorder | None,
    ) -> None:
        weights_LTK = ids_LTK = None
        if routing is not None:
            shape = (len(self.layers), len(hidden_TD), stack.top_k)
            weights_LTK, ids_LTK = np.empty(shape, np.float32), np.empty(shape, np.int32)
        kernels.run_stack(
            stack,
            kv_caches,
            hidden_TD,
            cos_TP,
            sin_TP,
            attn.slot_mapping_T,
            attn.block_table_RB,
            attn.query_start_loc_R1,
            attn.seq_lens_R,
            stack.head_dim**-0.5,
            vision_mask_T=vision_mask_T.view(np.uint8) if vision_mask_T.any() else None,
            topk_weights_LTK=weights_LTK,
            topk_ids_LTK=ids_LTK,
        )
        if routing is not None and weights_LTK is not None and ids_LTK is not None:
            for layer, weights_TK, ids_TK in zip(self.layers, weights_LTK, ids_LTK, strict=True):
                if isinstance(layer.mlp, MoeBlock):
                    routing.record(layer.layer_idx, ids_TK, weights_TK)


def native_stack(layers: Sequence[DecoderLayer], config: Ernie4_5_VLMoeTextConfig) -> kernels.DecoderStack | None:
    """The layers for one native call; None if there are none, or one has no such call of its own, or packed matrices
    disagree on what they do with their input."""
    parts = [_stack_layer(layer) for layer in layers]
    whole = tuple(part for part in parts if part is not None)
    activations = {weight.activations for layer in layers for weight in _packed(layer)} or {"float32"}
    if not whole or len(whole) < len(parts) or len(activations) > 1:
        return None
    return kernels.DecoderStack(
        whole,
        config.num_attention_heads,
        config.num_key_value_heads,
        config.head_dim,
        config.moe_k,
        config.rms_norm_eps,
        config.moe_norm_min,
        min(activations),
    )


def _stack_layer(layer: DecoderLayer) -> kernels.StackLayer | None:
    mlp, attention = layer.mlp, layer.self_attn
    ends = layer.input_layernorm_D, attention.qkv_proj.matrix, attention.o_proj.matrix, layer.post_attention_layernorm_D
    if isinstance(mlp, MLP):
        return None if mlp.experts is None else kernels.StackLayer(*ends, None, None, mlp.experts)
    if not mlp.is_native:
        return None
    shared = mlp.shared_experts.experts if mlp.shared_experts is not None else None
    return kernels.StackLayer(*ends, mlp.text_moe.pool, mlp.vision_moe.pool, shared)


def _packed(layer: DecoderLayer) -> list[IntegerWeight]:
    """One matrix of each part that is packed: parts agree within themselves."""
    mlp = layer.mlp
    inner = mlp.gate_up_proj if isinstance(mlp, MLP) else mlp.text_moe.gate_up_proj.first
    weights = (layer.self_attn.qkv_proj, layer.self_attn.o_proj, inner)
    return [weight for weight in weights if isinstance(weight, IntegerWeight)]
