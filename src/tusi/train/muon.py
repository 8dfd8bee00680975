"""Muon: momentum whose matrices are made orthogonal before they are applied (K. Jordan, 2024, kellerjordan.github.io).

For hidden matrices only; embeddings, heads, routers and vectors stay with AdamW (`MuonWithAdamW` runs the two as one).
Updates are scaled to the root mean square of AdamW's (J. Liu et al., arXiv 2502.16982, section 2.2), so that one
learning rate serves both.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch

# Quintic Newton-Schulz iteration, tuned for slope at zero: singular values end in about [0.7, 1.2], which is enough.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
NUM_ITERATIONS = 5
ADAMW_RMS = 0.2


def orthogonalized(matrices_BMN: torch.Tensor) -> torch.Tensor:
    """The nearest (semi-)orthogonal matrix of each matrix of a batch [B, M, N], roughly."""
    a, b, c = COEFFICIENTS
    is_tall = matrices_BMN.shape[-2] > matrices_BMN.shape[-1]
    # As in the reference, in bfloat16: the iteration tolerates its rounding, and CPUs with bfloat16 products gain much.
    x: torch.Tensor = (matrices_BMN.transpose(-2, -1) if is_tall else matrices_BMN).bfloat16()
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for _ in range(NUM_ITERATIONS):
        gram = x @ x.transpose(-2, -1)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.transpose(-2, -1) if is_tall else x).to(matrices_BMN.dtype)


class Muon(torch.optim.Optimizer):
    """Over parameters of two dimensions, or of three: a stack of experts is a batch of matrices.

    momentum: of Nesterov's kind. weight_decay: decoupled, as AdamW's.
    """

    def __init__(self, params: Any, *, lr: float, momentum: float = 0.95, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Apply the gradients. closure is not supported."""
        assert closure is None, "Muon takes no closure"
        for group in self.param_groups:
            learnt = [parameter for parameter in group["params"] if parameter.grad is not None]
            if learnt:
                self._update(learnt, group)

    def _update(self, parameters: list[torch.nn.Parameter], group: dict[str, Any]) -> None:
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        momenta = [self._momentum(parameter) for parameter in parameters]
        torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
        directions = torch._foreach_lerp(gradients, momenta, group["momentum"])
        torch._foreach_mul_([*parameters], 1 - group["lr"] * group["weight_decay"])
        for members in _stacks(parameters):
            rows, columns = parameters[members[0]].shape[-2:]
            stack = torch.stack([directions[i] for i in members])
            updates = orthogonalized(stack.view(-1, rows, columns)).view_as(stack).unbind()
            rate = group["lr"] * ADAMW_RMS * max(rows, columns) ** 0.5
            torch._foreach_add_([parameters[i] for i in members], updates, alpha=-rate)

    def _momentum(self, parameter: torch.nn.Parameter) -> torch.Tensor:
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        momentum: torch.Tensor = state["momentum"]
        return momentum


def _stacks(parameters: list[torch.nn.Parameter]) -> list[list[int]]:
    """Indices of parameters whose matrices are made orthogonal together: on a GPU those of one shape, since it waits
    for launches and not for products; on a CPU each alone, which saves the copies."""
    stacks: dict[object, list[int]] = defaultdict(list)
    for index, parameter in enumerate(parameters):
        stacks[parameter.shape if parameter.is_cuda else index].append(index)
    return list(stacks.values())


class MuonWithAdamW:
    """Muon for the matrices, AdamW for the rest, behind the face of one optimizer."""

    def __init__(self, muon: Muon, adamw: torch.optim.AdamW) -> None:
        self._parts: dict[str, torch.optim.Optimizer] = {"muon": muon, "adamw": adamw}

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of both."""
        return [group for part in self._parts.values() for group in part.param_groups]

    def step(self) -> None:
        """Apply the gradients."""
        for part in self._parts.values():
            part.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients."""
        for part in self._parts.values():
            part.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """The states of both, by name."""
        return {name: part.state_dict() for name, part in self._parts.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        for name, part in self._parts.items():
            part.load_state_dict(state[name])
