"""`tusi quantize MODEL OUT`: shows what `models.quantize` does."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from tusi.cli.console import size_text, stderr_console, stdout_console
from tusi.cli.weight_formats import FamilyFormat, bits_of
from tusi.models.calibration import LEAST_TOKENS, CalibrationSamples
from tusi.models.hub import resolve_model
from tusi.models.quantize import quantize_checkpoint
from tusi.models.quantize_plan import Plan


def quantize(
    model: Annotated[str, typer.Argument(help="Folder or pulled model, not yet quantized.")],
    out: Annotated[Path, typer.Argument(help="Folder to write: new, empty, or a stopped run to go on with.")],
    weight_format: Annotated[
        FamilyFormat, typer.Option("--format", help="Bits of the decoder's weights, experts included.")
    ],
    group_size: Annotated[
        int, typer.Option(help="Weights that share a scale: 32, or 64 (half a bit less a weight, and coarser).")
    ] = 32,
    portable: Annotated[
        bool,
        typer.Option(help="Write only what vLLM reads too: whole groups, and no quantized embedding that is tied."),
    ] = False,
    calibration: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.jsonl",
            help='Conversations for which the weights are to err least, one a line: {"messages": [...]} in OpenAI\'s '
            "shape, pictures included, or lines of --trace.",
        ),
    ] = None,
    calibration_samples: Annotated[
        int, typer.Option(min=1, help="Conversations of --calibration that are used: the first ones.")
    ] = 128,
) -> None:
    """Quantize a model once, so that it loads faster and fits smaller memory; resumes after a break.

    Reads and writes one tensor at a time. The decoder is rounded with the scale that errs least; embedding and head
    stay one step finer, routers, norms, biases and the resampler as they are. The table at the end says what became
    what. Run the same command again after any break.

    With --calibration the decoder runs over the samples, a layer at a time, and each matrix is rounded so that on them
    its product errs least. That takes memory for one layer, a square for each expert and the samples' tokens (about
    7 GB for the 28 B model), and more time; a hundred samples of what the model will be asked are enough.

    \b
    Examples:
      tusi quantize baidu/ERNIE-4.5-VL-28B-A3B-Thinking ernie-int4 --format wint4
      tusi ask photo.jpg "What is on the table?" --model ernie-int4
      tusi drift baidu/ERNIE-4.5-VL-28B-A3B-Thinking ernie-int4
      tusi quantize MODEL ernie-int4 --format wint4 --calibration conversations.jsonl
    """
    try:
        with _progress() as show:
            folder = resolve_model(model)
            plan = quantize_checkpoint(
                folder,
                out,
                bits=bits_of(weight_format),
                group_size=group_size,
                portable=portable,
                calibration=_samples(folder, calibration, calibration_samples),
                progress=show,
            )
    except KeyboardInterrupt:
        print("Stopped. Finished files are kept: run the same command again to go on.", file=sys.stderr)
        raise
    _print(plan, group_size)
    print(out)


def _samples(folder: Path, path: Path | None, limit: int) -> CalibrationSamples | None:
    if path is None:
        return None
    from tusi.cli.calibration import calibration_samples  # reads templates, pictures and videos

    return calibration_samples(folder, path, limit)


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """A bar on a terminal, a line every tenth elsewhere; both on standard error."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    is_terminal = sys.stderr.isatty()
    shown = 0
    with Progress(*columns, console=stderr_console(), transient=True, disable=not is_terminal) as bar:
        task = bar.add_task("quantizing", total=None)

        def show(name: str, done: int, total: int) -> None:
            nonlocal shown
            bar.update(task, description=name[-40:], completed=done, total=total)
            if not is_terminal and (tenths := done * 10 // max(1, total)) > shown:
                shown = tenths
                print(f"{size_text(done)} of {size_text(total)}", file=sys.stderr)

        yield show


def _print(plan: Plan, group_size: int) -> None:
    table = Table(box=None, pad_edge=False)
    for name in ("", "was", "is", "tensors", "before", "after", "why"):
        table.add_column(name, justify="right" if name in ("tensors", "before", "after") else "left")
    rows = plan.rows()
    for row in rows:
        becomes = f"{row.becomes} / {group_size}" if row.becomes.startswith("int") else row.becomes
        table.add_row(
            row.component, row.stored_as, becomes, str(row.tensors), size_text(row.source_bytes),
            size_text(row.nbytes), row.reason,
        )  # fmt: skip
    before, after = sum(row.source_bytes for row in rows), sum(row.nbytes for row in rows)
    table.add_row("all", "", "", str(len(plan.steps)), size_text(before), size_text(after), "", style="bold")
    stdout_console().print(table)
    for remark in _remarks(plan, group_size):
        print(remark, file=sys.stderr)


def _remarks(plan: Plan, group_size: int) -> list[str]:
    """What other programs may stumble over, which --portable avoids, and what calibration did not reach."""
    remarks = []
    if plan.uncalibrated:
        shown = ", ".join(plan.uncalibrated[:4]) + (", ..." if len(plan.uncalibrated) > 4 else "")
        remarks.append(
            f"{len(plan.uncalibrated)} matrices were rounded as without samples, because fewer than {LEAST_TOKENS} of "
            f"their tokens reached them: {shown}. More, or more varied, samples would."
        )
    if plan.ragged:
        remarks.append(
            f"{plan.ragged} matrices have a width that {group_size} does not divide: their last group is short, which "
            "Tusi reads and other programs may refuse."
        )
    if plan.is_head_tied and any(step.kind == "embedding" and step.bits for step in plan.steps):
        remarks.append(
            "The embedding is the head as well and is quantized, which Tusi reads and vLLM does not yet; --portable "
            "leaves it as it is."
        )
    return remarks
