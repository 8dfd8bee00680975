"""Notices that a token sequence has begun to repeat itself exactly. Token ids in, a period out; it knows nothing else.

A repeat of period p is a tail t[i] == t[i - p]. For every p up to MAX_PERIOD the length of the current run of such
equalities is kept, so a token costs O(MAX_PERIOD), vectorised over many tokens, however long the sequence is.
"""

from __future__ import annotations

import numpy as np

# Longest unit that is looked for. A model that repeats more than this many tokens word for word meets its budget first.
MAX_PERIOD = 512
# Tables, rulers ("-----") and matrices of zeros repeat too, legitimately: a tail must be longer than they are.
REASONING_MIN_TOKENS = 256
REASONING_MIN_REPEATS = 4
# An answer is what the user asked for (it may *be* a long ruler): more patience than with thoughts.
ANSWER_MIN_TOKENS = 768
ANSWER_MIN_REPEATS = 6

_NO_TOKEN = -1
# Tokens that are taken into account at once.
_MAX_PENDING = 64


class RepetitionDetector:
    """Feed tokens with push(); it says when the tail repeats at least min_repeats times over min_tokens tokens.

    Runs are brought up to date for many tokens at a time; only where one of them could become long enough before the
    next time is each token looked at.
    """

    def __init__(self, *, min_tokens: int, min_repeats: int, max_period: int = MAX_PERIOD) -> None:
        self._max_period = max_period
        periods = np.arange(1, max_period + 1)
        # A run of r equalities at period p is a repeating tail of r + p tokens.
        self._min_runs = (np.maximum(min_tokens, min_repeats * periods) - periods).astype(np.int32)
        self._runs = np.zeros(max_period, dtype=np.int32)
        # The last max_period tokens that the runs know of.
        self._history = np.full(max_period, _NO_TOKEN, dtype=np.int32)
        self._pending: list[int] = []
        self._num_safe = self._tokens_until_possible()

    def push(self, token_id: int) -> int:
        """Append a token. Returns the period of the repeating tail in tokens, or 0 while there is none."""
        self._pending.append(token_id)
        if len(self._pending) < self._num_safe:
            return 0
        self._catch_up()
        self._num_safe = self._tokens_until_possible()
        is_loop = self._runs >= self._min_runs
        return int(is_loop.argmax()) + 1 if is_loop.any() else 0

    def reset(self) -> None:
        """Forget everything."""
        self._history.fill(_NO_TOKEN)
        self._runs.fill(0)
        self._pending.clear()
        self._num_safe = self._tokens_until_possible()

    def _tokens_until_possible(self) -> int:
        """After how many more tokens (at most as many as are caught up with at once) a run may be long enough."""
        return max(1, min(_MAX_PENDING, int((self._min_runs - self._runs).min())))

    def _catch_up(self) -> None:
        """Take the pending tokens into the runs."""
        count, period = len(self._pending), self._max_period
        known = np.concatenate([self._history, np.array(self._pending, np.int32)])
        # Row i: the tokens before pending token i, newest first, so that column p - 1 is the one p places before it.
        before = np.lib.stride_tricks.sliding_window_view(known[:-1], period)[:, ::-1]
        differs = before != known[period:, None]
        # A run lasts since the last difference: with none among the pending, it goes on.
        since_last = np.where(differs.any(axis=0), np.argmax(differs[::-1], axis=0), self._runs + count)
        self._runs = since_last.astype(np.int32)
        self._history = known[-period:]
        self._pending.clear()
