"""A batch as the device takes it: tensors there, and every index that a step needs, made on the host beforehand.

What depends on the tokens' kinds or the pictures' sizes is decided here. A step then never asks the device for a
number, so that its kernels can be queued while earlier ones run.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import Ernie4_5_VLMoeConfig as HFConfig
from transformers.models.ernie4_5_vl_moe.modeling_ernie4_5_vl_moe import Ernie4_5_VLMoeModel
from transformers.vision_utils import get_vision_position_ids

from tusi.train.collate import Batch, CellBatch
from tusi.train.device import moved
from tusi.train.encode import IGNORE
from tusi.train.flash_attention import Segments
from tusi.train.packed import ExpertSplit

MEDIA_INPUTS = {"pixel_values", "image_grid_thw", "pixel_values_videos", "video_grid_thw"}


@dataclass(frozen=True, slots=True)
class Media:
    """All pictures and clips of a batch, for one pass of the tower. pairs: the two frames of each of C merged cells."""

    pixels_PX: torch.Tensor
    grid_thw: torch.Tensor
    positions_P2: torch.Tensor
    segments: Segments
    pairs: tuple[torch.Tensor, torch.Tensor]

    def features(self, model: Ernie4_5_VLMoeModel) -> torch.Tensor:
        """[C, D] what the decoder sees of each merged cell, in order."""
        hidden_PD = model.vision_tower(
            self.pixels_PX, self.grid_thw, position_ids=self.positions_P2, cu_seqlens=self.segments
        ).last_hidden_state
        features_CD: torch.Tensor = model.resampler_model(hidden_PD, self.pairs)
        return features_CD


@dataclass(frozen=True, slots=True)
class PreparedBatch:
    """`Batch` on a device. learnt_L: the tokens before learnt ones; targets_L: these. places_C: where features go."""

    input_ids_T: torch.Tensor
    position_ids_31T: torch.Tensor
    segments: Segments
    split: ExpertSplit | None
    media: Media | None
    places_C: torch.Tensor
    learnt_L: torch.Tensor
    targets_L: torch.Tensor
    num_samples: int

    @property
    def num_targets(self) -> int:
        """Tokens that the loss is taken over."""
        return len(self.targets_L)


@dataclass(frozen=True, slots=True)
class PreparedCells:
    """`CellBatch` on a device. worded_R: the cells that words can be said of; words_RW: these."""

    media: Media
    labels_CL: torch.Tensor
    worded_R: torch.Tensor
    words_RW: torch.Tensor
    num_samples: int
    num_targets: int


def prepare_batch(batch: Batch, config: HFConfig, device: torch.device) -> PreparedBatch:
    """Send a batch of conversations to the device."""
    inputs = batch.inputs
    types_T, targets_T = inputs["mm_token_type_ids"][0], batch.labels_T[1:]
    learnt_L = (targets_T != IGNORE).nonzero()[:, 0]
    places_C = torch.cat([(types_T == kind).nonzero()[:, 0] for kind in (1, 2)])
    moe_types = inputs.get("moe_mm_token_type_ids")
    return PreparedBatch(
        input_ids_T=moved(inputs["input_ids"][0], device),
        position_ids_31T=moved(inputs["position_ids"], device),
        segments=Segments.between(inputs["cu_seq_lens_q"]),
        split=None if moe_types is None else ExpertSplit.of(moe_types, device),
        media=prepare_media(inputs, config, device),
        places_C=moved(places_C, device),
        learnt_L=moved(learnt_L, device),
        targets_L=moved(targets_T[learnt_L], device),
        num_samples=batch.num_samples,
    )


def prepare_cells(batch: CellBatch, config: HFConfig, device: torch.device) -> PreparedCells:
    """Send a batch of pictures to the device."""
    media = prepare_media(batch.inputs, config, device)
    assert media is not None, "a batch of cells has pictures"
    worded_R = (batch.words_CW != IGNORE).any(dim=1).nonzero()[:, 0]
    return PreparedCells(
        media,
        moved(batch.labels_CL, device),
        moved(worded_R, device),
        moved(batch.words_CW[worded_R], device),
        batch.num_samples,
        batch.num_targets,
    )


def prepare_media(inputs: dict[str, torch.Tensor], config: HFConfig, device: torch.device) -> Media | None:
    """Pictures first, then clips, as `MEDIA_INPUTS` names them; None if there are none."""
    names = [name for name in ("pixel_values", "pixel_values_videos") if name in inputs]
    if not names:
        return None
    grids = [inputs["video_grid_thw" if name.endswith("videos") else "image_grid_thw"] for name in names]
    grid_thw = torch.cat(grids)
    shapes: list[tuple[int, int, int]] = [(t, h, w) for t, h, w in grid_thw.tolist()]
    merge: int = config.vision_config.spatial_merge_size  # type: ignore[union-attr]  # made whole by the config
    first_C, second_C = _frame_pairs(shapes, merge**2)
    return Media(
        pixels_PX=torch.cat([moved(inputs[name], device) for name in names]),
        grid_thw=grid_thw,
        positions_P2=moved(torch.cat([_positions(shape, merge) for shape in shapes]), device),
        segments=Segments(tuple(h * w for t, h, w in shapes for _ in range(t))),
        pairs=(moved(first_C, device), moved(second_C, device)),
    )


@lru_cache(maxsize=4096)
def _positions(shape: tuple[int, int, int], merge: int) -> torch.Tensor:
    """[P, 2] row and column of a medium's patches, in the tower's order."""
    positions: torch.Tensor = get_vision_position_ids(torch.tensor([shape]), merge)
    return positions


def _frame_pairs(shapes: list[tuple[int, int, int]], patches_per_cell: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Indices of the even and of the odd frames' cells; a picture's frame is both."""
    pairs: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
    start = 0
    for frames, height, width in shapes:
        cells = height * width // patches_per_cell
        index_TC = np.arange(start, start + frames * cells).reshape(frames, cells)
        pairs.append((index_TC[0::2].ravel(), index_TC[1 if frames > 1 else 0 :: 2].ravel()))
        start += frames * cells
    first_C, second_C = (torch.from_numpy(np.concatenate(side)) for side in zip(*pairs, strict=True))
    return first_C, second_C
