"""Auxiliary-loss-free expert balancing: after each step the correction bias moves towards the experts that were idle.

b_e += rate * sign(mean usage - usage_e), per layer and per modality (DeepSeek-V3, arXiv 2412.19437, section 2.1.2; the
ERNIE 4.5 report does the same). The bias takes part in choosing experts only, so it gets no gradient.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers.models.ernie4_5_vl_moe.modeling_ernie4_5_vl_moe import Ernie4_5_VLMoeMoeTopKRouter


class ExpertBalancer:
    """Counts which experts every router of a model chooses, and moves the biases when told to."""

    def __init__(self, model: torch.nn.Module, *, rate: float) -> None:
        self._rate = rate
        self._usage: dict[Ernie4_5_VLMoeMoeTopKRouter, torch.Tensor] = {}
        for module in model.modules():
            if isinstance(module, Ernie4_5_VLMoeMoeTopKRouter):
                self._usage[module] = torch.zeros(module.num_experts, device=module.weight.device)
                module.register_forward_hook(self._count)

    def _count(self, router: Ernie4_5_VLMoeMoeTopKRouter, _args: Any, output: tuple[torch.Tensor, ...]) -> None:
        if router.training:
            # Not bincount: on a GPU it waits for the largest value.
            chosen_S1 = output[2].reshape(-1, 1)
            self._usage[router] += (chosen_S1 == torch.arange(router.num_experts, device=chosen_S1.device)).sum(dim=0)

    @torch.no_grad()
    def step(self) -> None:
        """Move each router's bias by its usage since the last step, and forget that usage."""
        for router, usage_E in self._usage.items():
            bias_1E = router.moe_statics.e_score_correction_bias
            bias_1E.add_(self._rate * torch.sign(usage_E.mean() - usage_E))
            usage_E.zero_()
