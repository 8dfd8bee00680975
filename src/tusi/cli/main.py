"""`tusi`: finds the command, runs it, turns errors into a message and an exit code. A command loads when it is used.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 something optional is missing, 130 stopped with Ctrl-C.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from tusi.core.errors import TusiError

# name -> what `tusi --help` says. A command lives in the module of its name, in the function of its name.
COMMANDS = {
    "ask": "Ask one question about pictures and videos.",
    "chat": "Talk about pictures and videos, turn by turn.",
    "serve": "Answer OpenAI's clients over HTTP.",
    "fit": "Tell before any download whether a model fits this machine, and how.",
    "pull": "Download a model; resumes after a break and checks what it got.",
    "quantize": "Write a model with weights of 4 or 8 bits; resumes after a break.",
    "pack": "Write a model as it lies in memory, so that it starts in seconds.",
    "index": "Make what knowledge_search and image_search look up.",
    "mcp": "Offer our tools to any MCP client.",
    "eval": "Measure a model: accuracy by family and difficulty, with intervals.",
    "bench": "Measure speed and memory beside what this machine could do at most.",
    "verify": "Check a model's files and scores against what was written down of it.",
    "drift": "Compare two models token by token: what quantizing cost.",
    "train": "Train a model by a recipe, or go on with a run.",
    "world": "Look at the small world that tusi-mini learns from.",
    "doctor": "Check this installation and machine; exit 1 if something is broken.",
}
HELP_OPTIONS = {"help_option_names": ["-h", "--help"]}


class LazyGroup(TyperGroup):
    """Knows its commands by name and imports one when it is wanted; `tusi --help` imports none."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Names in the order of the help page."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command, loaded now; None if there is none of this name."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"tusi.cli.{cmd_name}")
        single = typer.Typer(add_completion=False, rich_markup_mode=None, context_settings=dict(HELP_OPTIONS))
        single.command(cmd_name)(getattr(module, cmd_name))
        return typer.main.get_command(single)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """The list on the help page."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """As the base class does, but suggesting from names alone."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from difflib import get_close_matches

            near = get_close_matches(args[0], COMMANDS)
            hint = f"Did you mean `tusi {near[0]}`?" if near else f"Commands: {', '.join(COMMANDS)}."
            ctx.fail(f"there is no command {args[0]!r}. {hint}")
        return super().resolve_command(ctx, args)


def _print_version(value: bool) -> None:
    if value:
        from importlib.metadata import PackageNotFoundError, version

        try:
            print(f"tusi {version('tusi')}")
        except PackageNotFoundError:
            print("tusi (from a source tree, not installed)")
        raise typer.Exit


app = typer.Typer(
    cls=LazyGroup,
    add_completion=False,
    rich_markup_mode=None,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings=dict(HELP_OPTIONS),
)


@app.callback()
def _tusi(
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show log lines, and the traceback of an error.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit.")
    ] = False,
) -> None:
    """Run ERNIE-4.5-VL, a model that thinks with pictures, on this machine.

    Start with `tusi doctor` and `tusi fit MODEL`; then `tusi pull MODEL` and `tusi ask photo.jpg "What is this?"`.
    Each command explains itself with --help.
    """
    from tusi.core.logs import configure

    configure(verbose=verbose)
    if not verbose:  # one line a request is for servers; here it would stand between thoughts and answer
        logging.getLogger("tusi").setLevel(logging.WARNING)


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code. args: without the program's name; those of the process if None."""
    args = list(sys.argv[1:] if args is None else args)
    try:
        typer.main.get_command(app)(args, prog_name="tusi")
    except SystemExit as ended:
        return _finish(ended.code)
    except TusiError as error:
        if _is_verbose(args):
            import traceback

            traceback.print_exc()
        print(f"tusi: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return _leave_quietly()
    return 0


def _finish(code: object) -> int:
    """Write out what is buffered, so that a reader who left is met here and not while Python shuts down."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        return _leave_quietly()
    return code if isinstance(code, int) else int(code is not None)


def _leave_quietly() -> int:
    """The reader of our output is gone (`tusi ask ... | head -1`): nothing is left to be said, nor to be flushed."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _is_verbose(args: Sequence[str]) -> bool:
    before_command = args[: next((i for i, arg in enumerate(args) if not arg.startswith("-")), len(args))]
    return bool({"-v", "--verbose"} & set(before_command))
