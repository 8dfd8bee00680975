"""The loop: gradient reaches every part, a killed run goes on as before, little data is learnt by heart."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.train.synthetic import SyntheticSource
from tusi.core.errors import ConfigError
from tusi.models.random_checkpoint import TINY_TEXT, tiny_config, write_random_checkpoint
from tusi.train.collate import Batch
from tusi.train.curves import read_curves
from tusi.train.model import load_model
from tusi.train.objectives import SupervisedObjective
from tusi.train.recipe import Recipe
from tusi.train.trainer import Trainer


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    # Two sparse layers: what the last layer makes of an image token is read by nobody, so it has no gradient there.
    text = replace(TINY_TEXT, num_hidden_layers=3, mlp_layer_types=("dense", "sparse", "sparse"))
    return write_random_checkpoint(tmp_path_factory.mktemp("train") / "tiny", seed=3, config=tiny_config(text=text))


def make_recipe(checkpoint: Path, out: Path, **changes: Any) -> Recipe:
    raw = {
        "output_dir": out,
        "max_steps": 6,
        "log_every_steps": 1,
        "save_every_steps": 2,
        "model": {"path": checkpoint, "expert_bias_rate": 0.01},
        "data": {"sources": [{"task": "synthetic"}], "samples_per_batch": 3},
        "optim": {"lr": 1e-3, "warmup_steps": 2, "accumulation_steps": 2},
        "eval": {"every_steps": 3, "samples": 6},
    }
    return Recipe.model_validate(raw | changes)


def make_trainer(recipe: Recipe, *, period: int = 1000) -> Trainer[Batch]:
    model = load_model(recipe.model.path, random_init=False, seed=recipe.seed)
    train = SyntheticSource(recipe.model.path, seed=1, period=period)
    return Trainer(recipe, SupervisedObjective(model), train, SyntheticSource(recipe.model.path, seed=2))


def losses(out: Path) -> list[str]:
    return [row["loss"] or row["eval_loss"] for row in read_curves(out / "curves.csv")]


def test_a_mixed_batch_gives_gradient_to_every_part(checkpoint: Path) -> None:
    model = load_model(checkpoint, random_init=False, seed=0)
    SupervisedObjective(model).loss(SyntheticSource(checkpoint).batch(0)).loss.backward()
    for part in (
        "text_moe.experts.gate_up_proj",
        "vision_moe.experts.gate_up_proj",
        "text_moe.gate.weight",
        "vision_moe.gate.weight",
        "shared_experts",
        "resampler_model.spatial_linear",
        "resampler_model.temporal_linear",
        "vision_tower.blocks",
        "embed_tokens",
    ):
        named = [(name, p.grad) for name, p in model.named_parameters() if part in name and p.requires_grad]
        reached = [name for name, gradient in named if gradient is not None and float(gradient.abs().sum()) > 0]
        last_layer = [name for name, _ in named if "layers.2.mlp.vision_moe" in name]
        assert reached == [name for name, _ in named if name not in last_layer], part
        assert reached, part


def test_vision_experts_learn_nothing_without_the_second_mask(checkpoint: Path) -> None:
    """The trap that this trainer exists to avoid: transformers drops the routing in silence."""
    model = load_model(checkpoint, random_init=False, seed=0)
    batch = SyntheticSource(checkpoint).batch(0)
    del batch.inputs["moe_mm_token_type_ids"]
    SupervisedObjective(model).loss(batch).loss.backward()
    gradients = [p.grad for name, p in model.named_parameters() if "vision_moe.experts" in name]
    assert all(g is None for g in gradients)


def test_an_interrupted_and_a_stopped_run_go_on_with_the_same_losses(checkpoint: Path, tmp_path: Path) -> None:
    make_trainer(make_recipe(checkpoint, tmp_path / "whole")).run()
    interrupted = make_trainer(make_recipe(checkpoint, tmp_path / "parts"))
    batch = interrupted._train.batch
    interrupted._train.batch = lambda index: batch(index) if index < 7 else interrupt()
    with pytest.raises(KeyboardInterrupt):
        interrupted.run()
    stopped = make_trainer(make_recipe(checkpoint, tmp_path / "parts"))
    stopped.request_stop()
    assert stopped.run().step == 3
    make_trainer(make_recipe(checkpoint, tmp_path / "parts")).run()
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")


def interrupt() -> Batch:
    raise KeyboardInterrupt


def test_an_untouched_recipe_is_demanded(checkpoint: Path, tmp_path: Path) -> None:
    make_trainer(make_recipe(checkpoint, tmp_path, max_steps=2)).run()
    with pytest.raises(ConfigError, match=r"another recipe \(different: seed\)"):
        make_trainer(make_recipe(checkpoint, tmp_path, seed=7))


def test_a_run_ends_when_its_minutes_are_over_and_says_how_long_it_took(checkpoint: Path, tmp_path: Path) -> None:
    progress = make_trainer(make_recipe(checkpoint, tmp_path, max_steps=500, max_minutes=1e-6)).run()
    assert progress.step == 1
    resumed = make_trainer(make_recipe(checkpoint, tmp_path, max_steps=500, max_minutes=60))
    assert resumed.progress.seconds == progress.seconds > 0


def test_two_epochs_over_little_data_learn_it_by_heart(checkpoint: Path, tmp_path: Path) -> None:
    optim = {"lr": 1e-2, "warmup_steps": 2, "weight_decay": 0.0}
    trainer = make_trainer(make_recipe(checkpoint, tmp_path, max_steps=60, optim=optim), period=2)
    trainer.run()
    rows = [row for row in read_curves(tmp_path / "curves.csv") if row["loss"]]
    assert float(rows[-1]["accuracy"]) == 1.0
    assert float(rows[-1]["loss"]) < 0.1 * float(rows[0]["loss"])


def test_patience_ends_a_run_that_gains_nothing(checkpoint: Path, tmp_path: Path) -> None:
    evaluation = {"every_steps": 1, "samples": 3, "patience": 2}
    trainer = make_trainer(make_recipe(checkpoint, tmp_path, max_steps=50, eval=evaluation), period=1)
    progress = trainer.run()
    assert progress.step < 50
    assert progress.evals_without_gain == 2


KILLED = """
import os, signal, sys
from pathlib import Path
from tests.train.test_trainer import make_recipe, make_trainer
import torch
torch.set_num_threads(1)
checkpoint, out, kill_at = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
trainer = make_trainer(make_recipe(checkpoint, out))
source = trainer._train
original = source.batch
def batch(index):
    if index == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(index)
source.batch = batch
trainer.run()
"""


@pytest.mark.slow
def test_a_run_killed_outright_reproduces_the_loss_sequence(checkpoint: Path, tmp_path: Path) -> None:
    def run(out: Path, kill_at: int) -> int:
        arguments = [sys.executable, "-c", KILLED, str(checkpoint), str(out), str(kill_at)]
        return subprocess.run(arguments, check=False, env={**os.environ}).returncode

    assert run(tmp_path / "whole", -1) == 0
    assert run(tmp_path / "killed", 7) == -signal.SIGKILL
    assert len(losses(tmp_path / "killed")) < len(losses(tmp_path / "whole"))
    assert run(tmp_path / "killed", -1) == 0
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")
