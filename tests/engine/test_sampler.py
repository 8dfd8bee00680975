from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine import slow_sampler
from tusi.core.errors import EngineError
from tusi.engine.sampler import SampledToken, SamplingRow, adjust_logits, random_key, sample_batch, truncate_logits
from tusi.engine.sampler import sample as sample_one
from tusi.engine.sampling_params import SamplingParams
from tusi.kernels.reference_sampling import draw


def sample(logits_RV: np.ndarray, rows: list[SamplingRow]) -> list[SampledToken]:
    return [sample_one(logits_V, one) for logits_V, one in zip(logits_RV, rows, strict=True)]


VOCAB = 40


def row(params: SamplingParams, **overrides: object) -> SamplingRow:
    values = {"prompt_token_ids": (1, 2, 3), "output_token_ids": [], "stop_token_ids": (2,), "key": random_key(0)}
    return SamplingRow(params=params, **{**values, **overrides})  # type: ignore[arg-type]


def logits(seed: int = 0, vocab: int = VOCAB) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(vocab) * 3).astype(np.float32)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    temperature=st.sampled_from([0.0, 0.3, 1.0, 2.5]),
    top_k=st.sampled_from([0, -1, 1, 3, 25, 200]),
    top_p=st.sampled_from([1.0, 0.95, 0.5, 0.01]),
    min_p=st.sampled_from([0.0, 0.05, 0.5, 1.0]),
    penalties=st.sampled_from([(1.0, 0.0, 0.0), (1.3, 0.0, 0.0), (0.7, 0.5, -0.5), (1.0, -2.0, 1.5)]),
    output=st.lists(st.integers(0, VOCAB - 1), max_size=6),
    min_tokens=st.sampled_from([0, 4]),
    mask=st.sampled_from([None, b"\xff\x0f\x00\xf0\x01", b"\x04", b"\xff\xff\xff\xff\xff\xff"]),
)
def test_the_sampler_agrees_with_its_slow_twin(
    seed: int,
    temperature: float,
    top_k: int,
    top_p: float,
    min_p: float,
    penalties: tuple[float, float, float],
    output: list[int],
    min_tokens: int,
    mask: bytes | None,
) -> None:
    params = SamplingParams(
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repetition_penalty=penalties[0],
        presence_penalty=penalties[1],
        frequency_penalty=penalties[2],
        min_tokens=min_tokens,
        logit_bias={5: 2.5, 7: -3.0},
    )
    one = row(params, output_token_ids=output, allowed_mask=mask)
    values = logits(seed)
    expected = np.array(slow_sampler.processed_probabilities([float(v) for v in values], one))
    if temperature == 0:
        (token,) = sample(values[None], [one])
        assert expected[token.token_id] == 1.0
        return
    processed = truncate_logits(adjust_logits(values, one), params)
    actual = np.exp(processed.astype(np.float64))
    np.testing.assert_allclose(actual / actual.sum(), expected, atol=1e-5)


def test_greedy_takes_the_lowest_id_among_equals() -> None:
    values = np.zeros((1, VOCAB), np.float32)
    values[0, [7, 9, 30]] = 1.0
    (token,) = sample(values, [row(SamplingParams(temperature=0.0))])
    assert token.token_id == 7


@pytest.mark.parametrize("temperature", [1e-30, 1e-6, 1e-4, 1e4])
def test_extreme_temperatures_do_not_overflow(temperature: float) -> None:
    values = logits() * 30
    (token,) = sample(values[None], [row(SamplingParams(temperature=temperature, logprobs=0))])
    assert token.logprobs is not None
    assert math.isfinite(token.logprobs.logprob)
    if temperature < 1:
        assert token.token_id == int(values.argmax())


@pytest.mark.parametrize("top_p", [0.001, 0.3, 0.9, 0.999, 1 - 1e-9])
@pytest.mark.parametrize("spread", [0.01, 1.0, 6.0])
def test_top_p_over_a_long_vocabulary_agrees_with_a_full_sort(top_p: float, spread: float) -> None:
    values = (np.random.default_rng(3).standard_normal(20_000) * spread).astype(np.float32)
    kept = np.isfinite(truncate_logits(values, SamplingParams(top_p=top_p))).sum()
    weights = np.sort(np.exp(values.astype(np.float64)))[::-1]
    expected = np.searchsorted(np.cumsum(weights), top_p * weights.sum()) + 1
    assert abs(int(kept) - int(expected)) <= max(2, 0.001 * expected)


def test_top_p_of_equals_takes_as_many_as_it_needs() -> None:
    values = np.zeros(5000, np.float32)
    kept = np.isfinite(truncate_logits(values, SamplingParams(top_p=0.5))).sum()
    assert 2499 <= kept <= 2501


def test_top_k_keeps_exactly_k_of_equals_lowest_ids_first() -> None:
    kept = truncate_logits(np.zeros(VOCAB, np.float32), SamplingParams(top_k=3))
    assert np.flatnonzero(np.isfinite(kept)).tolist() == [0, 1, 2]


def test_draws_follow_the_distribution() -> None:
    values = logits(4, 12)
    params = SamplingParams(temperature=1.5, top_k=9)
    one = row(params, prompt_token_ids=())
    expected = np.array(slow_sampler.processed_probabilities([float(v) for v in values], one))
    processed, key, n = truncate_logits(values, params), random_key(7), 6000
    counts = np.bincount([draw(processed, key, i) for i in range(n)], minlength=12)
    assert counts[expected == 0].sum() == 0
    live = expected > 0
    chi_square = ((counts[live] - n * expected[live]) ** 2 / (n * expected[live])).sum()
    assert chi_square < 26.1, "8 degrees of freedom: this is the 0.1 % point, and the seed is fixed"


def test_draws_at_different_indices_and_of_different_seeds_are_unrelated() -> None:
    flat = np.zeros(1000, np.float32)
    streams = np.array([[draw(flat, random_key(seed), i) for i in range(200)] for seed in (1, 2, -1, 1 << 100)])
    assert len({tuple(s) for s in streams}) == 4
    correlations = np.corrcoef(streams)[np.triu_indices(4, 1)]
    assert np.abs(correlations).max() < 0.25
    assert abs(np.corrcoef(streams[0][:-1], streams[0][1:])[0, 1]) < 0.25


def test_a_draw_does_not_depend_on_batch_mates() -> None:
    matrix = np.stack([logits(i) for i in range(5)])
    rows = [row(SamplingParams(), key=random_key(i), output_token_ids=[4] * i) for i in range(5)]
    together = [t.token_id for t in sample(matrix, rows)]
    alone = [sample(matrix[i : i + 1], rows[i : i + 1])[0].token_id for i in range(5)]
    backwards = [t.token_id for t in sample(matrix[::-1], rows[::-1])][::-1]
    assert together == alone == backwards


def test_a_batch_is_its_rows_one_by_one_whatever_they_ask_for() -> None:
    """Plain rows, which are drawn together, beside those that are not; and one that fails alone."""
    matrix = np.stack([logits(i) for i in range(9)])
    matrix[4, 3] = np.nan
    params = [
        SamplingParams(temperature=0.0),
        SamplingParams(temperature=0.7, top_p=0.9),
        SamplingParams(temperature=0.0, repetition_penalty=1.5),
        SamplingParams(temperature=1.3, top_k=5, min_p=0.01),
        SamplingParams(temperature=0.0),
        SamplingParams(temperature=1.0, logprobs=2),
        SamplingParams(temperature=0.0, min_tokens=3),
        SamplingParams(temperature=0.5, logit_bias={4: 2.0}),
        SamplingParams(temperature=2.0),
    ]
    rows = [row(p, key=random_key(i), output_token_ids=[i] * i) for i, p in enumerate(params)]
    rows[8] = row(params[8], forced_token_id=13)
    together = sample_batch(matrix, rows)
    assert isinstance(together[4], EngineError)
    assert "Check the checkpoint" in str(together[4])
    for at in (0, 1, 2, 3, 5, 6, 7, 8):
        one = together[at]
        assert isinstance(one, SampledToken)
        assert one.token_id == sample_one(matrix[at], rows[at]).token_id
        (again,) = sample_batch(matrix[at : at + 1], [rows[at]])
        assert isinstance(again, SampledToken)
        assert again.token_id == one.token_id
    assert together[8].token_id == 13  # type: ignore[union-attr]


def test_asking_for_logprobs_does_not_change_the_draws() -> None:
    values = np.stack([logits(i, 300) for i in range(200)])

    def drawn(**more: object) -> list[int]:
        params = SamplingParams(temperature=0.9, top_p=0.8, top_k=30, **more)  # type: ignore[arg-type]
        rows = [row(params, key=random_key(5), output_token_ids=[1] * i) for i in range(200)]
        return [token.token_id for token in sample_batch(values, rows) if isinstance(token, SampledToken)]

    assert drawn() == drawn(logprobs=1) == drawn(logprobs=1, logprobs_mode="processed_logprobs")


def test_a_bias_beyond_all_numbers_is_an_engine_error() -> None:
    with np.errstate(over="ignore"), pytest.raises(EngineError, match="NaN or inf"):
        sample(logits()[None], [row(SamplingParams(logit_bias={1: 1e39}))])


def test_a_draw_never_takes_what_was_cut_off_even_at_the_ends() -> None:
    values = np.full(VOCAB, -np.inf, np.float32)
    values[[3, 20]] = 0.0
    assert {draw(values, random_key(1), i) for i in range(200)} == {3, 20}


def test_sampling_leaves_the_logits_as_they_were() -> None:
    values = logits()[None]
    before = values.copy()
    sample(values, [row(SamplingParams(top_k=2, logit_bias={1: 5.0}, repetition_penalty=2.0), allowed_mask=b"\xff")])
    np.testing.assert_array_equal(values, before)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_logits_that_are_no_numbers_are_an_engine_error(bad: float, temperature: float) -> None:
    values = logits()[None]
    values[0, 11] = bad
    with pytest.raises(EngineError, match="Check the checkpoint"):
        sample(values, [row(SamplingParams(temperature=temperature))])


def test_a_grammar_that_allows_nothing_is_an_engine_error() -> None:
    with pytest.raises(EngineError, match="allows no token"):
        sample(logits()[None], [row(SamplingParams(), allowed_mask=bytes(5))])


def test_a_forced_token_comes_whatever_the_logits_say_with_its_logprob() -> None:
    values = logits()
    worst = int(values.argmin())
    (token,) = sample(values[None], [row(SamplingParams(logprobs=1, top_k=1), forced_token_id=worst)])
    assert token.token_id == worst
    assert token.logprobs is not None
    expected = math.log(slow_sampler.softmax([float(v) for v in values])[worst])
    assert token.logprobs.logprob == pytest.approx(expected, abs=1e-5)


def test_the_three_kinds_of_logprobs() -> None:
    values = logits()
    as_floats = [float(v) for v in values]
    common = {"temperature": 0.5, "top_k": 4, "logit_bias": {3: 1.0}, "logprobs": -1}

    def full(mode: str) -> np.ndarray:
        params = SamplingParams(logprobs_mode=mode, **common)  # type: ignore[arg-type]
        (token,) = sample(values[None], [row(params)])
        assert token.logprobs is not None
        assert token.logprobs.logprob == token.logprobs.top_logprobs_N[token.token_id]
        return np.exp(token.logprobs.top_logprobs_N.astype(np.float64))

    np.testing.assert_allclose(full("raw_logprobs"), slow_sampler.softmax(as_floats), atol=1e-6)
    np.testing.assert_allclose(
        full("temperature_logprobs"), slow_sampler.softmax([v / 0.5 for v in as_floats]), atol=1e-6
    )
    expected = slow_sampler.processed_probabilities(as_floats, row(SamplingParams(**common)))  # type: ignore[arg-type]
    np.testing.assert_allclose(full("processed_logprobs"), expected, atol=1e-6)
    assert (full("processed_logprobs") > 0).sum() == 4


def test_greedy_logprobs_after_temperature_are_the_raw_ones() -> None:
    values = logits()[None]
    params = [
        SamplingParams(temperature=0.0, logprobs=0, logprobs_mode=m) for m in ("raw_logprobs", "temperature_logprobs")
    ]
    raw, scaled = (sample(values, [row(p)])[0].logprobs for p in params)
    assert raw is not None
    assert scaled is not None
    assert raw.logprob == scaled.logprob
