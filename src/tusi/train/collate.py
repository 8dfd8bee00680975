"""Training examples to one packed row with the arguments of transformers' forward, both token-type masks included.

Without `moe_mm_token_type_ids` transformers sends every token to the text experts, and says nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from tusi.core.types import Modality
from tusi.train.encode import IGNORE, TrainExample


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenIds:
    """The two placeholders of the checkpoint at hand, by which transformers tells media apart."""

    image: int
    video: int


@dataclass(frozen=True, slots=True)
class Batch:
    """One packed row. inputs: keyword arguments of the model's forward. labels_T: what is learnt, not shifted.

    IGNORE stands elsewhere and at the first token of each example, which has nothing before it to be predicted from.
    """

    inputs: dict[str, torch.Tensor]
    labels_T: torch.Tensor

    @property
    def num_samples(self) -> int:
        """Examples in the row."""
        return len(self.inputs["cu_seq_lens_q"]) - 1

    @property
    def num_targets(self) -> int:
        """Tokens that the loss is taken over."""
        return int((self.labels_T != IGNORE).sum())


@dataclass(frozen=True, slots=True)
class CellBatch:
    """Pictures only. labels_CL: L facts of each merged cell, picture by picture; IGNORE where there is none."""

    inputs: dict[str, torch.Tensor]
    labels_CL: torch.Tensor
    words_CW: torch.Tensor
    num_samples: int

    @property
    def num_targets(self) -> int:
        """Facts that the loss is taken over; what a cell's words are is one of them."""
        return int((self.labels_CL != IGNORE).sum() + (self.words_CW != IGNORE).any(dim=1).sum())


def collate(examples: Sequence[TrainExample], ids: TokenIds, pixels: torch.dtype = torch.float32) -> Batch:
    """One row of T tokens, example after example, without padding. pixels: the type of what the tower reads.

    position_ids: [3, 1, T] rows t, h, w, from our processor, beginning anew with each example.
    cu_seq_lens_q: [B + 1] the borders of the examples, which attention does not cross (`packed_attention`).
    """
    prompts = [example.prompt for example in examples]
    input_ids = [_with_placeholders(p.input_ids, p.mm_token_type_ids, ids) for p in prompts]
    borders = np.cumsum([0, *map(len, input_ids)])
    labels_T = np.concatenate([example.labels for example in examples])
    labels_T[borders[:-1]] = IGNORE
    inputs = {
        "input_ids": torch.from_numpy(np.concatenate(input_ids)[None]),
        "mm_token_type_ids": _row([p.mm_token_type_ids for p in prompts]),
        "moe_mm_token_type_ids": _row([p.moe_mm_token_type_ids for p in prompts]),
        "position_ids": torch.from_numpy(
            np.concatenate([p.position_ids for p in prompts], axis=1)[:, None].astype(np.int64)
        ),
        "cu_seq_lens_q": torch.from_numpy(borders),
    }
    inputs |= _media(examples, "image", ("pixel_values", "image_grid_thw"), pixels)
    inputs |= _media(examples, "video", ("pixel_values_videos", "video_grid_thw"), pixels)
    return Batch(inputs, torch.from_numpy(labels_T))


def _row(arrays: Sequence[NDArray[np.int32]]) -> torch.Tensor:
    return torch.from_numpy(np.concatenate(arrays)[None].astype(np.int64))


def _with_placeholders(input_ids: Sequence[int], mm_T: NDArray[np.int32], ids: TokenIds) -> NDArray[np.int64]:
    array = np.asarray(input_ids, np.int64)
    return np.where(mm_T == 1, ids.image, np.where(mm_T == 2, ids.video, array))


def _media(
    examples: Sequence[TrainExample], modality: Modality, names: tuple[str, str], pixels: torch.dtype
) -> dict[str, torch.Tensor]:
    items = [item for e in examples for item in e.prompt.media if item.modality == modality]
    if not items:
        return {}
    values = torch.from_numpy(np.concatenate([item.pixel_values for item in items])).to(pixels)
    return dict(zip(names, (values, torch.tensor([item.grid_thw for item in items])), strict=True))
