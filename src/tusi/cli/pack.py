"""`tusi pack MODEL`: shows what `models.pack` does."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from tusi.cli import options
from tusi.cli.console import size_text, stderr_console
from tusi.cli.session import DType
from tusi.core.errors import ConfigError
from tusi.models.config_io import load_config
from tusi.models.hub import resolve_model
from tusi.models.memory_estimate import estimate_memory
from tusi.models.pack import pack_checkpoint
from tusi.models.parameters import choose_format


def pack(
    model: Annotated[str, typer.Argument(help="Folder or pulled model.")],
    out: Annotated[
        Path | None,
        typer.Argument(help="New folder that needs MODEL no more; beside MODEL's own files, if not given."),
    ] = None,
    dtype: options.Dtype = "auto",
) -> None:
    """Write a model's weights as they lie in memory, so that later starts only read them.

    Every command that loads MODEL with this --dtype uses the packed file from then on. It is as large as the model in
    memory, and is ignored, with a word, once the checkpoint or the layout of weights has changed. TUSI_WEIGHT_MEMORY
    chooses whether it is read into memory or mapped.

    \b
    Examples:
      tusi pack baidu/ERNIE-4.5-VL-28B-A3B-Thinking --dtype int4
      tusi pack ernie-int4 ernie-int4-packed
    """
    folder = resolve_model(model)
    _require_disk(folder, out, dtype)
    columns = (TextColumn("packing"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=stderr_console(), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("packing", total=None)
        try:
            path = pack_checkpoint(
                folder,
                dtype,
                out=out,
                progress=lambda _name, done, total: bar.update(task, completed=done, total=total),
            )
        except OSError as error:
            raise ConfigError(
                f"the packed file cannot be written ({error.strerror or error}: {error.filename}). Give a folder that "
                "can be written to, with enough room, as the second argument."
            ) from error
    print(f"{path} ({size_text(path.stat().st_size)})")


def _require_disk(folder: Path, out: Path | None, dtype: DType) -> None:
    config = load_config(folder)
    needed = estimate_memory(config, choose_format(config, dtype), context=1).weights_total
    target = (out or folder).absolute()
    existing = next(parent for parent in (target, *target.parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise ConfigError(
            f"the packed file takes {size_text(needed)}, and {existing} has {size_text(free)} free. Give a folder on "
            "another disk as the second argument."
        )
