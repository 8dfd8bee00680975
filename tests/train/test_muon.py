"""Muon's updates are orthogonal, stacks are batches, and a run with it learns and resumes."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch

from tusi.train.muon import ADAMW_RMS, Muon, MuonWithAdamW, orthogonalized
from tusi.train.optim import build_optimizer
from tusi.train.recipe import OptimSection


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 16, 6), (2, 5, 24)])
def test_singular_values_end_near_one(shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    matrices = torch.randn(shape)
    values = torch.linalg.svdvals(orthogonalized(matrices))
    assert values.min() > 0.5
    assert values.max() < 1.3
    # The directions stay: the nearest orthogonal matrix is U V^T.
    u, _, vh = torch.linalg.svd(matrices, full_matrices=False)
    torch.testing.assert_close(orthogonalized(matrices), u @ vh, atol=0.35, rtol=0)


def test_a_stack_is_updated_as_its_matrices_would_be_alone() -> None:
    torch.manual_seed(0)
    gradient = torch.randn(3, 6, 4)
    stack = torch.nn.Parameter(torch.zeros(3, 6, 4))
    stack.grad = gradient.clone()
    Muon([stack], lr=0.1).step()
    for index in range(3):
        alone = torch.nn.Parameter(torch.zeros(6, 4))
        alone.grad = gradient[index].clone()
        Muon([alone], lr=0.1).step()
        torch.testing.assert_close(stack[index], alone)


def test_updates_are_as_large_as_adamws() -> None:
    torch.manual_seed(0)
    parameter = torch.nn.Parameter(torch.zeros(64, 96))
    parameter.grad = torch.randn(64, 96)
    Muon([parameter], lr=1.0).step()
    assert parameter.detach().square().mean().sqrt().item() == pytest.approx(ADAMW_RMS, rel=0.3)


class Net(torch.nn.Module):
    """One parameter of each kind that the split by optimizer knows."""

    def __init__(self) -> None:
        super().__init__()
        self.embed_tokens = torch.nn.Embedding(4, 4)
        self.hidden = torch.nn.Linear(4, 4)
        self.gate = torch.nn.Linear(4, 2, bias=False)
        self.lm_head = torch.nn.Linear(4, 4, bias=False)


def test_only_hidden_matrices_go_to_muon_and_a_state_brings_both_back() -> None:
    torch.manual_seed(0)
    net, twin = Net(), Net()
    twin.load_state_dict(net.state_dict())
    optim = OptimSection(name="muon", lr=0.01)
    first, second = build_optimizer(net, optim), build_optimizer(twin, optim)
    assert isinstance(first, MuonWithAdamW)
    assert first.param_groups[0]["params"] == [net.hidden.weight]
    assert sum(p.numel() for group in first.param_groups for p in group["params"]) == sum(
        p.numel() for p in net.parameters()
    )

    def step(model: Net, optimizer: MuonWithAdamW) -> None:
        hidden = model.hidden(model.embed_tokens.weight)
        loss = model.lm_head(hidden).square().sum() + model.gate(hidden).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    for _ in range(3):
        step(net, first)
    twin.load_state_dict(net.state_dict())
    assert isinstance(second, MuonWithAdamW)
    second.load_state_dict(deepcopy(first.state_dict()))
    step(net, first)
    step(twin, second)
    for ours, theirs in zip(net.parameters(), twin.parameters(), strict=True):
        assert torch.equal(ours, theirs)
