"""Scores that were written down are found again by the same model, and not by a worse one."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fixtures.world_expert import expert_backend
from tusi.backends.fake import FakeBackend
from tusi.core.errors import CheckpointError, ConfigError, EngineError
from tusi.evals.verify import RecordedScores, compare_scores, read_scores, record_scores
from tusi.evals.world import world_tasks
from tusi.tasks.world import FAMILIES
from tusi.tasks.world.generate import WORLD_VERSION

SAMPLES = 5


def scores(**changes: Any) -> dict[str, Any]:
    return {
        "world_version": WORLD_VERSION,
        "dtype": "auto",
        "samples": SAMPLES,
        "max_tokens": 512,
        "families": {family: [1.0] * SAMPLES for family in FAMILIES},
    } | changes


def test_the_same_model_agrees_and_a_silent_one_does_not() -> None:
    seen = []
    recorded = record_scores(
        expert_backend(world_tasks(samples=SAMPLES)), dtype="auto", samples=SAMPLES, on_result=lambda: seen.append(1)
    )
    assert recorded.model_dump() == RecordedScores(**scores()).model_dump()
    assert len(seen) == SAMPLES * len(FAMILIES)

    again = compare_scores(expert_backend(world_tasks(samples=SAMPLES)), recorded)
    assert list(again) == [*FAMILIES, "all"]
    assert all(one.agrees and one.same == one.count and one.measured == 1.0 for one in again.values())

    silent = compare_scores(FakeBackend(["?"] * 200), recorded)
    assert not any(one.agrees or one.same for one in silent.values())


def test_a_few_other_answers_are_within_statistical_error() -> None:
    nearly = scores(families={family: [1.0] * (SAMPLES - 1) + [0.0] for family in FAMILIES})
    compared = compare_scores(expert_backend(world_tasks(samples=SAMPLES)), read_scores(nearly))
    assert all(compared[family].agrees and compared[family].same == SAMPLES - 1 for family in FAMILIES)
    assert not compared["all"].agrees  # all families worse at once is no chance any more


def test_a_backend_that_fails_is_no_score() -> None:
    with pytest.raises(ConfigError, match="could not be asked"):
        record_scores(FakeBackend([EngineError("gone")] * 200), dtype="auto", samples=1)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, "has no scores"),
        ({"samples": 3}, "scores.world_version cannot be used"),
        (scores(world_version=1), "version 1 of the world"),
        (scores(samples=4), r"have \[5\] samples a family, not 4"),
    ],
)
def test_scores_that_cannot_be_repeated(given: dict[str, Any] | None, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        read_scores(given)
