"""`tusi verify [MODEL]`: are its files what they should be, and does it still score what was written down of it?"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, cast

import typer

from tusi.backends.protocol import Backend
from tusi.cli.console import size_text, stderr_console
from tusi.cli.session import DType, ModelOptions, choose_model, crowd_config, opened_backend
from tusi.evals.verify import CONCURRENCY, SAMPLES, Comparison, compare_scores, read_scores, record_scores
from tusi.models.hub import resolve_model
from tusi.models.manifest import MANIFEST_FILE, FileProblem, Manifest, check_files, read_manifest, write_manifest
from tusi.models.pack import check_packed, packed_files
from tusi.tasks.world import FAMILIES


def verify(
    model: Annotated[
        str | None,
        typer.Argument(metavar="MODEL", help="Folder with a manifest; else TUSI_MODEL or tusi-mini."),
    ] = None,
    files_only: Annotated[bool, typer.Option("--files-only", help="Compare checksums alone; takes no time.")] = False,
    record: Annotated[
        bool, typer.Option("--record", help="Write the manifest of the folder as it is now, scores included.")
    ] = False,
    samples: Annotated[int, typer.Option(min=1, help="With --record: samples a family.")] = SAMPLES,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check a model against its manifest: every file's SHA-256, and its scores on a fixed set of questions.

    Packed files are checked by the checksums in them, also where there is no manifest. The questions are the first ones
    of the procedural world's evaluation, asked as `tusi eval world` asks them. Exit code 1 if a file differs, or if a
    score differs by more than chance explains.

    \b
    Examples:
      tusi verify
      tusi verify path/to/folder --files-only
    """
    name = choose_model(model)
    folder = resolve_model(name)
    if record:
        _record(name, folder, samples, files_only=files_only)
        return
    packed = packed_files(folder)
    # A packed folder needs no manifest: what is in it can be checked without.
    manifest = read_manifest(folder) if not packed or (folder / MANIFEST_FILE).exists() else None
    problems = [*([] if manifest is None else check_files(folder, manifest)), *_check_packed(packed)]
    # A model whose files are damaged may not even load; what it scores is beside the point.
    comparisons = {} if files_only or problems or manifest is None else _measure(name, manifest)
    is_well = not problems and all(comparison.agrees for comparison in comparisons.values())
    if as_json:
        print(json.dumps(_as_json(name, manifest, packed, problems, comparisons, is_well=is_well), indent=2))
    else:
        print("\n".join([*_file_lines(name, folder, manifest, packed, problems), *_score_lines(comparisons)]))
    if not is_well:
        raise typer.Exit(1)
    if manifest is None and not files_only:
        print(
            f"{folder} has no {MANIFEST_FILE}: what it scores was not compared. `tusi verify FOLDER --record` writes "
            "one.",
            file=sys.stderr,
        )


def _check_packed(paths: Sequence[Path]) -> list[FileProblem]:
    total = sum(path.stat().st_size for path in paths)
    problems = []
    with _checking(total) as tell:
        before = 0
        for path in paths:
            what = check_packed(path, partial(tell, before))
            problems += [] if what is None else [FileProblem(path.name, what)]
            before += path.stat().st_size
    return problems


@contextmanager
def _checking(total: int) -> Iterator[Callable[[int, int, int], None]]:
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("checking"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=stderr_console(), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("checking", total=total)
        yield lambda before, done, _: bar.update(task, completed=before + done)


def _record(name: str, folder: Path, samples: int, *, files_only: bool) -> None:
    scores = None
    if not files_only:
        total = samples * len(FAMILIES)
        with _opened(name, "auto") as backend, _progress(total) as advance:
            scores = record_scores(backend, dtype="auto", samples=samples, on_result=advance).model_dump(mode="json")
    manifest = write_manifest(folder, scores)
    print(f"{folder}: {len(manifest.files)} files{'' if files_only else ' and the scores'} written down")


def _measure(name: str, manifest: Manifest) -> Mapping[str, Comparison]:
    recorded = read_scores(manifest.scores)
    total = recorded.samples * len(recorded.families)
    with _opened(name, cast("DType", recorded.dtype)) as backend, _progress(total) as advance:
        return compare_scores(backend, recorded, on_result=advance)


@contextmanager
def _opened(name: str, dtype: DType) -> Iterator[Backend]:
    with opened_backend(ModelOptions(model=name, dtype=dtype, engine_config=crowd_config(CONCURRENCY))) as backend:
        yield backend


def _file_lines(
    name: str, folder: Path, manifest: Manifest | None, packed: Sequence[Path], problems: Sequence[FileProblem]
) -> list[str]:
    if not problems:
        sound = [f"{name}: {path.name} ({size_text(path.stat().st_size)}) is as it was written" for path in packed]
        if manifest is None:
            return sound
        size = sum(record.size for record in manifest.files.values())
        files = f"{name}: all {len(manifest.files)} files ({size / 1e6:.1f} MB) are as they should be (SHA-256)"
        return [files, *sound]
    lines = [f"{name}: {problem.name} {problem.what}" for problem in problems]
    if {problem.name for problem in problems} <= {path.name for path in packed}:
        return lines
    return [*lines, f"{folder} is not the model that was written down. Install or copy it anew."]


def _score_lines(comparisons: Mapping[str, Comparison]) -> list[str]:
    if not comparisons:
        return []
    lines = ["", "| family | samples | recorded, % | now, % (95 %) | scored the same | |", f"|{' --- |' * 6}"]
    for family, one in comparisons.items():
        now = f"{100 * one.measured:.1f} ({100 * one.low:.0f}-{100 * one.high:.0f})"
        verdict = "agrees" if one.agrees else "DIFFERS"
        lines.append(f"| {family} | {one.count} | {100 * one.recorded:.1f} | {now} | {one.same} | {verdict} |")
    wrong = [family for family, one in comparisons.items() if not one.agrees]
    if wrong:
        advice = "Run `tusi doctor`, try TUSI_ISA=generic, and report it with both outputs."
        return [*lines, "", f"The scores of {', '.join(wrong)} differ by more than statistical error. {advice}"]
    return [*lines, "", "The scores are the recorded ones, within statistical error."]


def _as_json(
    name: str,
    manifest: Manifest | None,
    packed: Sequence[Path],
    problems: Sequence[FileProblem],
    comparisons: Mapping[str, Comparison],
    *,
    is_well: bool,
) -> dict[str, object]:
    return {
        "model": name,
        "ok": is_well,
        "files": 0 if manifest is None else len(manifest.files),
        "packed": [path.name for path in packed],
        "problems": [asdict(problem) for problem in problems],
        "scores": {family: {**asdict(one), "agrees": one.agrees} for family, one in comparisons.items()},
    }


@contextmanager
def _progress(total: int) -> Iterator[Callable[[], None]]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("asking"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=stderr_console(), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("asking", total=total)
        yield lambda: bar.advance(task)
