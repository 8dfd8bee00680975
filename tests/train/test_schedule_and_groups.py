"""Learning rates: over time, and per parameter group."""

from __future__ import annotations

import pytest
import torch

from tusi.train.optim import build_optimizer, set_learning_rate
from tusi.train.recipe import OptimSection
from tusi.train.schedule import learning_rate


def test_warm_up_peak_and_floor() -> None:
    optim = OptimSection(lr=1.0, min_lr=0.1, warmup_steps=4)
    rates = [learning_rate(step, max_steps=24, optim=optim) for step in range(25)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[4] == 1.0
    assert rates[14] == pytest.approx(0.55)  # half-way down the cosine
    assert rates[24] == pytest.approx(0.1)
    assert rates[4:] == sorted(rates[4:], reverse=True)


def test_time_counts_where_it_is_nearer_to_its_end_than_the_steps_are() -> None:
    optim = OptimSection(lr=1.0, min_lr=0.1, warmup_steps=4)
    assert learning_rate(14, max_steps=24, optim=optim, time_share=0.2) == pytest.approx(0.55)
    assert learning_rate(5, max_steps=24, optim=optim, time_share=0.5) == pytest.approx(0.55)
    assert learning_rate(5, max_steps=24, optim=optim, time_share=1.5) == pytest.approx(0.1)
    assert learning_rate(0, max_steps=24, optim=optim, time_share=0.5) == 0.25  # the warm-up is not cut


class Toy(torch.nn.Module):
    """The three kinds of parameters that learn at different rates."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = torch.nn.Linear(2, 2, bias=False)
        self.vision_tower = torch.nn.Linear(2, 2)
        self.head = torch.nn.Linear(2, 2)
        self.frozen = torch.nn.Parameter(torch.zeros(2, 2), requires_grad=False)


def test_groups_scale_the_rate_and_spare_vectors_from_decay() -> None:
    optimizer = build_optimizer(Toy(), OptimSection(lr=1.0, gate_lr_ratio=0.01, vit_lr_ratio=0.9, weight_decay=0.1))
    set_learning_rate(optimizer, 0.5)
    found = {
        (group["lr"], group["weight_decay"]): sum(p.numel() for p in group["params"])
        for group in optimizer.param_groups
    }
    assert found == {(0.005, 0.1): 4, (0.45, 0.1): 4, (0.45, 0.0): 2, (0.5, 0.1): 4, (0.5, 0.0): 2}
