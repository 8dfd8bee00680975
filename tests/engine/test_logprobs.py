from __future__ import annotations

import numpy as np
import pytest

from tusi.engine.logprobs import gather_logprobs, log_softmax
from tusi.kernels.reference_sampling import top_ids


def test_log_softmax_of_large_logits_is_exact_and_adds_up_to_one() -> None:
    values = (np.random.default_rng(0).standard_normal(100_000) * 5 + 300).astype(np.float32)
    result = log_softmax(values)
    assert np.exp(result.astype(np.float64)).sum() == pytest.approx(1.0, abs=1e-5)
    assert result.argmax() == values.argmax()


@pytest.mark.parametrize("count", [0, 1, 5, 49, 50, 51, 1000])
def test_top_ids_agrees_with_a_full_sort(count: int) -> None:
    values = np.random.default_rng(1).integers(0, 12, 50).astype(np.float32)  # many ties
    expected = sorted(range(50), key=lambda i: (-values[i], i))[:count]
    assert top_ids(values, count).tolist() == expected


def test_what_cannot_be_drawn_is_not_among_the_alternatives() -> None:
    values = np.full(10, -np.inf, np.float32)
    values[[2, 8]] = [-1.0, -0.5]
    picked = gather_logprobs(values, 2, 5)
    assert picked.top_token_ids_N.tolist() == [8, 2]
    assert picked.logprob == -1.0


def test_minus_one_gives_the_whole_vocabulary_in_order_of_ids() -> None:
    values = log_softmax(np.arange(6, dtype=np.float32))
    picked = gather_logprobs(values, 3, -1)
    assert picked.top_token_ids_N.tolist() == [0, 1, 2, 3, 4, 5]
    np.testing.assert_array_equal(picked.top_logprobs_N, values)
