"""What makes transformers' model quick on a packed row; the numbers stay those of its own modules (tested).

Attention runs within sequences, so that a row costs the sum of its examples' squares, not the square of their sum;
the modality-isolated experts take their tokens by index instead of by masks of the row's whole width.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import AttentionInterface, Ernie4_5_VLMoeForConditionalGeneration
from transformers.models.ernie4_5_vl_moe.modeling_ernie4_5_vl_moe import (
    Ernie4_5_VLMoeMoeBlock,
    Ernie4_5_VLMoeVisionAttention,
    apply_rotary_pos_emb_vision,
)

from tusi.train.segment_attention import segment_attention

ATTENTION = "tusi_packed"


def use_packed_rows(model: Ernie4_5_VLMoeForConditionalGeneration) -> None:
    """Let the model take packed rows: [1, T] tokens of several examples, with their borders in `cu_seq_lens_q`.

    Parameters, their names and the configuration that is exported stay as they are.
    """
    AttentionInterface.register(ATTENTION, packed_attention)
    model.model.language_model.config._attn_implementation = ATTENTION
    for module in model.modules():
        if type(module) is Ernie4_5_VLMoeMoeBlock:
            module.__class__ = IndexedMoeBlock
        if type(module) is Ernie4_5_VLMoeVisionAttention:
            module.__class__ = PackedVisionAttention


def packed_attention(
    module: torch.nn.Module,
    query_1NTD: torch.Tensor,
    key_1MTD: torch.Tensor,
    value_1MTD: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float,
    cu_seq_lens_q: torch.Tensor | None = None,
    **_kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each sequence of a row (all of the row, if it has no borders): [1, T, N, D]."""
    assert attention_mask is None, "a packed row has no padding to mask"
    lengths = [query_1NTD.shape[2]] if cu_seq_lens_q is None else cu_seq_lens_q.diff().tolist()
    query, key, value = (tensor[0].transpose(0, 1) for tensor in (query_1NTD, key_1MTD, value_1MTD))
    return segment_attention(query, key, value, lengths, is_causal=True, scale=scaling)[None], None


class PackedVisionAttention(Ernie4_5_VLMoeVisionAttention):
    """The same attention for all pictures of a size at once."""

    def forward(  # type: ignore[override]  # transformers' takes a maximum length that nothing here needs
        self,
        hidden_states: torch.Tensor,
        cu_seqlens: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        **_kwargs: Any,
    ) -> torch.Tensor:
        """[P, D] patches of all pictures; each sees those of its own picture (of its own frame, in a clip)."""
        qkv_3PND = self.qkv(hidden_states).unflatten(-1, (3, self.num_heads, -1)).transpose(0, 1)
        query_PND, key_PND = apply_rotary_pos_emb_vision(qkv_3PND[0], qkv_3PND[1], *position_embeddings)
        lengths = cu_seqlens.diff().tolist()
        out_PND = segment_attention(query_PND, key_PND, qkv_3PND[2], lengths, is_causal=False, scale=self.scaling)
        projected: torch.Tensor = self.proj(out_PND.flatten(1))
        return projected


class IndexedMoeBlock(Ernie4_5_VLMoeMoeBlock):
    """The same experts for the same tokens. Returns no router logits: nothing reads them in training."""

    def forward(  # type: ignore[override]  # transformers annotates four values and returns two
        self, hidden_states: torch.Tensor, moe_mm_token_type_ids: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Route text tokens to the text experts, media tokens to the vision experts; add the shared ones."""
        states_TD = hidden_states.reshape(-1, hidden_states.shape[-1])
        if moe_mm_token_type_ids is None or not moe_mm_token_type_ids.any():
            routed_TD = self.text_moe(states_TD)[0].view_as(states_TD)
        else:
            is_media_T = moe_mm_token_type_ids.reshape(-1).bool()
            order_T = torch.argsort(is_media_T, stable=True)
            num_text = len(order_T) - int(is_media_T.sum())
            text, media = states_TD.index_select(0, order_T).tensor_split([num_text])
            outputs = [self.text_moe(text)[0].view_as(text)] if num_text else []
            outputs.append(self.vision_moe(media)[0].view_as(media))
            routed_TD = torch.cat(outputs).index_select(0, torch.argsort(order_T))
        output = routed_TD.view_as(hidden_states)
        if self.shared_experts is not None:
            output = output + self.shared_experts(hidden_states)
        return output, hidden_states.new_empty(0)
