"""The learning rate of each step: linear warm-up, then a cosine down to the minimum. Pure."""

from __future__ import annotations

import math

from tusi.train.recipe import OptimSection


def learning_rate(step: int, *, max_steps: int, optim: OptimSection, time_share: float = 0.0) -> float:
    """Learning rate of step (0-based); the peak is reached after optim.warmup_steps, optim.min_lr at max_steps.

    time_share: the part of a run's time that has passed, if it has a limit; what is nearer to its end counts.
    """
    if step < optim.warmup_steps:
        return optim.lr * (step + 1) / optim.warmup_steps
    progress = (step - optim.warmup_steps) / max(1, max_steps - optim.warmup_steps)
    cosine = 0.5 * (1.0 + math.cos(math.pi * min(1.0, max(progress, time_share))))
    return optim.min_lr + (optim.lr - optim.min_lr) * cosine
