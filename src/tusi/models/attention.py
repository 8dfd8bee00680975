"""Grouped-query attention of the decoder over the paged cache.

In: hidden states of packed tokens, their rotary tables, where they lie in the cache. Out: the same with attention
added; this batch's keys and values are stored on the way. Knows nothing of requests.
"""

from __future__ import annotations

from dataclasses import dataclass

from tusi import kernels
from tusi.models.attention_metadata import AttentionMetadata, LayerKVCache
from tusi.models.config import Ernie4_5_VLMoeTextConfig
from tusi.models.parameters import Parameters
from tusi.quant.weights import F32, Weight


@dataclass(frozen=True, slots=True)
class TextAttention:
    """q, k and v are one matrix when loaded."""

    qkv_proj: Weight
    o_proj: Weight
    num_heads: int
    head_dim: int

    @classmethod
    def load(cls, params: Parameters, config: Ernie4_5_VLMoeTextConfig) -> TextAttention:
        return cls(
            qkv_proj=params.joined("q_proj.weight", "k_proj.weight", "v_proj.weight"),
            o_proj=params.weight("o_proj.weight"),
            num_heads=config.num_attention_heads,
            head_dim=config.head_dim,
        )

    def residual(
        self,
        hidden_TD: F32,
        norm_D: F32,
        eps: float,
        cos_TP: F32,
        sin_TP: F32,
        attn: AttentionMetadata,
        kv_cache: LayerKVCache,
    ) -> F32:
        """hidden + attention(rms_norm(hidden)), in place."""
        out_TNH = kernels.rotary_paged_attention(
            self.qkv_proj.normed_linear(hidden_TD, norm_D, eps),
            cos_TP,
            sin_TP,
            attn.slot_mapping_T,
            kv_cache.key_CMHS,
            kv_cache.value_CMSH,
            attn.block_table_RB,
            attn.query_start_loc_R1,
            attn.seq_lens_R,
            self.head_dim**-0.5,
            self.num_heads,
            key_scales_CMS=kv_cache.key_scales_CMS,
            value_scales_CMS=kv_cache.value_scales_CMS,
        )
        return self.o_proj.linear_add(out_TNH.reshape(len(hidden_TD), -1), hidden_TD)
