"""Optimizers over parameter groups: routers, vision tower and the rest learn at their own rates; no vector decays."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch

from tusi.train.muon import Muon, MuonWithAdamW
from tusi.train.recipe import OptimSection

Optimizer = torch.optim.AdamW | MuonWithAdamW

# Matrices that look tokens or pixels up, or choose: Muon is for those that transform hidden states.
NOT_FOR_MUON = ("embed_tokens.weight", "lm_head.weight", "patch_embed.proj.weight", ".gate.weight")


def parameter_groups(
    model: torch.nn.Module,
    optim: OptimSection,
    is_wanted: Callable[[str, torch.nn.Parameter], bool] = lambda _name, _parameter: True,
) -> list[dict[str, Any]]:
    """Trainable parameters by (lr_ratio, weight_decay), in a fixed order; each group carries its `lr_ratio`.

    Routers are `*.gate.weight`, the vision tower `*.vision_tower.*`. One-dimensional parameters do not decay.
    """
    groups: dict[tuple[float, float], list[torch.nn.Parameter]] = defaultdict(list)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and is_wanted(name, parameter):
            decay = optim.weight_decay if parameter.ndim > 1 else 0.0
            groups[_lr_ratio(name, optim), decay].append(parameter)
    return [
        {"params": parameters, "lr_ratio": ratio, "weight_decay": decay, "lr": optim.lr * ratio}
        for (ratio, decay), parameters in sorted(groups.items(), key=lambda item: item[0])
    ]


def build_optimizer(model: torch.nn.Module, optim: OptimSection) -> Optimizer:
    """The recipe's optimizer over `parameter_groups`."""
    if optim.name == "adamw":
        return _adamw(parameter_groups(model, optim), optim)
    muon = Muon(parameter_groups(model, optim, _suits_muon), lr=optim.lr, momentum=optim.betas[1])
    rest = parameter_groups(model, optim, lambda name, parameter: not _suits_muon(name, parameter))
    return MuonWithAdamW(muon, _adamw(rest, optim))


def _adamw(groups: list[dict[str, Any]], optim: OptimSection) -> torch.optim.AdamW:
    """One kernel for all parameters where they are on a GPU."""
    is_cuda = all(parameter.is_cuda for group in groups for parameter in group["params"])
    return torch.optim.AdamW(groups, betas=optim.betas, eps=optim.eps, fused=is_cuda or None)


def set_learning_rate(optimizer: Optimizer, lr: float) -> None:
    """Give each group lr times its ratio."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_ratio"]


def _suits_muon(name: str, parameter: torch.nn.Parameter) -> bool:
    return parameter.ndim in (2, 3) and not f".{name}".endswith(NOT_FOR_MUON)


def _lr_ratio(name: str, optim: OptimSection) -> float:
    if f".{name}".endswith(".gate.weight"):
        return optim.gate_lr_ratio
    if ".vision_tower." in f".{name}":
        return optim.vit_lr_ratio
    return 1.0
