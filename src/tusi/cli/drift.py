"""`tusi drift MODEL OTHER`: what quantising (or anything else) did to a model's next-token distributions."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, cast

import numpy as np
import typer

from tusi.backends.local.loading import load_frontend, load_weights, model_folder, with_model_len
from tusi.chat.messages import Message
from tusi.cli import options
from tusi.cli.console import stderr_console
from tusi.core.types import Activations, WeightFormatChoice
from tusi.engine.config import EngineConfig
from tusi.evals.drift import ForcedTrace, compare_readings, read_traces
from tusi.evals.world import world_tasks
from tusi.models.full_sequence import full_sequence_hidden
from tusi.tasks.world import FAMILIES, SPLITS
from tusi.tasks.world.splits import Split
from tusi.train.encode import IGNORE, Conversation, Encoder


def drift(
    model: Annotated[str, typer.Argument(help="Folder or pulled model: what is compared with.")],
    other: Annotated[str, typer.Argument(help="Folder or pulled model: its quantized copy, for example.")],
    dtype: options.Dtype = "auto",
    other_dtype: options.Dtype = "auto",
    other_activations: Annotated[
        Activations | None,
        typer.Option(help="What the second model's products over int4 and int8 weights do with their input."),
    ] = None,
    split: Annotated[str, typer.Option(help=f"One of {', '.join(SPLITS)}.")] = "eval",
    samples: Annotated[int, typer.Option(min=1, help="Samples a family.")] = 20,
    families: Annotated[str | None, typer.Option(help=f"Some of {','.join(FAMILIES)}; all, if not given.")] = None,
    first_seed: Annotated[int, typer.Option(min=0, help="Seed of each family's first sample.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a Markdown table.")] = False,
) -> None:
    """Compare two models token by token on the procedural world's expert traces; one is in memory at a time.

    Prints how often both hold the same token likeliest, the mean KL divergence of their distributions in nats, and the
    log-probability that each gives to the expert's tokens.

    \b
    Examples:
      tusi drift MODEL MODEL-int4
      tusi drift MODEL MODEL --other-dtype int4
    """
    chosen = FAMILIES if families is None else [name.strip() for name in families.split(",") if name.strip()]
    tasks = world_tasks(split=cast("Split", split), samples=samples, families=chosen, first_seed=first_seed)
    with _progress(2 * sum(map(len, tasks))) as advance:
        # The first model is gone when the second is loaded: its readings keep its head alone.
        traces = list(read_traces(TeacherForced(model, dtype), tasks, on_sample=advance))
        report = compare_readings(
            tasks, traces, read_traces(TeacherForced(other, other_dtype, other_activations), tasks, on_sample=advance)
        )
    print(json.dumps(report.as_json(), indent=2) if as_json else report.as_markdown())


class TeacherForced:
    """A loaded model as a `Scorer`: the tokens it would write are those that training teaches.

    What it returns does not hold the model, but a copy of its head.
    """

    def __init__(self, name: str, dtype: WeightFormatChoice, activations: Activations | None = None) -> None:
        with model_folder(name) as folder:
            frontend = load_frontend(folder, name=name)
            engine_config = with_model_len(EngineConfig(), None, frontend.config)
            self._model = load_weights(folder, dtype=dtype, engine_config=engine_config, activations=activations)
        head = self._model.lm_head
        # A copy: the head of a packed model is a piece of the one region that all its weights lie in.
        self._head = head.with_arrays(tuple(array.copy() for array in head.arrays))
        self._encoder = Encoder(
            frontend.template,
            frontend.processor,
            frontend.tokenizer,
            max_tokens=frontend.config.text_config.max_position_embeddings,
        )

    def __call__(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> ForcedTrace:
        """One pass over the conversation. Raises RequestError if it is longer than the model was made for."""
        example = self._encoder.encode(Conversation(messages=tuple(messages), tools=tuple(tools)))
        positions_N = np.flatnonzero(example.labels != IGNORE)
        hidden_ND = full_sequence_hidden(self._model, example.prompt)[positions_N - 1]
        head = self._head
        return ForcedTrace(
            input_ids=example.prompt.input_ids,
            targets_N=example.labels[positions_N],
            logits=lambda rows: head.linear(hidden_ND[rows]),
        )


@contextmanager
def _progress(total: int) -> Iterator[Any]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("comparing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=stderr_console(), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("comparing", total=total)
        yield lambda: bar.advance(task)
