"""Attention by segments equals PyTorch's own, segment by segment, forwards and backwards."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from tusi.train import segment_attention as module
from tusi.train.segment_attention import segment_attention

LENGTHS = ([5], [7, 7, 7], [3, 20, 4, 19, 1, 18], [6, 0, 6], [40, 2])


def states(lengths: list[int], heads: int, kv_heads: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(sum(lengths))
    shapes = [(sum(lengths), count, 8) for count in (heads, kv_heads, kv_heads)]
    return [torch.randn(shape, generator=generator, requires_grad=True) for shape in shapes]


def plain(parts: list[torch.Tensor], lengths: list[int], *, is_causal: bool, scale: float) -> torch.Tensor:
    outputs = []
    for segment in zip(*(part.split(lengths) for part in parts), strict=True):
        query, key, value = (part.transpose(0, 1)[None] for part in segment)
        out = functional.scaled_dot_product_attention(
            query, key, value, is_causal=is_causal, scale=scale, enable_gqa=True
        )
        outputs.append(out[0].transpose(0, 1))
    return torch.cat(outputs)


@pytest.mark.parametrize("is_causal", [True, False])
@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
@pytest.mark.parametrize(("heads", "kv_heads"), [(6, 2), (4, 4)])
def test_equals_attention_of_each_segment(lengths: list[int], heads: int, kv_heads: int, is_causal: bool) -> None:
    parts = states(lengths, heads, kv_heads)
    ours = segment_attention(*parts, lengths, is_causal=is_causal, scale=0.3)
    theirs = plain(parts, lengths, is_causal=is_causal, scale=0.3)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    upstream = torch.randn(ours.shape, generator=torch.Generator().manual_seed(1))
    for mine, other in zip(
        torch.autograd.grad(ours, parts, upstream), torch.autograd.grad(theirs, parts, upstream), strict=True
    ):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)


def test_long_segments_go_in_smaller_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_SCORES", 6 * 20**2)
    lengths = [20, 19, 20, 18]
    groups = list(module._groups(lengths, 6, is_causal=True))
    assert [len(group) for group in groups] == [1, 1, 1, 1]
    parts = states(lengths, 6, 2)
    torch.testing.assert_close(
        segment_attention(*parts, lengths, is_causal=True, scale=0.3),
        plain(parts, lengths, is_causal=True, scale=0.3),
        rtol=1e-5,
        atol=1e-5,
    )
