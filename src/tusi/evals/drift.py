"""How far one model's next-token distributions are from another's, on traces that neither of them wrote.

Both models read the expert's trace of each sample (teacher forcing); at every token that a model would have to write
there, the two distributions are compared. Cheaper and finer than accuracy: it shows what quantising costs before a
single answer changes. In: two scorers. Out: figures by family. Knows nothing of weights, prompts or tokenizers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tusi.chat.messages import Message
from tusi.core.errors import ConfigError
from tusi.evals.world import WorldEvalTask

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

ALL = "all"
# Rows of logits held at once: 64 of the 28 B model's vocabulary are 26 MB.
_ROWS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class ForcedTrace:
    """A conversation as one model reads it. targets_N: the tokens that it would have to write.

    logits: given which of the N, the logits [n, V] from which these tokens would be drawn.
    """

    input_ids: Sequence[int]
    targets_N: I64
    logits: Callable[[slice], F32]


class Scorer(Protocol):
    """A model that reads a conversation with the assistant's turns in place."""

    def __call__(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> ForcedTrace: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftCell:
    """A group of samples. Means are over tokens; kl and the log-probabilities are in nats.

    agreement: share of tokens where both hold the same token likeliest. kl: KL(first || second), mean; kl_p99: what
    99 % of the tokens stay below. logprob: what the first gives the expert's token; other_logprob: the second.
    """

    samples: int
    tokens: int
    agreement: float
    kl: float
    kl_p99: float
    kl_max: float
    logprob: float
    other_logprob: float


@dataclass(frozen=True, slots=True)
class DriftReport:
    """families: family (and "all", if there are several) -> DriftCell."""

    families: Mapping[str, DriftCell]

    def as_json(self) -> dict[str, Any]:
        """JSON's types."""
        return {family: asdict(cell) for family, cell in self.families.items()}

    def as_markdown(self) -> str:
        """A table."""
        names = ("family", "samples", "tokens", "same top token, %", "mean KL", "99 % below", "largest",
                 "log p, first", "log p, second")  # fmt: skip
        rows = [names, ("---",) * len(names)]
        for family, cell in self.families.items():
            figures = (cell.kl, cell.kl_p99, cell.kl_max, cell.logprob, cell.other_logprob)
            rows.append((
                family, str(cell.samples), str(cell.tokens), f"{100 * cell.agreement:.2f}",
                *(f"{figure:.5f}" for figure in figures),
            ))  # fmt: skip
        return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def measure_drift(
    first: Scorer,
    second: Scorer,
    tasks: Sequence[WorldEvalTask],
    *,
    on_sample: Callable[[], None] = lambda: None,
) -> DriftReport:
    """Compare two models over every sample of the tasks. Raises ConfigError if they do not share their tokens."""
    traces = list(read_traces(first, tasks))
    return compare_readings(tasks, traces, read_traces(second, tasks, on_sample=on_sample))


def read_traces(
    scorer: Scorer, tasks: Iterable[WorldEvalTask], *, on_sample: Callable[[], None] = lambda: None
) -> Iterator[ForcedTrace]:
    """What one model makes of every sample, in order. A list of it may outlive the model, and then one at a time do."""
    for task in tasks:
        for index in range(len(task)):
            sample = task[index]
            messages, tools = task.prompt(sample)
            yield scorer((*messages, *sample.trace), tools)
            on_sample()


def compare_readings(
    tasks: Iterable[WorldEvalTask], first: Iterable[ForcedTrace], second: Iterable[ForcedTrace]
) -> DriftReport:
    """Compare what two models made of the tasks' samples. Raises ConfigError if they do not share their tokens."""
    names = (task.family for task in tasks for _ in range(len(task)))
    families: dict[str, list[_Tokens]] = {}
    for family, one, other in zip(names, first, second, strict=True):
        families.setdefault(family, []).append(compare_traces(one, other))
    cells = {family: _cell(samples) for family, samples in families.items()}
    if len(cells) > 1:
        cells[ALL] = _cell([sample for samples in families.values() for sample in samples])
    return DriftReport(cells)


@dataclass(frozen=True, slots=True)
class _Tokens:
    """Of each of a sample's N tokens."""

    agrees_N: NDArray[np.bool_]
    kl_N: F64
    logprob_N: F64
    other_logprob_N: F64


def compare_traces(first: ForcedTrace, second: ForcedTrace) -> _Tokens:
    """Token by token. Raises ConfigError if the two do not read the same tokens or differ in vocabulary."""
    if tuple(first.input_ids) != tuple(second.input_ids) or not np.array_equal(first.targets_N, second.targets_N):
        raise ConfigError(
            f"the two models read one conversation as different tokens ({len(first.input_ids)} and "
            f"{len(second.input_ids)}), so there is nothing to compare token by token. Give two models with one "
            "tokenizer, chat template and picture size, such as a model and its quantized copy."
        )
    count = len(first.targets_N)
    pieces = [
        _compare(first.logits(rows), second.logits(rows), first.targets_N[rows])
        for rows in (slice(begin, min(begin + _ROWS, count)) for begin in range(0, count, _ROWS))
    ]
    return _Tokens(*(np.concatenate(column) for column in zip(*pieces, strict=True)))


def _compare(first_NV: F32, second_NV: F32, targets_N: I64) -> tuple[NDArray[np.bool_], F64, F64, F64]:
    if first_NV.shape != second_NV.shape:
        raise ConfigError(
            f"the two models have {first_NV.shape[1]} and {second_NV.shape[1]} tokens in their vocabularies. Give two "
            "models with one tokenizer, such as a model and its quantized copy."
        )
    p_NV, q_NV = _log_softmax(first_NV), _log_softmax(second_NV)
    kl_N = np.maximum((np.exp(p_NV) * (p_NV - q_NV)).sum(axis=1), 0.0)  # never negative but for rounding
    rows_N = np.arange(len(targets_N))
    agrees_N = first_NV.argmax(axis=1) == second_NV.argmax(axis=1)
    return agrees_N, kl_N, p_NV[rows_N, targets_N], q_NV[rows_N, targets_N]


def _log_softmax(logits_NV: F32) -> F64:
    shifted_NV = logits_NV.astype(np.float64) - logits_NV.max(axis=1, keepdims=True)
    normalised_NV: F64 = shifted_NV - np.log(np.exp(shifted_NV).sum(axis=1, keepdims=True))
    return normalised_NV


def _cell(samples: Sequence[_Tokens]) -> DriftCell:
    kl_N = np.concatenate([sample.kl_N for sample in samples])
    return DriftCell(
        samples=len(samples),
        tokens=len(kl_N),
        agreement=float(np.concatenate([sample.agrees_N for sample in samples]).mean()),
        kl=float(kl_N.mean()),
        kl_p99=float(np.quantile(kl_N, 0.99)),
        kl_max=float(kl_N.max()),
        logprob=float(np.concatenate([sample.logprob_N for sample in samples]).mean()),
        other_logprob=float(np.concatenate([sample.other_logprob_N for sample in samples]).mean()),
    )
