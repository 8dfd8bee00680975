"""Batches made ahead are the batches, errors come through, and a dead process is said to be dead."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial

import pytest
import torch

from tusi.core.errors import EngineError, RequestError
from tusi.train.prefetch import PrefetchedSource, PreparedSource


@dataclass(frozen=True)
class NumberBatch:
    values: torch.Tensor
    num_samples: int = 1
    num_targets: int = 1


class NumberSource:
    """Batch i holds i; some indices go wrong."""

    def __init__(self, offset: int) -> None:
        self._offset = offset

    def batch(self, index: int) -> NumberBatch:
        if index == 7:
            raise RequestError("sample 7 is too long; raise data.max_tokens.", param="data.max_tokens")
        if index == 9:
            os._exit(3)
        return NumberBatch(torch.tensor([index + self._offset]))


def test_batches_come_in_any_order_and_errors_come_through() -> None:
    with PrefetchedSource(partial(NumberSource, 100), num_workers=1, last=7) as source:
        for index in (0, 1, 2, 5, 3):
            assert source.batch(index).values.tolist() == [100 + index]
        with pytest.raises(RequestError, match="max_tokens"):
            source.batch(7)
        assert source.batch(8).values.tolist() == [108]
        with pytest.raises(EngineError, match="died"):
            source.batch(9)


def test_a_prepared_source_gives_each_batch_prepared_and_no_more_than_there_are() -> None:
    asked: list[int] = []

    class Counting(NumberSource):
        def batch(self, index: int) -> NumberBatch:
            asked.append(index)
            return super().batch(index)

    def doubled(batch: NumberBatch) -> NumberBatch:
        return NumberBatch(2 * batch.values)

    with PreparedSource(Counting(100), doubled, last=7) as source:
        for index in (0, 1, 2, 5, 3):
            assert source.batch(index).values.tolist() == [2 * (100 + index)]
        with pytest.raises(RequestError, match="max_tokens"):
            source.batch(7)
    assert max(asked) == 7
