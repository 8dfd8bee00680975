"""Prometheus metrics of one server: requests and tokens as it sees them, queue and blocks as the engine does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tusi.backends.protocol import Usage
from tusi.core.errors import EngineError
from tusi.engine.outputs import EngineStats

Outcome = Literal["ok", "refused", "busy", "error", "disconnected"]

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800)


class Metrics:
    """Counts of one server, in a registry of its own."""

    def __init__(self, stats: Callable[[], EngineStats] | None) -> None:
        self.registry = CollectorRegistry()
        labels = ("endpoint", "outcome")
        self._requests = Counter("tusi_requests", "Requests that ended.", labels, registry=self.registry)
        self._tokens = Counter("tusi_tokens", "Tokens of answered requests.", ("kind",), registry=self.registry)
        self._ttft = Histogram(
            "tusi_time_to_first_token_seconds", "From request to first token.", buckets=_SECONDS, registry=self.registry
        )
        self._e2e = Histogram(
            "tusi_request_seconds", "From request to last token.", buckets=_SECONDS, registry=self.registry
        )
        self.in_flight = Gauge("tusi_requests_in_flight", "Requests in the house.", registry=self.registry)
        if stats is not None:
            self.registry.register(_EngineCollector(stats))

    def record(self, endpoint: str, outcome: Outcome, usage: Usage, *, ttft: float | None, seconds: float) -> None:
        """Note the end of a request."""
        self._requests.labels(endpoint, outcome).inc()
        for kind in ("prompt", "completion", "reasoning", "cached", "image", "video"):
            self._tokens.labels(kind).inc(getattr(usage, f"{kind}_tokens"))
        if ttft is not None:
            self._ttft.observe(ttft)
        if outcome == "ok":
            self._e2e.observe(seconds)

    def text(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self.registry)


class _EngineCollector(Collector):
    """Asks the engine whenever somebody looks."""

    def __init__(self, stats: Callable[[], EngineStats]) -> None:
        self._stats = stats

    def describe(self) -> list[Metric]:
        """Nothing: asking the engine at registration would be too early."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The engine's counters; a dead engine has only its death to report."""
        try:
            stats = self._stats()
        except EngineError:
            yield GaugeMetricFamily("tusi_engine_up", "1 while the engine lives.", value=0)
            return
        yield GaugeMetricFamily("tusi_engine_up", "1 while the engine lives.", value=1)
        yield GaugeMetricFamily("tusi_requests_running", "Requests in the batch.", value=stats.num_running)
        yield GaugeMetricFamily("tusi_requests_waiting", "Requests in the queue.", value=stats.num_waiting)
        yield GaugeMetricFamily("tusi_kv_blocks", "Blocks of the KV cache.", value=stats.num_blocks)
        yield GaugeMetricFamily("tusi_kv_blocks_used", "Blocks that requests hold.", value=stats.num_used_blocks)
        yield GaugeMetricFamily("tusi_kv_blocks_cached", "Blocks kept for reuse.", value=stats.num_cached_blocks)
        yield CounterMetricFamily("tusi_preemptions", "Requests sent back to wait.", value=stats.num_preemptions)
        yield CounterMetricFamily(
            "tusi_cache_hit_tokens", "Prompt tokens found in the cache.", value=stats.num_cache_hit_tokens
        )
