"""Which device a recipe gets, and that a wish that cannot be had is refused."""

from __future__ import annotations

import pytest
import torch

from tusi.core.errors import BackendUnavailable
from tusi.train.device import autocast, moved, pick_device


def test_auto_takes_a_gpu_if_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert [pick_device(name).type for name in ("auto", "cpu", "cuda")] == ["cuda", "cpu", "cuda"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert [pick_device(name).type for name in ("auto", "cpu")] == ["cpu", "cpu"]
    with pytest.raises(BackendUnavailable, match="Set device=cpu"):
        pick_device("cuda")


def test_products_are_rounded_only_where_the_precision_says_so() -> None:
    matrix = moved(torch.eye(2), torch.device("cpu"))
    with autocast(torch.device("cpu"), "bf16"):
        assert (matrix @ matrix).dtype == torch.bfloat16
    with autocast(torch.device("cpu"), "fp32"):
        assert (matrix @ matrix).dtype == torch.float32
