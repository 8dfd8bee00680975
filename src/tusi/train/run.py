"""A recipe run from beginning to end: sources, objective and model put together, trained, and exported.

The result lies in `output_dir/checkpoint`, in the published layout.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

from transformers import Ernie4_5_VLMoeForConditionalGeneration

from tusi.backends.local.loading import Frontend, load_frontend
from tusi.tasks.world.cells import target_sizes
from tusi.train.collate import Batch, CellBatch, TokenIds
from tusi.train.curves import plot_curves
from tusi.train.encode import Encoder
from tusi.train.model import export_checkpoint, load_model
from tusi.train.objectives import CellObjective, SupervisedObjective
from tusi.train.recipe import Recipe
from tusi.train.sources import CellSource, ConversationSource
from tusi.train.trainer import Progress, Trainer

logger = logging.getLogger(__name__)


def run_recipe(recipe: Recipe, *, on_start: Callable[[Callable[[], None]], None] | None = None) -> Progress:
    """Run (or go on with) a recipe; returns how far it came. Exports when it ends, early or not.

    on_start: is given a function that asks the run to stop after its step, for a signal handler.
    Raises ConfigError, CheckpointError, RequestError (a sample that does not fit the recipe).
    """
    frontend = load_frontend(recipe.model.path, name=recipe.model.path.name)
    model = load_model(recipe.model.path, random_init=recipe.model.random_init, seed=recipe.seed)
    trainer: Trainer[Batch] | Trainer[CellBatch]
    if recipe.objective == "cells":
        trainer = _cell_trainer(recipe, frontend, model)
    else:
        trainer = _trainer(recipe, frontend, model)
    if on_start is not None:
        on_start(trainer.request_stop)
    progress = trainer.run()
    plot_curves(recipe.output_dir / "curves.csv", recipe.output_dir / "curves.png")
    _export(recipe, model)
    return progress


def _trainer(recipe: Recipe, frontend: Frontend, model: Ernie4_5_VLMoeForConditionalGeneration) -> Trainer[Batch]:
    data, config = recipe.data, frontend.config
    encoder = Encoder(frontend.template, frontend.processor, frontend.tokenizer, max_tokens=data.max_tokens)
    ids = TokenIds(image=config.image_token_id, video=config.video_token_id)
    ramp = data.ramp_steps * recipe.optim.accumulation_steps
    train = ConversationSource(data, encoder, ids, seed=recipe.seed, split="train", ramp_batches=ramp)
    held_out = ConversationSource(data, encoder, ids, seed=recipe.seed, split="eval", ramp_batches=0)
    return Trainer(recipe, SupervisedObjective(model), train, held_out)


def _cell_trainer(
    recipe: Recipe, frontend: Frontend, model: Ernie4_5_VLMoeForConditionalGeneration
) -> Trainer[CellBatch]:
    ramp = recipe.data.ramp_steps * recipe.optim.accumulation_steps
    parts = (recipe.data, frontend.processor, frontend.tokenizer)
    train = CellSource(*parts, seed=recipe.seed, split="train", ramp_batches=ramp)
    held_out = CellSource(*parts, seed=recipe.seed, split="eval", ramp_batches=0)
    return Trainer(recipe, CellObjective(model, sizes=target_sizes()), train, held_out)


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
