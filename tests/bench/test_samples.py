from __future__ import annotations

import pytest

from tusi.bench.ceilings import Beside, Peaks
from tusi.bench.samples import Samples


def test_middle_and_spread() -> None:
    samples = Samples.of([3.0, 1.0, 10.0])
    assert (samples.median, samples.low, samples.high) == (3.0, 1.0, 10.0)
    assert samples.as_json() == {"median": 3.0, "low": 1.0, "high": 10.0, "values": [3.0, 1.0, 10.0]}
    with pytest.raises(ValueError, match="at least one"):
        Samples.of([])


def test_the_bandwidth_beside_a_run_is_the_mean_of_before_and_after() -> None:
    looks = iter([40.0, 60.0, 70.0, 70.0])
    beside = Beside(lambda: next(looks))
    for _ in range(2):
        with beside.run():
            pass
    assert beside.rates == [50.0, 70.0]


def test_least_seconds_add_up_over_units_and_are_unknown_without_one() -> None:
    peaks = Peaks(by_unit={"int8": Samples.of([1000.0]), "fp32": Samples.of([100.0])})
    assert peaks.seconds({"int8": 2e12, "fp32": 1e11}) == pytest.approx(3.0)
    assert peaks.seconds({"int8": 2e12, "bf16": 1.0}) is None
