"""Figures of known distributions, and what cannot be compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from tusi.chat.messages import Message
from tusi.core.errors import ConfigError
from tusi.evals.drift import F32, DriftReport, ForcedTrace, Scorer, compare_traces, measure_drift
from tusi.evals.world import world_tasks

V = 5


def trace(logits_NV: F32, ids: Sequence[int] = (1, 2, 3), targets: Sequence[int] | None = None) -> ForcedTrace:
    targets_N = np.array(range(len(logits_NV)) if targets is None else targets) % V
    return ForcedTrace(input_ids=ids, targets_N=targets_N, logits=lambda rows: logits_NV[rows])


def scorer(seed: int, noise: float, seen: list[tuple[Sequence[Message], Any]] | None = None) -> Scorer:
    """Logits that depend on the conversation alone, plus noise of this scorer's own."""
    own = np.random.default_rng(seed)

    def score(messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> ForcedTrace:
        if seen is not None:
            seen.append((messages, tools))
        text = "".join(message.text for message in messages)
        base = np.random.default_rng(len(text)).standard_normal((150, V))
        return trace((base + noise * own.standard_normal(base.shape)).astype(np.float32))

    return score


def test_figures_of_known_distributions() -> None:
    p_NV = np.array([[0.5, 0.25, 0.125, 0.0625, 0.0625], [0.2, 0.2, 0.2, 0.2, 0.2]])
    q_NV = np.array([[0.25, 0.5, 0.125, 0.0625, 0.0625], [0.2, 0.2, 0.2, 0.2, 0.2]])
    shift = np.array([[3.0], [-40.0]])  # of no consequence to a softmax
    found = compare_traces(
        trace((np.log(p_NV) + shift).astype(np.float32), targets=[1, 4]),
        trace(np.log(q_NV).astype(np.float32), targets=[1, 4]),
    )
    assert found.agrees_N.tolist() == [False, True]
    np.testing.assert_allclose(found.kl_N, [0.25 * np.log(2), 0], atol=1e-6)
    np.testing.assert_allclose(found.logprob_N, np.log([0.25, 0.2]), atol=1e-6)
    np.testing.assert_allclose(found.other_logprob_N, np.log([0.5, 0.2]), atol=1e-6)


def test_a_model_does_not_drift_from_itself_and_noise_shows() -> None:
    tasks = world_tasks(families=["stem", "zoom"], samples=4)
    same = measure_drift(scorer(0, 0.0), scorer(1, 0.0), tasks)
    assert list(same.families) == ["stem", "zoom", "all"]
    assert all((cell.agreement, cell.kl, cell.kl_max) == (1.0, 0.0, 0.0) for cell in same.families.values())
    little, much = (measure_drift(scorer(0, 0.0), scorer(1, noise), tasks).families["all"] for noise in (0.05, 1.0))
    assert 1.0 > little.agreement > much.agreement
    assert 0.0 < little.kl < much.kl < much.kl_p99 <= much.kl_max
    assert little.samples == 8
    assert little.tokens == 8 * 150
    assert little.logprob == much.logprob


def test_both_read_the_whole_trace_of_the_expert() -> None:
    seen: list[tuple[Sequence[Message], Any]] = []
    done = []
    (task,) = world_tasks(families=["zoom"], samples=2)
    measure_drift(scorer(0, 0.0, seen), scorer(0, 0.0, seen), [task], on_sample=lambda: done.append(1))
    assert len(done) == 2
    assert len(seen) == 4
    messages, tools = seen[0]
    assert [message.role for message in messages][:2] == ["user", "assistant"]
    assert [message.text for message in messages[1:]] == [message.text for message in task[0].trace]
    # One model reads everything before the other begins.
    texts = [[message.text for message in entry[0]] for entry in seen]
    assert texts[:2] == texts[2:]
    assert texts[0] != texts[1]
    assert [tool["function"]["name"] for tool in tools] == ["image_zoom_in_tool"]


def test_what_cannot_be_compared_is_refused() -> None:
    logits = np.zeros((3, V), np.float32)
    with pytest.raises(ConfigError, match=r"as different tokens \(3 and 4\).* Give two models with one tokenizer"):
        compare_traces(trace(logits), trace(logits, ids=(1, 2, 3, 4)))
    with pytest.raises(ConfigError, match=r"have 5 and 6 tokens in their vocabularies.* Give two models"):
        compare_traces(trace(logits), trace(np.zeros((3, 6), np.float32)))


def test_the_report_is_a_table_and_json() -> None:
    report = measure_drift(scorer(0, 0.0), scorer(1, 0.1), world_tasks(families=["stem"], samples=3))
    assert isinstance(report, DriftReport)
    lines = report.as_markdown().splitlines()
    assert len(lines) == 3  # one family: no line for all
    assert lines[2].startswith("| stem | 3 | 450 | ")
    assert report.as_json()["stem"]["tokens"] == 450
