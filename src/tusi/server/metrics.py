"""Prometheus metrics of one server: requests and tokens as it sees them, queue and blocks as the engines do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tusi.backends.protocol import Usage
from tusi.backends.replicas.backend import ReplicaStatus
from tusi.core.machine import process_memory
from tusi.engine.outputs import EngineStats
from tusi.server.facts import ModelFacts

Outcome = Literal["ok", "refused", "busy", "error", "disconnected"]

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800)


class Metrics:
    """Counts of one server, in a registry of its own."""

    def __init__(self, facts: ModelFacts) -> None:
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
        self.registry.register(_EngineCollector(facts))

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
    """Asks the engines whenever somebody looks. Only those that are replicas are told apart by a label."""

    def __init__(self, facts: ModelFacts) -> None:
        self._facts = facts
        self._labels = () if facts.replicas is None else ("replica",)

    def describe(self) -> list[Metric]:
        """Nothing: asking the engines at registration would be too early."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Memory, and the engines' counters; a dead engine has only its death to report."""
        yield from _memory()
        if self._facts.stats is not None:
            yield from self._engines(self._facts.stats())
        if self._facts.replicas is not None:
            yield from self._replicas(self._facts.replicas())

    def _engines(self, all_stats: Mapping[int, EngineStats | None]) -> Iterator[Metric]:
        up = GaugeMetricFamily("tusi_engine_up", "1 while the engine lives.", labels=self._labels)
        for index, stats in all_stats.items():
            up.add_metric(self._values(index), stats is not None)
        yield up
        for kind, name, text, field in _ENGINE_METRICS:
            family = kind(name, text, labels=self._labels)
            for index, stats in all_stats.items():
                if stats is not None:
                    family.add_metric(self._values(index), getattr(stats, field))
            yield family

    def _replicas(self, replicas: Sequence[ReplicaStatus]) -> Iterator[Metric]:
        load = GaugeMetricFamily("tusi_replica_load", "Completions that it owes.", labels=self._labels)
        restarts = CounterMetricFamily("tusi_replica_restarts", "Times it was started again.", labels=self._labels)
        for replica in replicas:
            load.add_metric(self._values(replica.index), replica.load)
            restarts.add_metric(self._values(replica.index), replica.num_restarts)
        yield load
        yield restarts

    def _values(self, index: int) -> tuple[str, ...]:
        return (str(index),) if self._labels else ()


def _memory() -> Iterator[Metric]:
    """Of this process; replicas are processes of their own."""
    seen = process_memory()
    if seen.resident is not None:
        yield GaugeMetricFamily("tusi_memory_resident_bytes", "Memory of the server's process.", seen.resident)
    if seen.peak is not None:
        yield GaugeMetricFamily("tusi_memory_peak_bytes", "Its memory at most since it began.", seen.peak)


_ENGINE_METRICS: tuple[tuple[type[GaugeMetricFamily | CounterMetricFamily], str, str, str], ...] = (
    (GaugeMetricFamily, "tusi_requests_running", "Requests in the batch.", "num_running"),
    (GaugeMetricFamily, "tusi_requests_waiting", "Requests in the queue.", "num_waiting"),
    (GaugeMetricFamily, "tusi_kv_blocks", "Blocks of the KV cache.", "num_blocks"),
    (GaugeMetricFamily, "tusi_kv_blocks_used", "Blocks that requests hold.", "num_used_blocks"),
    (GaugeMetricFamily, "tusi_kv_blocks_cached", "Blocks kept for reuse.", "num_cached_blocks"),
    (CounterMetricFamily, "tusi_preemptions", "Requests sent back to wait.", "num_preemptions"),
    (CounterMetricFamily, "tusi_cache_hit_tokens", "Prompt tokens found in the cache.", "num_cache_hit_tokens"),
)
