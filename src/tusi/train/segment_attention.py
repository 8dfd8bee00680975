"""Attention within the segments of a packed row, segments of like length in one batched product.

PyTorch's CPU kernel for scaled dot products runs small heads at a tenth of what its bfloat16 matrix products reach, and
twice as slowly backwards; scores are small here, so they are simply held (`docs/log.md` has the figures).
Knows nothing of models: tensors and lengths in, a tensor out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

import torch

LIKE = 0.8
"""Causal segments share a product when the shortest has at least this share of the longest's tokens."""
MAX_SCORES = 1 << 24
"""Scores held at once; longer segments go in smaller groups."""


def segment_attention(
    query_TND: torch.Tensor,
    key_TMD: torch.Tensor,
    value_TMD: torch.Tensor,
    lengths: Sequence[int],
    *,
    is_causal: bool,
    scale: float,
) -> torch.Tensor:
    """Softmax attention of each segment of T = sum(lengths) tokens to itself: [T, N, D]. N is a multiple of M.

    A token's result does not depend on the other segments, except for rounding.
    """
    device = query_TND.device
    starts = [0]
    for length in lengths[:-1]:
        starts.append(starts[-1] + length)
    outputs, rows = [], []
    for members in _groups(lengths, query_TND.shape[1], is_causal=is_causal):
        longest = max(lengths[i] for i in members)
        index_BL = (torch.tensor([starts[i] for i in members])[:, None] + torch.arange(longest)).to(device)
        ends_B1 = torch.tensor([starts[i] + lengths[i] for i in members], device=device)[:, None]
        is_token_BL = index_BL < ends_B1
        # Padding repeats the last token. It comes last, so that no token of a causal segment looks at it.
        padded_BL = torch.minimum(index_BL, ends_B1 - 1)
        parts = (_gathered(tensor, padded_BL) for tensor in (query_TND, key_TMD, value_TMD))
        outputs.append(_attention(*parts, is_causal=is_causal, scale=scale)[is_token_BL])
        rows.append(index_BL[is_token_BL])
    if len(outputs) == 1 and rows[0].equal(torch.arange(len(rows[0]), device=device)):
        return outputs[0]
    return torch.cat(outputs).index_select(0, torch.argsort(torch.cat(rows)))


def _groups(lengths: Sequence[int], heads: int, *, is_causal: bool) -> Iterator[list[int]]:
    """Indices of segments that share a product: of equal lengths where no causal mask keeps padding from being seen."""
    like = LIKE if is_causal else 1.0
    group: list[int] = []
    for index in sorted((i for i, length in enumerate(lengths) if length), key=lambda i: -lengths[i]):
        longest = lengths[group[0]] if group else 0
        is_full = (len(group) + 1) * heads * longest**2 > MAX_SCORES
        if group and (lengths[index] < like * longest or is_full):
            yield group
            group = []
        group.append(index)
    if group:
        yield group


def _gathered(tensor_THD: torch.Tensor, index_BL: torch.Tensor) -> torch.Tensor:
    """[B, L, H, D] the rows at the indices."""
    return tensor_THD.index_select(0, index_BL.reshape(-1)).view(*index_BL.shape, *tensor_THD.shape[1:])


def _attention(
    query_BLND: torch.Tensor, key_BLMD: torch.Tensor, value_BLMD: torch.Tensor, *, is_causal: bool, scale: float
) -> torch.Tensor:
    """[B, L, N, D]. The query heads that share a key head are rows of one product."""
    batch, length, heads, width = query_BLND.shape
    kv_heads = key_BLMD.shape[2]
    query_BMQD = (
        query_BLND.view(batch, length, kv_heads, -1, width).permute(0, 2, 3, 1, 4).reshape(batch * kv_heads, -1, width)
    )
    key_BMLD, value_BMLD = (t.transpose(1, 2).reshape(batch * kv_heads, length, width) for t in (key_BLMD, value_BLMD))
    mask_QL = _mask(length, heads // kv_heads, query_BLND.dtype, query_BLND.device, is_causal=is_causal)
    scores_BMQL = torch.baddbmm(mask_QL, query_BMQD, key_BMLD.transpose(1, 2), alpha=scale)
    out_BMQD = torch.bmm(scores_BMQL.softmax(dim=-1), value_BMLD)
    return out_BMQD.view(batch, kv_heads, -1, length, width).permute(0, 3, 1, 2, 4).reshape(batch, length, heads, width)


@lru_cache(maxsize=256)
def _mask(length: int, group: int, dtype: torch.dtype, device: torch.device, *, is_causal: bool) -> torch.Tensor:
    """What is added to the scores [group * L, L] of one key head."""
    if not is_causal:
        return torch.zeros((), dtype=dtype, device=device).expand(1, group * length, length)
    mask_LL = torch.full((length, length), float("-inf"), dtype=dtype, device=device).triu(1)
    return mask_LL.repeat(group, 1)[None]
