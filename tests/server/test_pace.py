"""When a client who found the house full is told to come again."""

from __future__ import annotations

from tusi.server.pace import LONGEST, SHORTEST, Pace


def test_nothing_is_known_at_first() -> None:
    pace = Pace()
    assert pace.retry_after(100.0) == SHORTEST
    pace.note_departure(100.0)
    assert pace.retry_after(110.0) == SHORTEST


def test_it_follows_the_departures_within_bounds() -> None:
    pace = Pace()
    for number in range(50):
        pace.note_departure(5.0 * number)
    assert pace.retry_after(245.0) == 5.0
    assert pace.retry_after(265.0) == 20.0
    assert pace.retry_after(1e9) == LONGEST
    for number in range(100):
        pace.note_departure(245.0 + 0.01 * number)
    assert pace.retry_after(246.0) == SHORTEST


def test_several_places_at_once_count_as_several() -> None:
    pace = Pace()
    for number in range(40):
        pace.note_departure(40.0 * number, num_places=4)
    assert pace.retry_after(1560.0) == 10.0
