"""`tusi index docs|images FOLDER --index FILE`: what the search tools look up."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal, get_args

import typer

from tusi.agent.index.documents import Report, folder_files, index_documents
from tusi.agent.index.pictures import SUFFIXES as PICTURE_SUFFIXES
from tusi.agent.index.pictures import index_pictures
from tusi.agent.index.text_files import SUFFIXES as DOCUMENT_SUFFIXES
from tusi.cli import options
from tusi.cli.console import stderr_console
from tusi.cli.session import ModelOptions, opened_backend
from tusi.cli.tools import embedder
from tusi.core.errors import ConfigError
from tusi.processing.limits import MediaLimits

What = Literal["docs", "images"]


def index(
    what: Annotated[str, typer.Argument(help="docs: Markdown, text and PDF files; images: pictures with captions.")],
    folder: Annotated[Path, typer.Argument(help="The folder with the files; its folders are searched too.")],
    index: Annotated[Path, typer.Option(metavar="FILE", help="The index to make or to bring up to date.")],
    model: options.Model = None,
    dtype: options.Dtype = "auto",
) -> None:
    """Make or update what knowledge_search and image_search look up; one file can hold both.

    Run it again after changes: only what changed is read. Pictures are compared by the model's vision tower, so they
    need --model, and the same one later. Captions come from metadata.jsonl or metadata.csv (file_name, text), from a
    text file of the picture's name, or from its name.

    \b
    Examples:
      tusi index docs handbook/ --index my.index
      tusi index images catalogue/ --index my.index --model MODEL
      tusi ask thing.jpg "What is this, and what does it cost?" --tools image_search,knowledge_search --index my.index
    """
    if what not in get_args(What):
        raise ConfigError(f"tusi index knows nothing called {what!r}; there are: {', '.join(get_args(What))}.")
    if what == "docs":
        if model is not None:
            raise ConfigError(f"--model {model} has nothing to act on: documents are found by words. Leave it out.")
        with _progress(len(folder_files(folder, DOCUMENT_SUFFIXES))) as advance:
            report = index_documents(folder, index, on_file=advance)
    else:
        report = _pictures(folder, index, ModelOptions(model=model, dtype=dtype))
    for name, reason in report.failed.items():
        print(f"left out: {name}: {reason}", file=sys.stderr)
    print(f"{index}: {report.added} added or changed, {report.unchanged} unchanged, {report.removed} removed")
    if report.failed:
        print(f"{len(report.failed)} could not be read", file=sys.stderr)
        raise typer.Exit(1)


def _pictures(folder: Path, index: Path, model_options: ModelOptions) -> Report:
    count = len(folder_files(folder, PICTURE_SUFFIXES))
    with opened_backend(model_options) as backend:
        embed = embedder(backend)
        if embed is None:
            raise ConfigError(
                f"{backend.model} makes no vectors of pictures. Choose a model that runs in this process."
            )
        with _progress(count) as advance:
            return index_pictures(folder, index, embed, MediaLimits(), on_file=advance)


@contextmanager
def _progress(total: int) -> Iterator[Callable[[Path], None]]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("indexing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=stderr_console(), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("indexing", total=total)
        yield lambda _path: bar.advance(task)
