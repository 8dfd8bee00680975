"""How soon a full house has a place again, judged by how the last requests left it. Reads no clock."""

from __future__ import annotations

SHORTEST, LONGEST = 1.0, 60.0
_WEIGHT = 0.2


class Pace:
    """Seconds between two departures, the last ones counting most."""

    def __init__(self) -> None:
        self._last: float | None = None
        self._interval: float | None = None

    def note_departure(self, now: float, num_places: int = 1) -> None:
        """So many places became free."""
        if self._last is not None:
            interval = (now - self._last) / num_places
            self._interval = interval if self._interval is None else (1 - _WEIGHT) * self._interval + _WEIGHT * interval
        self._last = now

    def retry_after(self, now: float) -> float:
        """When to come again, in seconds from now: within a minute, as nobody knows better."""
        if self._last is None or self._interval is None:
            return SHORTEST
        # What has not left for long will hardly leave sooner than in as long again.
        return min(max(self._interval, now - self._last, SHORTEST), LONGEST)
