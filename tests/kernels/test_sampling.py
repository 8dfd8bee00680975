"""Likeliest tokens and random draws against their twins, on every instruction set."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from tests.kernels.helpers import assert_refuses_bad_arrays, each_isa, normal
from tusi import kernels
from tusi.kernels import reference_sampling

VOCABULARIES = [1, 2, 15, 16, 17, 63, 64, 65, 130, 1000, 5003]
each_vocabulary = pytest.mark.parametrize("vocab", VOCABULARIES)


def parameters(draws: int, rows: int, *, seed: int = 0, **given: float) -> dict[str, Any]:
    """Of many draws, one after the other from each row; what is not given differs from draw to draw."""
    rng = np.random.default_rng(seed)

    def column(name: str, choices: list[float], dtype: type) -> np.ndarray:
        return np.full(draws, given[name], dtype) if name in given else rng.choice(choices, draws).astype(dtype)

    return {
        "row_ids_N": np.arange(draws) % rows,
        "temperature_N": column("temperature", [1e-4, 0.3, 1.0, 2.5], np.float32),
        "log_min_p_N": column("log_min_p", [-math.inf, math.log(0.05), -0.5], np.float32),
        "top_k_N": column("top_k", [0, 1, 3, 40, 100_000], np.int64),
        "top_p_N": column("top_p", [1.0, 0.95, 0.5, 0.01], np.float64),
        "keys_N2": rng.integers(-(1 << 63), 1 << 63, (draws, 2), np.int64),
        "index_N": rng.integers(0, 1 << 40, draws),
        "must_be_finite": True,
    }


def one_draw(given: dict[str, Any], n: int) -> dict[str, Any]:
    return {name: value[n : n + 1] if isinstance(value, np.ndarray) else value for name, value in given.items()}


def assert_is_near_the_draw(logits_V: np.ndarray, given: dict[str, Any], n: int, found: int) -> None:
    """The random number lies where `found` is drawn, give or take the rounding of the sums before it."""
    kept_V = reference_sampling.truncate_logits(
        logits_V,
        temperature=float(given["temperature_N"][n]),
        log_min_p=float(given["log_min_p_N"][n]),
        top_k=int(given["top_k_N"][n]),
        top_p=float(given["top_p_N"][n]),
    )
    weights = np.exp(kept_V.astype(np.float64))
    ends = np.cumsum(weights) / weights.sum()
    low, high = given["keys_N2"][n].view(np.uint64)
    uniform = reference_sampling.uniform(int(low) | int(high) << 64, int(given["index_N"][n]))
    assert ends[found] - weights[found] / weights.sum() - 1e-6 <= uniform <= ends[found] + 1e-6


@each_isa
@each_vocabulary
def test_the_likeliest_is_the_first_of_the_largest(vocab: int, isa: str) -> None:
    logits_RV = np.round(normal(9, vocab) * 2)
    logits_RV[8] = 1.5
    expected = reference_sampling.argmax_rows(logits_RV)
    np.testing.assert_array_equal(kernels.argmax_rows(logits_RV, isa=isa), expected)
    assert expected[8] == 0


@each_isa
@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("at", [0, 15, 16, 63, 64, 99])
def test_a_row_with_a_number_that_is_none_gives_no_token(bad: float, at: int, isa: str) -> None:
    logits_RV = normal(3, 100)
    logits_RV[1, at] = bad
    given = parameters(3, 3, top_k=0)
    for ids in (kernels.argmax_rows(logits_RV, isa=isa), kernels.draw_rows(logits_RV, **given, isa=isa)):
        assert ids[1] == -1
        assert (ids[[0, 2]] >= 0).all(), "the rows beside it are not affected"
    loose = {**given, "must_be_finite": False}
    assert (kernels.draw_rows(logits_RV, **loose, isa=isa)[1] == -1) == (bad != -np.inf)


@each_isa
@each_vocabulary
@pytest.mark.parametrize("spread", [0.01, 1.0, 8.0])
def test_draws_agree_with_their_twin(vocab: int, spread: float, isa: str) -> None:
    logits_RV = normal(7, vocab, scale=spread)
    given = parameters(300, 7)
    found, expected = kernels.draw_rows(logits_RV, **given, isa=isa), reference_sampling.draw_rows(logits_RV, **given)
    differ = np.flatnonzero(found != expected)
    assert len(differ) <= 3
    for n in differ:
        assert_is_near_the_draw(logits_RV[given["row_ids_N"][n]], given, n, int(found[n]))


@each_isa
@pytest.mark.parametrize("limits", [{"top_k": 5}, {"top_p": 0.5}, {"top_k": 70, "top_p": 0.3}, {"log_min_p": -1.0}])
def test_of_equals_the_lowest_ids_are_kept(limits: dict[str, float], isa: str) -> None:
    """Logits of three values only, so that every cut goes through a set of equals."""
    logits_RV = np.random.default_rng(0).choice([0.0, -1.0, -2.0], (4, 333), p=[0.02, 0.3, 0.68]).astype(np.float32)
    given = parameters(2000, 4, **{"temperature": 1.0, "log_min_p": -math.inf, "top_k": 0, "top_p": 1.0, **limits})
    found, expected = kernels.draw_rows(logits_RV, **given, isa=isa), reference_sampling.draw_rows(logits_RV, **given)
    for row in range(4):
        assert set(found[row::4]) == set(expected[row::4])
    assert (found != expected).mean() < 0.002


@each_isa
def test_banned_tokens_are_never_drawn(isa: str) -> None:
    logits_RV = np.full((1, 200), -np.inf, np.float32)
    logits_RV[0, [3, 20, 199]] = 0.0
    given = {**parameters(300, 1, temperature=1.0, log_min_p=-math.inf, top_k=0, top_p=1.0), "must_be_finite": False}
    assert set(kernels.draw_rows(logits_RV, **given, isa=isa)) == {3, 20, 199}
    logits_RV[:] = -np.inf
    assert set(kernels.draw_rows(logits_RV, **given, isa=isa)) == {-1}


@each_isa
def test_a_draw_depends_on_its_own_row_and_parameters_only(isa: str) -> None:
    # Long enough to be split over threads.
    logits_RV = normal(12, 9000, scale=3.0)
    given = parameters(60, 12)
    together = kernels.draw_rows(logits_RV, **given, isa=isa)
    for n in range(60):
        one = one_draw(given, n)
        alone = kernels.draw_rows(logits_RV[one["row_ids_N"]], **{**one, "row_ids_N": np.zeros(1, np.int64)}, isa=isa)
        assert alone[0] == together[n]


def test_numbers_of_a_stream_are_numpys() -> None:
    """Over 2^20 equal tokens the id drawn is the random number's first 20 bits."""
    flat_RV = np.zeros((1, 1 << 20), np.float32)
    given = parameters(40, 1, temperature=1.0, log_min_p=-math.inf, top_k=0, top_p=1.0)
    keys = given["keys_N2"].view(np.uint64).tolist()
    expected = [
        int(reference_sampling.uniform(low | high << 64, index) * (1 << 20))
        for (low, high), index in zip(keys, given["index_N"].tolist(), strict=True)
    ]
    assert kernels.draw_rows(flat_RV, **given).tolist() == expected


def test_it_refuses_wrong_arrays() -> None:
    logits_RV = normal(4, 50)
    assert_refuses_bad_arrays(kernels.argmax_rows, {"logits_RV": logits_RV})
    given = {"logits_RV": logits_RV, **parameters(4, 4)}
    top_p_N = given.pop("top_p_N")
    assert_refuses_bad_arrays(lambda **arrays: kernels.draw_rows(**arrays, top_p_N=top_p_N), given)
    with pytest.raises(TypeError, match="top_p_N is float32"):
        kernels.draw_rows(**given, top_p_N=top_p_N.astype(np.float32))
    with pytest.raises(ValueError, match="no columns"):
        kernels.argmax_rows(np.zeros((2, 0), np.float32))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("row_ids_N", 4, "row_ids_N.1. is 4"),
        ("row_ids_N", -1, "row_ids_N.1. is -1"),
        ("temperature_N", 0.0, "argmax_rows"),
        ("temperature_N", np.nan, "more than 0"),
        ("log_min_p_N", 0.1, "0 or less"),
        ("top_k_N", -1, "0 or more"),
        ("top_p_N", 0.0, "over 0"),
        ("top_p_N", 1.01, "at most 1"),
        ("top_p_N", np.nan, "at most 1"),
    ],
)
def test_it_refuses_wrong_values(name: str, value: float, message: str) -> None:
    given = parameters(4, 4)
    given[name] = given[name].copy()
    given[name][1] = value
    with pytest.raises(ValueError, match=message):
        kernels.draw_rows(normal(4, 50), **given)
