"""`tusi train RECIPE`: runs a recipe, or goes on with it; Ctrl-C ends after the current step and keeps everything."""

from __future__ import annotations

import signal
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from tusi.cli.console import stderr_console
from tusi.core import logs
from tusi.core.errors import BackendUnavailable


def train(
    recipe: Annotated[Path, typer.Argument(help="A YAML file; see recipes/.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Changes, such as optim.lr=1e-4.")
    ] = None,
) -> None:
    """Train a model by a recipe. Run it again to go on where it stopped; a finished run is only exported again."""
    if find_spec("torch") is None or find_spec("transformers") is None:
        raise BackendUnavailable(
            "training needs PyTorch and transformers, which are not installed. Install them with "
            "`pip install 'tusi[train]'`."
        )
    # Heavy, and optional: only this command needs them.
    from tusi.train.recipe import load_recipe
    from tusi.train.run import run_recipe

    logs.configure()
    loaded = load_recipe(recipe, overrides or ())
    progress = run_recipe(loaded, on_start=_stop_on_interrupt)
    stderr_console().print(
        f"{progress.step} of {loaded.max_steps} steps done; checkpoint: {loaded.output_dir / 'checkpoint'}, "
        f"curves: {loaded.output_dir / 'curves.png'}"
    )


def _stop_on_interrupt(request_stop: Callable[[], None]) -> None:
    """The first Ctrl-C or SIGTERM lets the step finish, the second one interrupts it."""

    def on_signal(number: int, _frame: FrameType | None) -> None:
        signal.signal(number, signal.default_int_handler)
        stderr_console().print("stopping after this step; Ctrl-C again to stop at once")
        request_stop()

    signal.signal(signal.SIGINT, on_signal)
    signal.signal(signal.SIGTERM, on_signal)
