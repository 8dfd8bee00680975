"""A recipe run from beginning to end: sources, objective and model put together, trained, and exported.

The result lies in `output_dir/checkpoint`, in the published layout.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import Ernie4_5_VLMoeForConditionalGeneration

from tusi.backends.local.loading import load_frontend
from tusi.tasks.world.cells import target_sizes
from tusi.tasks.world.splits import Split
from tusi.train.collate import TokenIds
from tusi.train.curves import plot_curves
from tusi.train.device import pick_device
from tusi.train.encode import Encoder
from tusi.train.model import export_checkpoint, load_model
from tusi.train.objectives import CellObjective, SupervisedObjective
from tusi.train.prefetch import BatchSource, PrefetchedSource, PreparedSource
from tusi.train.recipe import Recipe
from tusi.train.sources import CellSource, ConversationSource
from tusi.train.trainer import Progress, Trainer

logger = logging.getLogger(__name__)


def run_recipe(recipe: Recipe, *, on_start: Callable[[Callable[[], None]], None] | None = None) -> Progress:
    """Run (or go on with) a recipe; returns how far it came. Exports when it ends, early or not.

    on_start: is given a function that asks the run to stop after its step, for a signal handler.
    Raises ConfigError, CheckpointError, RequestError (a sample that does not fit the recipe).
    """
    model = load_model(recipe.model.path, random_init=recipe.model.random_init, seed=recipe.seed)
    device = pick_device(recipe.device)
    torch.nn.Module.to(model, device)
    if device.type != "cpu" and recipe.num_workers:
        # What is left to this process are small indices; a second thread would take its core from a worker.
        torch.set_num_threads(1)
    with contextlib.ExitStack() as stack:
        trainer = _trainer(recipe, model, stack)
        if on_start is not None:
            on_start(trainer.request_stop)
        progress = trainer.run()
    plot_curves(recipe.output_dir / "curves.csv", recipe.output_dir / "curves.png")
    _export(recipe, model)
    return progress


def make_source(recipe: Recipe, split: Split) -> BatchSource[Any]:
    """Batches of a recipe for its objective: CellBatch for `cells`, else Batch. Those of `eval` know no ramp."""
    frontend, data = load_frontend(recipe.model.path, name=recipe.model.path.name), recipe.data
    ramp = data.ramp_steps * recipe.optim.accumulation_steps if split == "train" else 0
    if recipe.objective == "cells":
        parts = (data, frontend.processor, frontend.tokenizer)
        return CellSource(*parts, seed=recipe.seed, split=split, ramp_batches=ramp)
    encoder = Encoder(frontend.template, frontend.processor, frontend.tokenizer, max_tokens=data.max_tokens)
    ids = TokenIds(image=frontend.config.image_token_id, video=frontend.config.video_token_id)
    # Products in bfloat16 round what they read, so it may as well be rounded where it is made.
    pixels = torch.bfloat16 if recipe.precision == "bf16" else torch.float32
    return ConversationSource(data, encoder, ids, seed=recipe.seed, split=split, ramp_batches=ramp, pixels=pixels)


def _trainer(
    recipe: Recipe, model: Ernie4_5_VLMoeForConditionalGeneration, stack: contextlib.ExitStack
) -> Trainer[Any]:
    train, held_out = make_source(recipe, "train"), make_source(recipe, "eval")
    last = recipe.max_steps * recipe.optim.accumulation_steps
    if recipe.num_workers:
        make = functools.partial(make_source, recipe, "train")
        train = stack.enter_context(PrefetchedSource(make, num_workers=recipe.num_workers, last=last))
    objective: CellObjective | SupervisedObjective
    if recipe.objective == "cells":
        objective = CellObjective(model, sizes=target_sizes())
    else:
        objective = SupervisedObjective(model)
    if model.device.type != "cpu":
        train = stack.enter_context(PreparedSource(train, objective.prepare, last=last))
    return Trainer[Any](recipe, objective, train, held_out)


def _export(recipe: Recipe, model: Ernie4_5_VLMoeForConditionalGeneration) -> None:
    """Write the checkpoint beside the old one, then put it in its place."""
    final, fresh = recipe.output_dir / "checkpoint", recipe.output_dir / "checkpoint.new"
    _remove(fresh)
    export_checkpoint(model, recipe.model.path, fresh)
    _remove(final)
    fresh.rename(final)
    logger.info("checkpoint written to %s", final)


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
