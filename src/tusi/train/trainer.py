"""The training loop: an objective and batches in; trained weights, curves and resumable states out.

It knows nothing of tasks, templates or pictures: sample i comes from a `BatchSource`, and is the same whenever asked.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic

import torch

from tusi.core.errors import ConfigError, EngineError
from tusi.train.balance import ExpertBalancer
from tusi.train.curves import Curves
from tusi.train.device import autocast
from tusi.train.objectives import BatchT, LossSums, Objective
from tusi.train.optim import build_optimizer, set_learning_rate
from tusi.train.prefetch import BatchSource
from tusi.train.recipe import Recipe
from tusi.train.schedule import learning_rate
from tusi.train.state import load_latest_state, save_state

logger = logging.getLogger(__name__)

# What may change between a run and its resumption without making it another run.
RESUMABLE_KEYS = {
    "max_steps",
    "save_every_steps",
    "log_every_steps",
    "eval",
    "output_dir",
    "num_workers",
    "device",
    "max_minutes",
}


@dataclass(slots=True)
class Progress:
    """How far a run has come. seconds: how long it has taken, over all its goes."""

    step: int = 0
    seconds: float = 0.0
    best_eval_loss: float = float("inf")
    evals_without_gain: int = 0


class Trainer(Generic[BatchT]):
    """One run of a recipe. `run` goes on from the last state in the recipe's output folder, if there is one."""

    def __init__(
        self, recipe: Recipe, objective: Objective[BatchT], train: BatchSource[BatchT], evaluation: BatchSource[BatchT]
    ) -> None:
        self._recipe = recipe
        self._objective = objective
        self._module = objective.module
        self._device = next(self._module.parameters()).device
        self._train = train
        self._evaluation = evaluation
        self._optimizer = build_optimizer(self._module, recipe.optim)
        self._balancer = ExpertBalancer(self._module, rate=recipe.model.expert_bias_rate)
        self.progress = Progress()
        self._stop_requested = False
        self._resume()
        self._curves = Curves(recipe.output_dir / "curves.csv", after_steps=self.progress.step)

    @property
    def states_dir(self) -> Path:
        """Where resumable states are kept."""
        return self._recipe.output_dir / "states"

    def run(self) -> Progress:
        """Train until max_steps or max_minutes, until patience runs out, or until `request_stop`; then save.

        An exception (Ctrl-C too) may leave a step half done, so nothing is saved then: the last state stands.
        """
        started = time.perf_counter() - self.progress.seconds
        for step in range(self.progress.step, self._recipe.max_steps):
            self._step(step)
            is_exhausted = self._is_due(step + 1, self._recipe.eval.every_steps) and self._evaluate(step + 1)
            self.progress.step = step + 1
            self.progress.seconds = time.perf_counter() - started
            if is_exhausted or self._stop_requested or self._time_share() >= 1:
                break
            if self._is_due(step + 1, self._recipe.save_every_steps):
                self._save()
        self._save()
        return self.progress

    def request_stop(self) -> None:
        """Let `run` end cleanly after the step it is in. May be called from a signal handler."""
        self._stop_requested = True

    def _time_share(self) -> float:
        """The part of max_minutes that has passed; 0 if there is no limit."""
        minutes = self._recipe.max_minutes
        return self.progress.seconds / (60 * minutes) if minutes else 0.0

    def _is_due(self, steps_done: int, every: int) -> bool:
        return steps_done % every == 0 or steps_done == self._recipe.max_steps

    def _step(self, step: int) -> None:
        optim = self._recipe.optim
        started = time.perf_counter()
        self._module.train()
        lr = learning_rate(step, max_steps=self._recipe.max_steps, optim=optim, time_share=self._time_share())
        set_learning_rate(self._optimizer, lr)
        first = step * optim.accumulation_steps
        batches = [self._train.batch(first + i) for i in range(optim.accumulation_steps)]
        num_targets = sum(batch.num_targets for batch in batches)
        mean, num_correct = self._backward(batches, num_targets)
        grad_norm = torch.nn.utils.clip_grad_norm_(self._module.parameters(), optim.max_grad_norm)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        if self._recipe.model.expert_bias_rate:
            self._balancer.step()
        # Read last, and once: it waits for a GPU to have done all of the above.
        loss, correct, norm = torch.stack([mean, num_correct, grad_norm]).tolist()
        self._refuse_nan(loss)
        if (step + 1) % self._recipe.log_every_steps == 0:
            seconds = time.perf_counter() - started
            rows = sum(batch.num_samples for batch in batches)
            self._log(step + 1, loss, correct / num_targets, lr, norm, num_targets / seconds, rows / seconds)

    def _backward(self, batches: list[BatchT], num_targets: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Accumulate gradients of the mean over all targets of the step, however they are spread over batches.

        Returns that mean and how many targets were right, on the device.
        """
        loss, num_correct = torch.zeros(2, device=self._device)
        for batch in batches:
            sums = self._forward(batch)
            mean = sums.loss / num_targets
            mean.backward()  # type: ignore[no-untyped-call]
            loss = loss + mean.detach()
            num_correct = num_correct + sums.num_correct
        return loss, num_correct

    def _refuse_nan(self, loss: float) -> None:
        if loss != loss:  # NaN
            raise EngineError(
                f"the loss became NaN at step {self.progress.step}; lower optim.lr or raise optim.warmup_steps, "
                f"and resume from {self.states_dir}."
            )

    def _forward(self, batch: BatchT) -> LossSums:
        with autocast(self._device, self._recipe.precision):
            return self._objective.loss(batch)

    def _evaluate(self, steps_done: int) -> bool:
        """Log loss and accuracy on held-out batches. True: patience has run out."""
        self._module.train(False)
        loss, num_correct, num_targets = 0.0, 0, 0
        with torch.no_grad():
            for batch in self._evaluation_batches():
                sums = self._forward(batch)
                loss += sums.loss.item()
                num_correct += int(sums.num_correct)
                num_targets += sums.num_targets
        loss /= num_targets
        self._curves.log(step=steps_done, eval_loss=loss, eval_accuracy=num_correct / num_targets)
        logger.info("step %d: evaluation loss %.4f, accuracy %.3f", steps_done, loss, num_correct / num_targets)
        if loss < self.progress.best_eval_loss:
            self.progress.best_eval_loss = loss
            self.progress.evals_without_gain = 0
        else:
            self.progress.evals_without_gain += 1
        patience = self._recipe.eval.patience
        return patience is not None and self.progress.evals_without_gain >= patience

    def _evaluation_batches(self) -> Iterator[BatchT]:
        for index in range(-(-self._recipe.eval.samples // self._recipe.data.samples_per_batch)):
            yield self._evaluation.batch(index)

    def _log(
        self, steps_done: int, loss: float, accuracy: float, lr: float, norm: float, targets: float, rows: float
    ) -> None:
        self._curves.log(
            step=steps_done,
            loss=loss,
            accuracy=accuracy,
            lr=lr,
            grad_norm=norm,
            targets_per_s=targets,
            samples_per_s=rows,
        )
        logger.info("step %d: loss %.4f, accuracy %.3f, %.1f samples/s", steps_done, loss, accuracy, rows)

    def _save(self) -> None:
        state: dict[str, Any] = {
            "recipe": self._identity(),
            "step": self.progress.step,
            "seconds": self.progress.seconds,
            "best_eval_loss": self.progress.best_eval_loss,
            "evals_without_gain": self.progress.evals_without_gain,
            "model": self._module.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "rng": torch.get_rng_state(),
        }
        save_state(self.states_dir, self.progress.step, state)

    def _resume(self) -> None:
        state = load_latest_state(self.states_dir)
        if state is None:
            return
        if state["recipe"] != self._identity():
            changed = sorted(k for k, v in self._identity().items() if state["recipe"].get(k) != v)
            raise ConfigError(
                f"{self.states_dir} holds a run of another recipe (different: {', '.join(changed)}); "
                "go on with the recipe it was started with, or give another output_dir."
            )
        self._module.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["rng"])
        self.progress = Progress(state["step"], state["seconds"], state["best_eval_loss"], state["evals_without_gain"])
        logger.info("going on from step %d (%s)", self.progress.step, self.states_dir)

    def _identity(self) -> dict[str, Any]:
        return self._recipe.model_dump(mode="json", exclude=RESUMABLE_KEYS)
