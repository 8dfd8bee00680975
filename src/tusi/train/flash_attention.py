"""Attention within the segments of a packed row: PyTorch's fused kernel on a GPU, batched products elsewhere.

The fused kernel takes half precision only, so float32 goes through the products on every device.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch

from tusi.train.segment_attention import segment_attention

HALF = (torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Segments:
    """The lengths of a row's segments; their borders are sent to a device once, not once a layer."""

    lengths: tuple[int, ...]
    _borders: dict[torch.device, torch.Tensor] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def between(cls, borders: torch.Tensor) -> Segments:
        """From cumulative lengths, the first of which is 0."""
        return cls(tuple(borders.diff().tolist()))

    @property
    def longest(self) -> int:
        """The longest segment's length."""
        return max(self.lengths, default=0)

    def borders(self, device: torch.device) -> torch.Tensor:
        """Cumulative lengths, int32, with the 0 in front."""
        if device not in self._borders:
            ends = torch.tensor((0, *self.lengths)).cumsum(0).to(torch.int32)
            self._borders[device] = ends.to(device, non_blocking=True)
        return self._borders[device]


def attend(
    query_TND: torch.Tensor,
    key_TMD: torch.Tensor,
    value_TMD: torch.Tensor,
    segments: Segments,
    *,
    is_causal: bool,
    scale: float,
) -> torch.Tensor:
    """Softmax attention of each segment to itself: [T, N, D]. N is a multiple of M."""
    if query_TND.is_cuda and query_TND.dtype in HALF:
        return _fused(query_TND, key_TMD, value_TMD, segments, is_causal=is_causal, scale=scale)
    return segment_attention(query_TND, key_TMD, value_TMD, segments.lengths, is_causal=is_causal, scale=scale)


def _fused(
    query_TND: torch.Tensor,
    key_TMD: torch.Tensor,
    value_TMD: torch.Tensor,
    segments: Segments,
    *,
    is_causal: bool,
    scale: float,
) -> torch.Tensor:
    from torch.nn.attention.varlen import varlen_attn  # PyTorch 2.10 and later

    heads, width = query_TND.shape[1:]
    # Not every version takes a scale, or key heads that several query heads share.
    query_TND = query_TND * (scale * width**0.5) if abs(scale * width**0.5 - 1) > 1e-6 else query_TND
    group = heads // key_TMD.shape[1]
    if group > 1:
        key_TMD, value_TMD = (tensor.repeat_interleave(group, dim=1) for tensor in (key_TMD, value_TMD))
    borders, longest = segments.borders(query_TND.device), segments.longest
    query, key, value = (tensor.contiguous() for tensor in (query_TND, key_TMD, value_TMD))
    out = varlen_attn(query, key, value, borders, borders, longest, longest, **_causality(is_causal))
    assert isinstance(out, torch.Tensor), "no log-sum-exp was asked for"
    return out


@cache
def _causality(is_causal: bool) -> dict[str, Any]:
    """How this PyTorch is told: by a window since 2.11, by a flag before."""
    from torch.nn.attention.varlen import varlen_attn

    if "window_size" in inspect.signature(varlen_attn).parameters:
        return {"window_size": (-1, 0 if is_causal else -1)}
    return {"is_causal": is_causal}
