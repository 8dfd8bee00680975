"""What a run needs to go on after `kill -9` as if nothing had happened: written whole or not at all.

A state holds weights, optimiser, counters and random generators. Data needs no state: sample i of a source is a pure
function of i.
"""

from __future__ import annotations

import logging
import os
import pickle
import re
from pathlib import Path
from typing import Any

import torch

from tusi.core.errors import ConfigError

logger = logging.getLogger(__name__)

KEEP = 2
_NAME = re.compile(r"^step-(\d{8})\.pt$")


def save_state(folder: Path, step: int, state: dict[str, Any]) -> Path:
    """Write a state for `step` and drop all but the last KEEP. A crash at any moment leaves the older ones readable."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{step:08d}.pt"
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    for old in _states(folder)[:-KEEP]:
        old.unlink()
    return path


def load_latest_state(folder: Path) -> dict[str, Any] | None:
    """The newest readable state, or None if there is none. A damaged one is reported and the one before it is taken."""
    states = _states(folder)
    for path in reversed(states):
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            logger.warning("state %s cannot be read (%s); trying the one before it", path, error)
            continue
        return state
    if states:
        raise ConfigError(
            f"none of the {len(states)} states in {folder} can be read; remove them to start anew, or restore a copy."
        )
    return None


def _states(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if _NAME.match(path.name))
