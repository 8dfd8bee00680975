"""What makes transformers' model quick on a packed row; the numbers stay those of its own modules (tested).

Attention runs within sequences, so that a row costs the sum of its examples' squares, not the square of their sum; the
modality-isolated experts and the resampler take their tokens by index instead of by masks of the row's whole width. The
indices are made once a batch, on the host, so that a GPU never has to wait for a question about its tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers import AttentionInterface, Ernie4_5_VLMoeForConditionalGeneration
from transformers.models.ernie4_5_vl_moe.modeling_ernie4_5_vl_moe import (
    Ernie4_5_VLMoeMoeBlock,
    Ernie4_5_VLMoeMoeExperts,
    Ernie4_5_VLMoeVariableResolutionResamplerModel,
    Ernie4_5_VLMoeVisionAttention,
    apply_rotary_pos_emb_vision,
)

from tusi.train.device import moved
from tusi.train.experts import GroupedExperts
from tusi.train.flash_attention import Segments, attend

ATTENTION = "tusi_packed"


def use_packed_rows(model: Ernie4_5_VLMoeForConditionalGeneration) -> None:
    """Let the model take packed rows: [1, T] tokens of several examples, with their borders in `segments`.

    Parameters, their names and the configuration that is exported stay as they are.
    """
    AttentionInterface.register(ATTENTION, packed_attention)
    model.model.language_model.config._attn_implementation = ATTENTION
    ours: dict[type[torch.nn.Module], type[torch.nn.Module]] = {
        Ernie4_5_VLMoeMoeBlock: IndexedMoeBlock,
        Ernie4_5_VLMoeMoeExperts: GroupedExperts,
        Ernie4_5_VLMoeVariableResolutionResamplerModel: IndexedResampler,
        Ernie4_5_VLMoeVisionAttention: PackedVisionAttention,
    }
    for module in model.modules():
        module.__class__ = ours.get(type(module), type(module))


@dataclass(frozen=True, slots=True)
class ExpertSplit:
    """Which of a row's T tokens go to which experts. order_T: text first, then media; inverse_T undoes it."""

    order_T: torch.Tensor
    inverse_T: torch.Tensor
    num_text: int

    @classmethod
    def of(cls, moe_types_T: torch.Tensor, device: torch.device) -> ExpertSplit:
        """From the token types of a row, 0 where text stands."""
        is_media_T = moe_types_T.reshape(-1).cpu().bool()
        order_T = torch.argsort(is_media_T, stable=True)
        num_text = len(order_T) - int(is_media_T.sum())
        return cls(moved(order_T, device), moved(torch.argsort(order_T), device), num_text)


def packed_attention(
    module: torch.nn.Module,
    query_1NTD: torch.Tensor,
    key_1MTD: torch.Tensor,
    value_1MTD: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float,
    segments: Segments | None = None,
    **_kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each sequence of a row (all of the row, if it has no borders): [1, T, N, D]."""
    assert attention_mask is None, "a packed row has no padding to mask"
    segments = segments or Segments((query_1NTD.shape[2],))
    query, key, value = (tensor[0].transpose(0, 1) for tensor in (query_1NTD, key_1MTD, value_1MTD))
    return attend(query, key, value, segments, is_causal=True, scale=scaling)[None], None


class PackedVisionAttention(Ernie4_5_VLMoeVisionAttention):
    """The same attention for all pictures of a row at once."""

    def forward(  # type: ignore[override]  # transformers' takes a maximum length that nothing here needs
        self,
        hidden_states: torch.Tensor,
        cu_seqlens: Segments | torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        **_kwargs: Any,
    ) -> torch.Tensor:
        """[P, D] patches of all pictures; each sees those of its own picture (of its own frame, in a clip)."""
        qkv_3PND = self.qkv(hidden_states).unflatten(-1, (3, self.num_heads, -1)).transpose(0, 1)
        query_PND, key_PND = apply_rotary_pos_emb_vision(qkv_3PND[0], qkv_3PND[1], *position_embeddings)
        segments = cu_seqlens if isinstance(cu_seqlens, Segments) else Segments.between(cu_seqlens)
        out_PND = attend(query_PND, key_PND, qkv_3PND[2], segments, is_causal=False, scale=self.scaling)
        projected: torch.Tensor = self.proj(out_PND.flatten(1))
        return projected


class IndexedResampler(Ernie4_5_VLMoeVariableResolutionResamplerModel):
    """The same pairs of frames, by two indices [C] made on the host. A picture is paired with itself."""

    def _temporal_slicing(
        self, hidden_states: torch.Tensor, grid_thw: torch.Tensor | tuple[torch.Tensor, torch.Tensor]
    ) -> torch.Tensor:
        if isinstance(grid_thw, torch.Tensor):
            paired: torch.Tensor = super()._temporal_slicing(hidden_states, grid_thw)  # type: ignore[no-untyped-call]
            return paired
        return torch.cat([hidden_states.index_select(0, index_C) for index_C in grid_thw], dim=-1)


class IndexedMoeBlock(Ernie4_5_VLMoeMoeBlock):
    """The same experts for the same tokens. Returns no router logits: nothing reads them in training."""

    def forward(  # type: ignore[override]  # transformers annotates four values and returns two
        self, hidden_states: torch.Tensor, moe_mm_token_type_ids: ExpertSplit | torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Route text tokens to the text experts, media tokens to the vision experts; add the shared ones."""
        states_TD = hidden_states.reshape(-1, hidden_states.shape[-1])
        split = moe_mm_token_type_ids
        if isinstance(split, torch.Tensor):
            split = ExpertSplit.of(split, states_TD.device)
        if split is None or split.num_text == len(states_TD):
            routed_TD = self.text_moe(states_TD)[0].view_as(states_TD)
        else:
            text, media = states_TD.index_select(0, split.order_T).tensor_split([split.num_text])
            outputs = [self.text_moe(text)[0].view_as(text)] if split.num_text else []
            outputs.append(self.vision_moe(media)[0].view_as(media))
            routed_TD = torch.cat(outputs).index_select(0, split.inverse_T)
        output = routed_TD.view_as(hidden_states)
        if self.shared_experts is not None:
            output = output + self.shared_experts(hidden_states)
        return output, hidden_states.new_empty(0)
