"""One whole measurement of a subject, and all of it as plain data."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tusi import kernels
from tusi.bench.ceilings import Peaks, measure_peaks
from tusi.bench.picture import PictureBench, PictureResult
from tusi.bench.subject import Subject
from tusi.bench.text import TextBench, TextResult
from tusi.bench.watched import WatchedModel
from tusi.bench.work import array_bytes
from tusi.core import machine
from tusi.engine.config import EngineConfig
from tusi.engine.core import EngineCore
from tusi.models.memory_estimate import kv_cache_bytes_per_token

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to measure. prompts: lengths to prefill; sequences: how many decode together; picture: width and height."""

    prompts: tuple[int, ...] = (512,)
    sequences: tuple[int, ...] = (1, 8, 16)
    tokens: int = 32
    picture: tuple[int, int] | None = (1024, 768)
    rounds: int = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """peak_bytes: of the process, with the whole KV cache counted as if it were in use. steady_bytes: at the end."""

    subject: str
    weight_format: str
    weight_bytes: int
    kv_cache_bytes: int
    context: int
    load_seconds: float
    peaks: Peaks
    text: tuple[TextResult, ...]
    picture: PictureResult | None
    peak_bytes: int | None
    steady_bytes: int | None

    def as_json(self) -> dict[str, Any]:
        cpu = machine.processor()
        return {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "machine": {
                "processor": cpu.model,
                "features": list(cpu.features),
                "system": platform.platform(),
                "threads": kernels.num_threads(),
                "instruction_set": kernels.isa(),
            },
            "subject": self.subject,
            "weight_format": self.weight_format,
            "weight_bytes": self.weight_bytes,
            "kv_cache_bytes": self.kv_cache_bytes,
            "context": self.context,
            "load_seconds": self.load_seconds,
            "peaks_gmac_per_second": {unit: rates.as_json() for unit, rates in self.peaks.by_unit.items()},
            "text": [result.as_json() for result in self.text],
            "picture": self.picture.as_json() if self.picture else None,
            "peak_bytes": self.peak_bytes,
            "steady_bytes": self.steady_bytes,
        }


def measure(subject: Subject, plan: Plan, engine_config: EngineConfig, tell: Tell = lambda line: None) -> Report:
    """Measure everything the plan names, in an order that lets the short things come first."""
    tell("ceilings of this machine")
    peaks = measure_peaks()
    watched = WatchedModel(subject.model)
    core = EngineCore(watched, engine_config)
    text_bench = TextBench(core, watched, peaks, plan.rounds)
    text: list[TextResult] = []
    for sequences in plan.sequences:
        tell(f"decode, {sequences} together")
        text.append(text_bench.decode(sequences, plan.tokens))
    for tokens in plan.prompts:
        tell(f"prefill of {tokens} tokens")
        text.append(text_bench.prefill(tokens))
    picture = None
    if plan.picture is not None:
        tell(f"a picture of {plan.picture[0]} x {plan.picture[1]}")
        picture = PictureBench(core, watched, subject.processor, peaks, plan.rounds).first_token(*plan.picture)
    memory = machine.process_memory()
    per_token = kv_cache_bytes_per_token(watched.config, engine_config.kv_cache_format)
    kv_cache_bytes = per_token * core.max_model_len
    unused = kv_cache_bytes - per_token * min(_longest_use(plan, picture), core.max_model_len)
    return Report(
        subject=subject.name,
        weight_format=subject.model.dtype,
        weight_bytes=_weight_bytes(subject),
        kv_cache_bytes=kv_cache_bytes,
        context=core.max_model_len,
        load_seconds=subject.load_seconds,
        peaks=peaks,
        text=tuple(text),
        picture=picture,
        peak_bytes=None if memory.peak is None else memory.peak + unused,
        steady_bytes=memory.resident,
    )


def _longest_use(plan: Plan, picture: PictureResult | None) -> int:
    """Tokens of the cache that were written at the same time at least; only those are sure to lie in memory."""
    return max((*plan.prompts, *plan.sequences, picture.tokens if picture else 0))


def _weight_bytes(subject: Subject) -> int:
    model = subject.model
    parts = [model.embed_tokens, model.language_model, model.vision_tower, model.resampler_model]
    if model.lm_head is not model.embed_tokens:
        parts.append(model.lm_head)
    return sum(array_bytes(part) for part in parts)
