"""`tusi eval world`: how well a model does in the procedural world; stops at Ctrl-C and goes on with the same --out."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal, cast, get_args

import typer

from tusi.agent.types import AgentLimits
from tusi.backends.protocol import Backend
from tusi.cli import options
from tusi.cli.console import stderr_console
from tusi.cli.session import ModelOptions, choose_model, crowd_config, opened_backend
from tusi.core.errors import ConfigError
from tusi.engine.sampling_params import SamplingParams
from tusi.evals.report import make_report
from tusi.evals.results import Key, ResultFile, SampleResult
from tusi.evals.run import RunOptions, evaluate
from tusi.evals.world import WorldEvalTask, world_tasks
from tusi.tasks.world import DIFFICULTIES, FAMILIES, LANGUAGES, SPLITS
from tusi.tasks.world.generate import WORLD_VERSION
from tusi.tasks.world.sample import Language
from tusi.tasks.world.splits import Split

What = Literal["world"]


def eval(  # noqa: A001 - a command's function bears its name
    what: Annotated[str, typer.Argument(help="What to measure on: world.")],
    model: options.Model = None,
    dtype: options.Dtype = "auto",
    kv_cache_dtype: options.KVCacheDtype = "auto",
    activations: options.Activations = None,
    max_model_len: options.MaxModelLen = None,
    split: Annotated[str, typer.Option(help=f"One of {', '.join(SPLITS)}.")] = "eval",
    samples: Annotated[int, typer.Option(min=1, help="Samples a family.")] = 300,
    families: Annotated[str | None, typer.Option(help=f"Some of {','.join(FAMILIES)}; all, if not given.")] = None,
    difficulties: Annotated[str | None, typer.Option(help="Some of 1,2,3,4,5; all, if not given.")] = None,
    languages: Annotated[str | None, typer.Option(help=f"Some of {','.join(LANGUAGES)}; all, if not given.")] = None,
    first_seed: Annotated[int, typer.Option(min=0, help="Seed of each family's first sample.")] = 0,
    tools: Annotated[bool, typer.Option("--tools/--no-tools", help="Offer the tools, or withhold them.")] = True,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 always takes the likeliest token.")] = 0.0,
    seed: options.Seed = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Tokens that the model may write in one turn.")] = 2048,
    max_turns: Annotated[int, typer.Option(min=1, help="Turns of a sample; the last is offered no tools.")] = 8,
    thinking: options.Thinking = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Samples asked at the same time.")] = 8,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.jsonl", help="Keep results here; run again to go on where it stopped.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a Markdown table.")] = False,
) -> None:
    """Measure a model: accuracy in percent by family and difficulty, with 95 % intervals in brackets.

    Truncated answers and failures count as wrong and are shown apart. Results that failed are tried again by a rerun.

    \b
    Examples:
      tusi eval world --model MODEL --out results.jsonl
      tusi eval world --model MODEL --families zoom --no-tools
      tusi eval world --model MODEL --split heldout_style --samples 300
    """
    if what not in get_args(What):
        raise ConfigError(f"tusi eval knows nothing called {what!r}; there is: world. Run `tusi eval world`.")
    tasks = world_tasks(
        split=cast("Split", split),
        samples=samples,
        families=FAMILIES if families is None else _listed(families),
        difficulties=DIFFICULTIES if difficulties is None else [_level(text) for text in _listed(difficulties)],
        languages=LANGUAGES if languages is None else cast("list[Language]", _listed(languages)),
        first_seed=first_seed,
    )
    run = RunOptions(
        sampling_params=SamplingParams(temperature=temperature, seed=seed, max_tokens=max_tokens),
        limits=AgentLimits(max_turns=max_turns),
        use_tools=tools,
        concurrency=concurrency,
        template_kwargs={} if thinking is None else {"enable_thinking": thinking},
    )
    model_options = ModelOptions(
        model=choose_model(model),
        dtype=dtype,
        kv_cache_dtype=kv_cache_dtype,
        activations=activations,
        max_model_len=max_model_len,
        engine_config=crowd_config(concurrency),
    )
    settings = _settings(model_options, tasks[0], run)
    with (
        nullcontext() if out is None else ResultFile(out, settings) as file,
        opened_backend(model_options) as backend,
    ):
        results, is_stopped = _measure(backend, tasks, run, file)
    order = [task.name for task in tasks]
    report = make_report(sorted(results, key=lambda result: order.index(result.task)))
    print(json.dumps(report.as_json(), indent=2) if as_json else report.as_markdown())
    if is_stopped:
        advice = "nothing was kept; give --out to be able to go on" if out is None else "run it again to go on"
        print(f"stopped after {len(results)} of {sum(map(len, tasks))} samples; {advice}", file=sys.stderr)
        raise typer.Exit(130)


def _measure(
    backend: Backend, tasks: Sequence[WorldEvalTask], run: RunOptions, file: ResultFile | None
) -> tuple[list[SampleResult], bool]:
    """All results that there are, and whether Ctrl-C cut the run short."""
    wanted: set[Key] = {(task.name, index) for task in tasks for index in range(len(task))}
    results = [] if file is None else [result for key, result in file.done.items() if key in wanted]
    done = {result.key for result in results}
    with _progress(len(wanted), results) as advance:

        def keep(result: SampleResult) -> None:
            if file is not None:
                file.append(result)
            results.append(result)
            advance()

        try:
            evaluate(backend, tasks, run, on_result=keep, done=done)
        except KeyboardInterrupt:
            return results, True
    return results, False


@contextmanager
def _progress(total: int, results: Sequence[SampleResult]) -> Iterator[Callable[[], None]]:
    """A bar on a terminal, a line every tenth elsewhere; both on standard error, with the score so far."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    is_terminal = sys.stderr.isatty()
    with Progress(*columns, console=stderr_console(), transient=True, disable=not is_terminal) as bar:
        task = bar.add_task("evaluating", total=total, completed=len(results))

        def advance() -> None:
            count = len(results)
            said = f"score {sum(result.score for result in results) / count:.3f}"
            bar.update(task, completed=count, description=said)
            if not is_terminal and (count * 10 // total) != ((count - 1) * 10 // total):
                print(f"{count} of {total}, {said}", file=sys.stderr)

        yield advance


def _settings(model: ModelOptions, task: WorldEvalTask, run: RunOptions) -> Mapping[str, Any]:
    """Whatever results must share to be counted together. Samples, families and splits may be added later."""
    return {
        "world_version": WORLD_VERSION,
        "model": model.model,
        "dtype": model.dtype,
        # Left out where it is the usual one: results that were kept before there was a choice still count.
        **({} if model.kv_cache_dtype == "auto" else {"kv_cache_dtype": model.kv_cache_dtype}),
        **({} if model.activations is None else {"activations": model.activations}),
        "max_model_len": model.max_model_len,
        **task.settings,
        **{name: value for name, value in asdict(run).items() if name != "concurrency"},
    }


def _listed(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]


def _level(text: str) -> int:
    if not text.isdecimal():
        raise ConfigError(f"--difficulties has {text!r}; it takes whole numbers such as 1,2,3. Correct it.")
    return int(text)
