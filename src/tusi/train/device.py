"""Where a recipe is trained: the device it names, and the precision of products on it."""

from __future__ import annotations

import contextlib
from typing import Literal

import torch

from tusi.core.errors import BackendUnavailable

DeviceName = Literal["auto", "cpu", "cuda"]


def pick_device(name: DeviceName) -> torch.device:
    """The device of a recipe's name; `auto` is the GPU if PyTorch sees one. Raises BackendUnavailable."""
    has_cuda = torch.cuda.is_available()
    if name == "cuda" and not has_cuda:
        raise BackendUnavailable(
            "the recipe says `device: cuda`, but PyTorch sees no GPU. Set device=cpu (or auto), or install a PyTorch "
            "that is built for this GPU's driver."
        )
    return torch.device("cuda" if has_cuda and name != "cpu" else "cpu")


def autocast(device: torch.device, precision: Literal["fp32", "bf16"]) -> contextlib.AbstractContextManager[object]:
    """Products in bfloat16 if the precision says so; weights and sums stay float32."""
    if precision == "bf16":
        return torch.autocast(device.type, torch.bfloat16)
    return contextlib.nullcontext()


def moved(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The tensor on the device. A copy to a GPU goes through pinned memory, so that nobody waits for it."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
