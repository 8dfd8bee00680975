"""Prefill and decoding through the engine: rates, and the share of what the machine could do.

The engine is the one that serves requests, driven step by step in this thread. Prompts are random tokens, the prefix
cache is off, nothing ends by itself.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import fmean, median
from typing import Any

import numpy as np

from tusi.bench.ceilings import Beside, Peaks
from tusi.bench.samples import Samples
from tusi.bench.watched import WatchedModel
from tusi.bench.work import prefill_macs, step_bytes
from tusi.core.errors import EngineError
from tusi.engine.core import EngineCore
from tusi.engine.request import Request
from tusi.engine.sampling_params import SamplingParams
from tusi.models.memory_estimate import kv_cache_bytes_per_token

DECODE_PROMPT_TOKENS = 16
_COUNTED_STEPS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class TextResult:
    """One line of the report. rate: tokens a second, all sequences together. bandwidth: GB/s beside each round.

    mfu, mbu: shares of the arithmetic peak and of that bandwidth (None where it does not apply or cannot be told).
    mbu is that of a round's median step, as a look at the bandwidth tells the median of its reads: what the host takes
    away now and then counts in the rate alone.
    bytes_per_step: what a decoding step reads at least. experts_per_layer: distinct ones a step read, mean.
    """

    name: str
    rate: Samples
    bandwidth: Samples
    mfu: Samples | None = None
    mbu: Samples | None = None
    bytes_per_step: float | None = None
    experts_per_layer: float | None = None

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "tokens_per_second": self.rate.as_json(),
            "bandwidth_gb_per_second": self.bandwidth.as_json(),
            "mfu": self.mfu.as_json() if self.mfu else None,
            "mbu": self.mbu.as_json() if self.mbu else None,
            "bytes_per_step": self.bytes_per_step,
            "experts_per_layer": self.experts_per_layer,
        }


@dataclass(slots=True)
class TextBench:
    """Measures one engine over one watched model."""

    core: EngineCore
    model: WatchedModel
    peaks: Peaks
    rounds: int
    _rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))
    _count: int = 0

    def prefill(self, tokens: int) -> TextResult:
        """A prompt of `tokens` to its first token."""
        self._first_token_seconds(tokens)
        beside = Beside()
        seconds = []
        for _ in range(self.rounds):
            with beside.run():
                seconds.append(self._first_token_seconds(tokens))
        floor = self.peaks.seconds(prefill_macs(self.model.inner, tokens))
        return TextResult(
            name=f"prefill {tokens} tokens",
            rate=Samples.of([tokens / s for s in seconds]),
            bandwidth=Samples.of(beside.rates),
            mfu=None if floor is None else Samples.of([floor / s for s in seconds]),
        )

    def decode(self, sequences: int, tokens: int, beside: Beside | None = None) -> TextResult:
        """`sequences` decoding together, `tokens` each."""
        experts = self._count_experts(sequences)
        context = sequences * (DECODE_PROMPT_TOKENS + tokens / 2)
        read = step_bytes(
            self.model.inner,
            experts,
            context_tokens=context,
            kv_bytes_per_token=kv_cache_bytes_per_token(self.model.config, self.core.config.kv_cache_format),
        )
        beside = beside or Beside()
        rounds = []
        for _ in range(self.rounds):
            self._start(sequences, tokens)
            with beside.run():
                rounds.append(self._steps(tokens))
            self._finish()
        return TextResult(
            name=f"decode {sequences} sequence{'s' if sequences > 1 else ''}",
            rate=Samples.of([sequences / fmean(steps) for steps in rounds]),
            bandwidth=Samples.of(beside.rates),
            mbu=Samples.of(
                [read / median(steps) / (rate * 1e9) for steps, rate in zip(rounds, beside.rates, strict=True)]
            ),
            bytes_per_step=read,
            experts_per_layer=fmean(experts.values()) if experts else None,
        )

    def _count_experts(self, sequences: int) -> dict[int, float]:
        """Distinct text experts of each layer, mean over some steps; warms up as well."""
        self._start(sequences, _COUNTED_STEPS)
        self.model.experts_by_step.clear()
        self.model.counts_experts = True
        self._steps(_COUNTED_STEPS)
        self.model.counts_experts = False
        self._finish()
        steps = self.model.experts_by_step
        return {layer: fmean(step[layer] for step in steps) for layer in steps[0]}

    def _first_token_seconds(self, tokens: int) -> float:
        request = self._request(tokens, max_tokens=1)
        begin = time.perf_counter()
        self.core.add_request(request)
        run_until_first_token(self.core)
        return time.perf_counter() - begin

    def _start(self, sequences: int, tokens: int) -> None:
        """Bring requests to the point where each step draws a token of every one."""
        for _ in range(sequences):
            self.core.add_request(self._request(DECODE_PROMPT_TOKENS, max_tokens=tokens + 8))
        started: set[str] = set()
        while len(started) < sequences:
            started.update(checked_step(self.core))

    def _steps(self, count: int) -> list[float]:
        """Seconds of each of `count` steps, one behind the other."""
        ends = [time.perf_counter()]
        for _ in range(count):
            checked_step(self.core)
            ends.append(time.perf_counter())
        return [end - begin for begin, end in pairwise(ends)]

    def _finish(self) -> None:
        for number in range(self._count):
            self.core.abort(f"bench-{number}")

    def _request(self, tokens: int, *, max_tokens: int) -> Request:
        vocabulary = self.model.config.text_config.vocab_size
        request = Request(
            request_id=f"bench-{self._count}",
            prompt_token_ids=tuple(int(i) for i in self._rng.integers(0, vocabulary, tokens)),
            sampling_params=SamplingParams(temperature=0.0, max_tokens=max_tokens, ignore_eos=True),
        )
        self._count += 1
        return request


def run_until_first_token(core: EngineCore) -> None:
    """Step until any request draws a token."""
    while not checked_step(core):
        pass


def checked_step(core: EngineCore) -> list[str]:
    """One step; raises what a request failed with, so that no failure is timed as a success."""
    outputs = core.step()
    for output in outputs:
        if output.error is not None:
            raise output.error
    if not outputs and not core.has_unfinished():
        raise EngineError("the engine ran out of requests while it was measured; this is a mistake of the benchmark.")
    return [output.request_id for output in outputs]
