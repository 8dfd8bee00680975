"""The detector fires on loops of every period and leaves lists, tables and prose alone."""

from __future__ import annotations

import random

import pytest

from tusi.backends.local.repetition import (
    ANSWER_MIN_REPEATS,
    ANSWER_MIN_TOKENS,
    MAX_PERIOD,
    REASONING_MIN_REPEATS,
    REASONING_MIN_TOKENS,
    RepetitionDetector,
)


def reasoning_detector() -> RepetitionDetector:
    return RepetitionDetector(min_tokens=REASONING_MIN_TOKENS, min_repeats=REASONING_MIN_REPEATS)


def first_alarm(detector: RepetitionDetector, tokens: list[int]) -> tuple[int, int] | None:
    for position, token in enumerate(tokens):
        if period := detector.push(token):
            return position + 1, period
    return None


@pytest.mark.parametrize("period", [1, 2, 3, 17, 64, 100, 511, MAX_PERIOD])
def test_it_finds_a_loop_as_soon_as_it_is_long_enough(period: int) -> None:
    rng = random.Random(period)
    before = [rng.randrange(1000, 100_000) for _ in range(300)]
    unit = [rng.randrange(1000) * 1000 + i for i in range(period)]
    needed = max(REASONING_MIN_TOKENS, REASONING_MIN_REPEATS * period)
    alarm = first_alarm(reasoning_detector(), before + unit * (needed // period + 2))
    assert alarm == (300 + needed, period)


def test_a_period_that_is_too_long_is_left_to_the_budget() -> None:
    unit = list(range(MAX_PERIOD + 1))
    assert first_alarm(reasoning_detector(), unit * 10) is None


def test_a_numbered_list_is_no_loop() -> None:
    tokens = [token for item in range(500) for token in (7, item + 1000, 8, 9, 9, 11, 12)]
    assert first_alarm(reasoning_detector(), tokens) is None


def test_a_markdown_table_with_rulers_and_equal_rows_is_no_loop() -> None:
    ruler, row, line = [5, 6] * 30, [3, 4, 3, 4, 3, 4, 3], [9]
    table = ruler + line + (row + line) * 20 + ruler + line
    assert first_alarm(reasoning_detector(), table * 2) is None


def test_an_answer_may_hold_a_matrix_of_zeros() -> None:
    matrix = ([1, 2] * 15 + [3]) * 24
    detector = RepetitionDetector(min_tokens=ANSWER_MIN_TOKENS, min_repeats=ANSWER_MIN_REPEATS)
    assert first_alarm(detector, matrix) is None
    assert first_alarm(detector, matrix * 2) is not None


def test_a_broken_loop_starts_again_from_nothing() -> None:
    detector = reasoning_detector()
    assert first_alarm(detector, [1, 2] * 127) is None
    assert first_alarm(detector, [99]) is None
    assert first_alarm(detector, [1, 2] * 127) is None


def test_reset_forgets() -> None:
    detector = reasoning_detector()
    assert first_alarm(detector, [4] * (REASONING_MIN_TOKENS - 1)) is None
    detector.reset()
    assert first_alarm(detector, [4] * (REASONING_MIN_TOKENS - 1)) is None
    assert detector.push(4) == 1


class SlowDetector:
    """The definition, token by token: the run of equalities at each period."""

    def __init__(self, min_tokens: int, min_repeats: int, max_period: int) -> None:
        self.tokens: list[int] = []
        self.runs = [0] * (max_period + 1)
        self.min_runs = [max(min_tokens, min_repeats * p) - p for p in range(max_period + 1)]

    def push(self, token: int) -> int:
        self.tokens.append(token)
        last = len(self.tokens) - 1
        for p in range(1, len(self.runs)):
            self.runs[p] = self.runs[p] + 1 if last >= p and self.tokens[last - p] == token else 0
        return next((p for p in range(1, len(self.runs)) if self.runs[p] >= self.min_runs[p]), 0)


@pytest.mark.parametrize("seed", range(6))
def test_many_tokens_at_a_time_are_as_good_as_one(seed: int) -> None:
    rng = random.Random(seed)
    fast = RepetitionDetector(min_tokens=40, min_repeats=3, max_period=20)
    slow = SlowDetector(40, 3, 20)
    tokens: list[int] = []
    while len(tokens) < 1500:
        unit = [rng.randrange(3) for _ in range(rng.randint(1, 24))]
        tokens += unit * rng.choice([1, 1, 2, rng.randint(2, 40)])
    assert [fast.push(t) for t in tokens] == [slow.push(t) for t in tokens]
    assert any(slow.runs), "the texts do repeat"
