"""On a GPU: the CPU's losses and gradients, gradient in the vision experts, and runs that change the device midway."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tusi.models.checkpoint import Checkpoint
from tusi.models.embedded import embedded_folder
from tusi.train.collate import Batch
from tusi.train.curves import read_curves
from tusi.train.device import autocast
from tusi.train.model import load_model
from tusi.train.objectives import SupervisedObjective
from tusi.train.recipe import Recipe
from tusi.train.run import make_source, run_recipe

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no GPU"),
]

SOURCES = ("dense", "lookup", "grounding", "zoom", "tool_use", "video")


def make_recipe(out: Path, **changes: Any) -> Recipe:
    raw = {
        "output_dir": out,
        "max_steps": 6,
        "log_every_steps": 1,
        "save_every_steps": 3,
        "model": {"path": "tusi-mini", "expert_bias_rate": 0.001},
        "data": {"sources": [{"task": task, "max_difficulty": 2} for task in SOURCES], "samples_per_batch": 12},
        # One rate throughout, so that it does not matter where a run stops.
        "optim": {"name": "muon", "lr": 3e-4, "min_lr": 3e-4, "warmup_steps": 0},
        "eval": {"every_steps": 6, "samples": 12},
    }
    return Recipe.model_validate(raw | changes)


def make_batch(tmp_path: Path, **changes: Any) -> Batch:
    batch = make_source(make_recipe(tmp_path, **changes), "train").batch(0)
    assert {"pixel_values", "pixel_values_videos"} <= set(batch.inputs), "the mixture has pictures and clips"
    return batch


def gradients(batch: Batch, device: str, precision: Any) -> tuple[float, dict[str, torch.Tensor]]:
    model = load_model(embedded_folder(), random_init=False, seed=0)
    torch.nn.Module.to(model, torch.device(device))
    objective = SupervisedObjective(model)
    with autocast(torch.device(device), precision):
        sums = objective.loss(batch)
    mean = sums.loss / sums.num_targets
    mean.backward()
    return mean.item(), {name: p.grad.cpu().double() for name, p in model.named_parameters() if p.grad is not None}


def losses(out: Path) -> list[float]:
    return [float(row["loss"]) for row in read_curves(out / "curves.csv") if row["loss"]]


def cosine(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float(torch.cosine_similarity(ours.flatten(), theirs.flatten(), dim=0))


def relative_error(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).norm() / theirs.norm().clamp(min=1e-12))


def test_float32_gives_the_cpus_losses_and_gradients(tmp_path: Path) -> None:
    batch = make_batch(tmp_path)
    loss, theirs = gradients(batch, "cpu", "fp32")
    gpu_loss, ours = gradients(batch, "cuda", "fp32")
    assert gpu_loss == pytest.approx(loss, rel=1e-4)
    assert set(ours) == set(theirs)
    errors = {name: relative_error(ours[name], theirs[name]) for name in theirs}
    assert max(errors.values()) < 1e-2, sorted(errors.items(), key=lambda item: -item[1])[:5]


def test_bfloat16_points_where_float32_does_and_reaches_the_vision_experts(tmp_path: Path) -> None:
    """Through the fused attention and the grouped products, which float32 does not take."""
    batch = make_batch(tmp_path, precision="bf16")
    loss, exact = gradients(batch, "cpu", "fp32")
    gpu_loss, ours = gradients(batch, "cuda", "bf16")
    assert gpu_loss == pytest.approx(loss, rel=2e-2)
    assert set(ours) == set(exact)
    cosines = {
        name: float(torch.cosine_similarity(ours[name].flatten(), g.flatten(), dim=0)) for name, g in exact.items()
    }
    experts = [name for name in exact if "vision_moe.experts" in name and exact[name].norm() > 0]
    assert experts
    assert min(cosines[name] for name in experts) > 0.95, {name: cosines[name] for name in experts}
    assert sum(cosines.values()) / len(cosines) > 0.97, sorted(cosines.items(), key=lambda item: item[1])[:5]


@pytest.mark.parametrize("objective", ["supervised", "cells"])
def test_a_run_goes_on_on_the_other_device_with_the_same_losses(tmp_path: Path, objective: str) -> None:
    changes: dict[str, Any] = {"objective": objective}
    if objective == "cells":
        changes["data"] = {"sources": [{"task": "dense"}, {"task": "reasoning"}], "samples_per_batch": 6}
    run_recipe(make_recipe(tmp_path / "cpu", device="cpu", **changes))
    for steps, device in ((2, "cuda"), (4, "cpu"), (6, "cuda")):
        run_recipe(make_recipe(tmp_path / "both", device=device, max_steps=steps, **changes))
    assert losses(tmp_path / "both") == pytest.approx(losses(tmp_path / "cpu"), rel=2e-2)
    trained = dict(Checkpoint(tmp_path / "both" / "checkpoint").items())
    assert set(trained) == set(dict(Checkpoint(embedded_folder()).items()))
