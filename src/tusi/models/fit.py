"""Does a model fit into a given amount of memory, at which precision and context, and what to change if not.

In: a configuration and a budget in bytes. Out: a `FitReport`. Reads no machine, no file, no clock.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from tusi.core.kv_dtype import KVCacheDtype
from tusi.core.types import WeightFormat
from tusi.models.config import Ernie4_5_VLMoeConfig
from tusi.models.memory_estimate import MemoryEstimate, estimate_memory, kv_cache_bytes_per_token

Verdict = Literal["fits", "tight", "no"]

FORMATS: tuple[WeightFormat, ...] = ("bf16", "int8", "int4")
# Below this share of the budget nothing else on the machine needs to be closed.
COMFORTABLE = 0.95
MIN_USEFUL_CONTEXT = 4096
"""A thinking model that may write less than this is cut in the middle of its thoughts."""
MIN_USEFUL_PATCHES = 1024
"""A picture of 448 x 448 pixels: 256 tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FitRow:
    """One precision. max_context: tokens that fit beside the weights, 0 if not even a useful few do."""

    weight_format: WeightFormat
    estimate: MemoryEstimate
    verdict: Verdict
    max_context: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FitReport:
    """All precisions, best first. best: the highest precision that fits, if one does."""

    budget: int
    context: int
    num_patches: int
    rows: tuple[FitRow, ...]
    kv_cache_dtype: KVCacheDtype = "bfloat16"

    @property
    def best(self) -> FitRow | None:
        return next((row for row in self.rows if row.verdict != "no"), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A way to make it fit: options for `tusi ask`. pixels: cap on a picture's pixels, None to leave it."""

    weight_format: WeightFormat
    context: int
    pixels: int | None


def fit(
    config: Ernie4_5_VLMoeConfig,
    *,
    budget: int,
    context: int,
    num_patches: int,
    formats: tuple[WeightFormat, ...] | None = None,
    kv_cache_dtype: KVCacheDtype = "bfloat16",
) -> FitReport:
    """Compare each precision with the budget, for `context` tokens and a largest picture of `num_patches` patches.

    formats: FORMATS if None, but of a quantised checkpoint only the one that it is stored in.
    """
    if formats is None:
        formats = (config.quantization.weight_format,) if config.quantization else FORMATS
    rows = tuple(_row(config, weight_format, budget, context, num_patches, kv_cache_dtype) for weight_format in formats)
    return FitReport(budget=budget, context=context, num_patches=num_patches, rows=rows, kv_cache_dtype=kv_cache_dtype)


def find_change(config: Ernie4_5_VLMoeConfig, report: FitReport) -> Change | None:
    """The mildest change that makes it fit: another context first, then smaller pictures; None if nothing helps."""
    if found := _useful_row(report):
        return Change(weight_format=found.weight_format, context=min(found.max_context, report.context), pixels=None)
    patch_pixels = config.vision_config.patch_size**2
    for num_patches in (report.num_patches // 2, report.num_patches // 4, MIN_USEFUL_PATCHES):
        if not MIN_USEFUL_PATCHES <= num_patches < report.num_patches:
            continue
        smaller = fit(
            config,
            budget=report.budget,
            context=report.context,
            num_patches=num_patches,
            kv_cache_dtype=report.kv_cache_dtype,
        )
        if found := _useful_row(smaller):
            context = min(found.max_context, report.context)
            return Change(weight_format=found.weight_format, context=context, pixels=num_patches * patch_pixels)
    return None


def least_bytes(config: Ernie4_5_VLMoeConfig) -> int:
    """The smallest free memory in which it is of any use: int4, a short context, small pictures."""
    least = estimate_memory(config, "int4", context=MIN_USEFUL_CONTEXT, num_patches=MIN_USEFUL_PATCHES)
    return math.ceil(least.total / COMFORTABLE)


def _useful_row(report: FitReport) -> FitRow | None:
    useful = min(MIN_USEFUL_CONTEXT, report.context)
    return next((row for row in report.rows if row.max_context >= useful), None)


def _row(
    config: Ernie4_5_VLMoeConfig,
    weight_format: WeightFormat,
    budget: int,
    context: int,
    num_patches: int,
    kv_cache_dtype: KVCacheDtype,
) -> FitRow:
    estimate = estimate_memory(
        config, weight_format, context=context, num_patches=num_patches, kv_cache_dtype=kv_cache_dtype
    )
    room = int(budget * COMFORTABLE) - (estimate.total - estimate.kv_cache)
    max_context = min(
        room // kv_cache_bytes_per_token(config, kv_cache_dtype), config.text_config.max_position_embeddings
    )
    verdict: Verdict = "no"
    if estimate.total <= budget:
        verdict = "fits" if estimate.total <= budget * COMFORTABLE else "tight"
    return FitRow(
        weight_format=weight_format,
        estimate=estimate,
        verdict=verdict,
        max_context=max(max_context // 1024 * 1024, 0 if verdict == "no" else context),
    )
