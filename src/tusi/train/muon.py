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
        x = a * x + (b * gram + c * gram @ gram) @ x
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
            for parameters in _stacks(learnt):
                self._update(parameters, group)

    def _update(self, parameters: list[torch.nn.Parameter], group: dict[str, Any]) -> None:
        """Parameters of one shape, whose matrices are made orthogonal in one batch."""
        directions = [self._direction(parameter, group["momentum"]) for parameter in parameters]
        rows, columns = parameters[0].shape[-2:]
        updates = orthogonalized(torch.stack(directions).view(-1, rows, columns)).view(len(parameters), -1)
        for parameter, update in zip(parameters, updates, strict=True):
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
            parameter.add_(update.view_as(parameter), alpha=-group["lr"] * ADAMW_RMS * max(rows, columns) ** 0.5)

    def _direction(self, parameter: torch.nn.Parameter, momentum: float) -> torch.Tensor:
        state, gradient = self.state[parameter], parameter.grad
        assert gradient is not None, "only learnt parameters are updated"
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        state["momentum"].lerp_(gradient, 1 - momentum)
        return gradient.lerp(state["momentum"], momentum)


def _stacks(parameters: list[torch.nn.Parameter]) -> list[list[torch.nn.Parameter]]:
    """Parameters that are updated together: on a GPU those of one shape, since it waits for launches and not products;
    on a CPU each alone, which saves the copies."""
    stacks: dict[object, list[torch.nn.Parameter]] = defaultdict(list)
    for parameter in parameters:
        stacks[parameter.shape if parameter.is_cuda else id(parameter)].append(parameter)
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
