"""What a stage learns: a module to train and the loss of a batch. The loop knows nothing more of either.

`SupervisedObjective` teaches the whole model to write the learnt tokens; `CellObjective` warms up the vision tower and
the resampler alone, on what stands in each merged cell of a picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from torch.nn import functional
from transformers import Ernie4_5_VLMoeForConditionalGeneration

from tusi.train.collate import Batch, CellBatch
from tusi.train.encode import IGNORE
from tusi.train.packed import use_packed_rows

MEDIA_INPUTS = {"pixel_values", "image_grid_thw", "pixel_values_videos", "video_grid_thw"}


@dataclass(frozen=True, slots=True)
class LossSums:
    """loss: summed over the learnt targets (differentiable). Divide by num_targets for the mean."""

    loss: torch.Tensor
    num_correct: int
    num_targets: int


class AnyBatch(Protocol):
    """What the loop asks of any batch."""

    @property
    def num_samples(self) -> int:
        """Conversations or pictures."""
        ...

    @property
    def num_targets(self) -> int:
        """What the loss is averaged over."""
        ...


BatchT = TypeVar("BatchT", bound=AnyBatch)
BatchT_co = TypeVar("BatchT_co", bound=AnyBatch, covariant=True)
BatchT_contra = TypeVar("BatchT_contra", bound=AnyBatch, contravariant=True)


class Objective(Protocol[BatchT_contra]):
    """A module and the loss of a batch under it."""

    @property
    def module(self) -> torch.nn.Module:
        """Everything that is trained and saved."""
        ...

    def loss(self, batch: BatchT_contra) -> LossSums:
        """The summed loss of a batch."""
        ...


class SupervisedObjective:
    """Cross-entropy of the learnt tokens, each predicted from what stands before it in its example.

    The model is made to take packed rows: as transformers runs it, examples of a row would see each other.
    """

    def __init__(self, model: Ernie4_5_VLMoeForConditionalGeneration) -> None:
        use_packed_rows(model)
        self._model = model

    @property
    def module(self) -> torch.nn.Module:
        """The whole model."""
        return self._model

    def loss(self, batch: Batch) -> LossSums:
        """Logits are computed at learnt positions only: most of a sequence is prompt."""
        hidden_TD = self._model.model(**self._with_features(batch.inputs), use_cache=False).last_hidden_state[0]
        targets_T = batch.labels_T[1:]
        is_learnt_T = targets_T != IGNORE
        logits_LV = self._model.lm_head(hidden_TD[:-1][is_learnt_T]).float()
        return _cross_entropy(logits_LV, targets_T[is_learnt_T])

    def _with_features(self, inputs: dict[str, torch.Tensor]) -> dict[str, Any]:
        """Pictures and clips encoded ahead, since the row's borders are not theirs."""
        rest = {name: value for name, value in inputs.items() if name not in MEDIA_INPUTS}
        model, features = self._model.model, {}
        if "pixel_values" in inputs:
            features["image"] = model.get_image_features(inputs["pixel_values"], inputs["image_grid_thw"])
        if "pixel_values_videos" in inputs:
            features["video"] = model.get_video_features(inputs["pixel_values_videos"], inputs["video_grid_thw"])
        return {**rest, "mm_encoder_outputs": features}


class CellObjective:
    """Tells what each merged cell of a picture shows (`CellBatch`) with a head that is thrown away afterwards.

    A vision tower that starts from nothing learns to tell objects apart, and where they are, many times faster this way
    than through words. sizes: how many values each of a cell's facts takes.
    """

    def __init__(self, model: Ernie4_5_VLMoeForConditionalGeneration, *, sizes: Sequence[int]) -> None:
        use_packed_rows(model)
        self._model = model.model
        self._sizes = list(sizes)
        head = torch.nn.Linear(model.lm_head.in_features, sum(sizes))
        self._module = torch.nn.ModuleDict(
            {
                "vision_tower": self._model.vision_tower,
                "resampler_model": self._model.resampler_model,
                "lm_head": model.lm_head,
                "head": head,
            }
        )

    @property
    def module(self) -> torch.nn.Module:
        """Vision tower, resampler, the language head (tied: the words' embeddings) and the throw-away head."""
        return self._module

    def _word_loss(self, features_CD: torch.Tensor, words_CW: torch.Tensor) -> LossSums:
        """Each cell's feature is drawn to the embeddings of what could be said of it, which the decoder need then only
        copy."""
        has_words_C = (words_CW != IGNORE).any(dim=1)
        return _any_of(self._module["lm_head"](features_CD[has_words_C]).float(), words_CW[has_words_C])

    def loss(self, batch: CellBatch) -> LossSums:
        """Facts without a label are left out."""
        features = self._model.get_image_features(batch.inputs["pixel_values"], batch.inputs["image_grid_thw"])
        features_CD = torch.cat(list(features.pooler_output))
        logits_CV = self._module["head"](features_CD).float()
        facts = zip(logits_CV.split(self._sizes, dim=1), batch.labels_CL.T, strict=True)
        sums = [self._word_loss(features_CD, batch.words_CW)]
        sums += [_cross_entropy(logits[labels != IGNORE], labels[labels != IGNORE]) for logits, labels in facts]
        return LossSums(
            torch.stack([s.loss for s in sums]).sum(),
            sum(s.num_correct for s in sums),
            sum(s.num_targets for s in sums),
        )


def _any_of(logits_CV: torch.Tensor, targets_CW: torch.Tensor) -> LossSums:
    """Cross-entropy against all targets of a row alike; right if the likeliest value is one of them."""
    is_target_CW = targets_CW != IGNORE
    chosen_CW = logits_CV.log_softmax(dim=1).gather(1, targets_CW.clamp(min=0))
    loss = -(chosen_CW * is_target_CW).sum(dim=1) / is_target_CW.sum(dim=1)
    is_right_C = (logits_CV.argmax(dim=1, keepdim=True) == targets_CW).any(dim=1)
    return LossSums(loss.sum(), int(is_right_C.sum()), len(targets_CW))


def _cross_entropy(logits_TV: torch.Tensor, targets_T: torch.Tensor) -> LossSums:
    loss = functional.cross_entropy(logits_TV, targets_T, reduction="sum")
    return LossSums(loss, int((logits_TV.argmax(dim=-1) == targets_T).sum()), targets_T.numel())
