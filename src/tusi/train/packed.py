"""What makes transformers' model quick on a packed row; the numbers stay those of its own modules (tested).

Attention runs sequence by sequence, so that a row costs the sum of its examples' squares, not the square of their sum;
the modality-isolated experts take their tokens by index instead of by masks of the row's whole width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional
from transformers import AttentionInterface, Ernie4_5_VLMoeForConditionalGeneration
from transformers.models.ernie4_5_vl_moe.modeling_ernie4_5_vl_moe import Ernie4_5_VLMoeMoeBlock

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


def packed_attention(
    module: torch.nn.Module,
    query_1HTD: torch.Tensor,
    key_1KTD: torch.Tensor,
    value_1KTD: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float,
    cu_seq_lens_q: torch.Tensor | None = None,
    **_kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each sequence of a row (all of the row, if it has no borders): [1, T, H, D]."""
    assert attention_mask is None, "a packed row has no padding to mask"
    groups = query_1HTD.shape[1] // key_1KTD.shape[1]
    states = [query_1HTD, key_1KTD.repeat_interleave(groups, dim=1), value_1KTD.repeat_interleave(groups, dim=1)]
    lengths = [query_1HTD.shape[2]] if cu_seq_lens_q is None else cu_seq_lens_q.diff().tolist()
    parts = zip(*(torch.split(tensor, lengths, dim=2) for tensor in states), strict=True)
    outputs = [functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling) for q, k, v in parts]
    return torch.cat(outputs, dim=2).transpose(1, 2), None


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
