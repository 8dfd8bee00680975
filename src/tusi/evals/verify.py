"""Whether a model still scores what was written down of it: a short, fixed evaluation, sample by sample the same.

In: a backend and recorded scores. Out: by family, what was recorded and what came now, and whether the two agree within
statistical error. Other instruction sets round differently, so a few answers may change; a broken model changes many.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tusi.backends.protocol import Backend
from tusi.core.errors import CheckpointError, ConfigError
from tusi.engine.sampling_params import SamplingParams
from tusi.evals.report import ALL, wilson_interval
from tusi.evals.results import SampleResult
from tusi.evals.run import RunOptions, evaluate
from tusi.evals.world import WorldEvalTask, world_tasks
from tusi.tasks.world.generate import FAMILIES, WORLD_VERSION

SAMPLES = 40
MAX_TOKENS = 512
CONCURRENCY = 32


class RecordedScores(BaseModel):
    """What a manifest says a model scored. families: family -> score of each sample, in order.

    The samples are the first of the `eval` split, which no training reaches, with tools and greedy decoding.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    world_version: int
    dtype: str
    samples: int = Field(ge=1)
    max_tokens: int = Field(ge=1)
    families: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A family then and now. recorded, measured: mean scores; low, high: the measured one's 95 % interval.

    same: samples that scored exactly what they had scored.
    """

    count: int
    recorded: float
    measured: float
    low: float
    high: float
    same: int

    @property
    def agrees(self) -> bool:
        """Whether the recorded score lies within the interval of the measured one."""
        return self.low - 1e-9 <= self.recorded <= self.high + 1e-9


def read_scores(scores: Mapping[str, Any] | None) -> RecordedScores:
    """A manifest's scores. Raises CheckpointError if it has none, or none that this version of the world can repeat."""
    if scores is None:
        raise CheckpointError(
            "the manifest has no scores. `tusi verify FOLDER --record` measures and writes them down."
        )
    try:
        recorded = RecordedScores.model_validate(scores)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, ("scores", *first["loc"])))
        raise CheckpointError(f"the manifest's {place} cannot be used: {first['msg']}. Record it anew.") from error
    if recorded.world_version != WORLD_VERSION:
        raise CheckpointError(
            f"the scores were recorded in version {recorded.world_version} of the world, and this is version "
            f"{WORLD_VERSION}: its samples are others. Use the version of Tusi that the model came with."
        )
    lengths = {len(one) for one in recorded.families.values()}
    if lengths != {recorded.samples}:
        raise CheckpointError(f"the manifest's scores have {sorted(lengths)} samples a family, not {recorded.samples}.")
    return recorded


def record_scores(
    backend: Backend, *, dtype: str, samples: int = SAMPLES, on_result: Callable[[], None] = lambda: None
) -> RecordedScores:
    """Measure what is to be written down. Raises ConfigError if a sample fails for another reason than its answer."""
    return RecordedScores(
        world_version=WORLD_VERSION,
        dtype=dtype,
        samples=samples,
        max_tokens=MAX_TOKENS,
        families=_measure(backend, FAMILIES, samples, MAX_TOKENS, on_result),
    )


def compare_scores(
    backend: Backend, recorded: RecordedScores, *, on_result: Callable[[], None] = lambda: None
) -> dict[str, Comparison]:
    """Measure again; family (and "all") -> Comparison."""
    measured = _measure(backend, tuple(recorded.families), recorded.samples, recorded.max_tokens, on_result)
    comparisons = {family: _compare(recorded.families[family], measured[family]) for family in recorded.families}
    comparisons[ALL] = _compare(
        [score for scores in recorded.families.values() for score in scores],
        [score for family in recorded.families for score in measured[family]],
    )
    return comparisons


def _compare(recorded: Sequence[float], measured: Sequence[float]) -> Comparison:
    count, mean = len(measured), sum(measured) / len(measured)
    low, high = wilson_interval(mean, count)
    return Comparison(
        count=count,
        recorded=sum(recorded) / count,
        measured=mean,
        low=low,
        high=high,
        same=sum(abs(a - b) < 1e-6 for a, b in zip(recorded, measured, strict=True)),
    )


def _measure(
    backend: Backend, families: Sequence[str], samples: int, max_tokens: int, on_result: Callable[[], None]
) -> dict[str, tuple[float, ...]]:
    tasks: list[WorldEvalTask] = world_tasks(samples=samples, families=families)
    results: dict[tuple[str, int], SampleResult] = {}

    def keep(result: SampleResult) -> None:
        if result.outcome == "failed":
            raise ConfigError(f"sample {result.labels['id']} could not be asked ({result.error}). Correct that first.")
        results[result.key] = result
        on_result()

    params = SamplingParams(temperature=0.0, max_tokens=max_tokens)
    evaluate(backend, tasks, RunOptions(sampling_params=params, concurrency=CONCURRENCY), on_result=keep)
    return {task.family: tuple(round(results[task.name, index].score, 4) for index in range(samples)) for task in tasks}
