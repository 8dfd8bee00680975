"""transformers' experts on a GPU: each pool is three grouped products, whatever the experts' numbers of tokens.

transformers groups them too, but in the weights' own type, which is float32 in training: its products ignore autocast
and then run expert by expert, with a question to the GPU before each.
"""

from __future__ import annotations

import torch
from torch.nn import functional
from transformers.models.ernie4_5_vl_moe.modeling_ernie4_5_vl_moe import Ernie4_5_VLMoeMoeExperts


class GroupedExperts(Ernie4_5_VLMoeMoeExperts):
    """The same experts; on the CPU, and in float32, transformers' own code."""

    def forward(
        self, hidden_states: torch.Tensor, top_k_index: torch.Tensor, top_k_weights: torch.Tensor
    ) -> torch.Tensor:
        """[T, D] states; [T, K] experts of each and their weights."""
        if not (hidden_states.is_cuda and torch.is_autocast_enabled("cuda")):
            plain: torch.Tensor = super().forward(hidden_states, top_k_index, top_k_weights)
            return plain
        dtype = torch.get_autocast_dtype("cuda")
        chosen_S = top_k_index.reshape(-1)
        order_S = torch.argsort(chosen_S, stable=True)
        # Not bincount: it asks the GPU for the largest value.
        counts_E = (chosen_S[:, None] == torch.arange(self.num_experts, device=chosen_S.device)).sum(dim=0)
        ends_E = counts_E.cumsum(0).to(torch.int32)
        states_SD = hidden_states.to(dtype).index_select(0, order_S // top_k_index.shape[1])
        gate_SI, up_SI = _grouped(states_SD, self.gate_up_proj.to(dtype), ends_E).chunk(2, dim=-1)
        out_SD = _grouped(self.act_fn(gate_SI) * up_SI, self.down_proj.to(dtype), ends_E)
        back_S = torch.argsort(order_S)
        out_TKD = out_SD.index_select(0, back_S).view(*top_k_index.shape, -1)
        mixed_TD = (out_TKD * top_k_weights[..., None]).sum(dim=1)
        return mixed_TD.to(hidden_states.dtype)


def _grouped(states_SD: torch.Tensor, weights_EOD: torch.Tensor, ends_E: torch.Tensor) -> torch.Tensor:
    """[S, O]: rows of expert e, which end at ends_E[e], times its matrix."""
    product: torch.Tensor = functional.grouped_mm(states_SD, weights_EOD.transpose(-2, -1), offs=ends_E)
    return product
