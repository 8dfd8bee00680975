"""What a stage learns: a module to train and the loss of a batch. The loop knows nothing more of either.

`SupervisedObjective` teaches the whole model to write the learnt tokens; `CellObjective` warms up the vision tower and
the resampler alone, on what stands in each merged cell of a picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
from torch.nn import functional
from transformers import Ernie4_5_VLMoeForConditionalGeneration

from tusi.train.collate import Batch, CellBatch
from tusi.train.encode import IGNORE
from tusi.train.packed import use_packed_rows
from tusi.train.prepared import PreparedBatch, PreparedCells, prepare_batch, prepare_cells


@dataclass(frozen=True, slots=True)
class LossSums:
    """loss: summed over the learnt targets (differentiable). Divide by num_targets for the mean.

    num_correct: a count that is still on the device; reading it waits for the device.
    """

    loss: torch.Tensor
    num_correct: torch.Tensor
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
    """A module and the loss of a batch under it, as its source gives it or prepared for the module's device."""

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

    def prepare(self, batch: Batch) -> PreparedBatch:
        """Send a batch to the model's device; may run in another thread, ahead of `loss`."""
        return prepare_batch(batch, self._model.config, self._model.device)

    def loss(self, batch: Batch | PreparedBatch) -> LossSums:
        """Logits are computed at learnt positions only: most of a sequence is prompt."""
        prepared = batch if isinstance(batch, PreparedBatch) else self.prepare(batch)
        hidden_TD = self._model.model.language_model(
            inputs_embeds=self._embedded(prepared)[None],
            position_ids=prepared.position_ids_31T,
            moe_mm_token_type_ids=prepared.split,
            segments=prepared.segments,
            use_cache=False,
        ).last_hidden_state[0]
        logits_LV = self._model.lm_head(hidden_TD.index_select(0, prepared.learnt_L)).float()
        return LossSums(*_cross_entropy(logits_LV, prepared.targets_L), num_targets=prepared.num_targets)

    def _embedded(self, batch: PreparedBatch) -> torch.Tensor:
        """[T, D] embeddings, with the features of pictures and clips at their places."""
        model = self._model.model
        embeds_TD: torch.Tensor = model.language_model.embed_tokens(batch.input_ids_T)
        if batch.media is None:
            return embeds_TD
        return embeds_TD.index_copy(0, batch.places_C, batch.media.features(model).to(embeds_TD.dtype))


class CellObjective:
    """Tells what each merged cell of a picture shows (`CellBatch`) with a head that is thrown away afterwards.

    A vision tower that starts from nothing learns to tell objects apart, and where they are, many times faster this way
    than through words. sizes: how many values each of a cell's facts takes.
    """

    def __init__(self, model: Ernie4_5_VLMoeForConditionalGeneration, *, sizes: Sequence[int]) -> None:
        use_packed_rows(model)
        self._model = model.model
        self._sizes = list(sizes)
        head = torch.nn.Linear(model.lm_head.in_features, sum(sizes)).to(model.device)
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

    def prepare(self, batch: CellBatch) -> PreparedCells:
        """Send a batch to the model's device; may run in another thread, ahead of `loss`."""
        return prepare_cells(batch, self._model.config, self._model.device)

    def loss(self, batch: CellBatch | PreparedCells) -> LossSums:
        """Facts without a label are left out."""
        prepared = batch if isinstance(batch, PreparedCells) else self.prepare(batch)
        features_CD = prepared.media.features(self._model)
        logits_CV = self._module["head"](features_CD).float()
        facts = zip(logits_CV.split(self._sizes, dim=1), prepared.labels_CL.T, strict=True)
        sums = [self._word_loss(features_CD.index_select(0, prepared.worded_R), prepared.words_RW)]
        sums += [_cross_entropy(logits, labels) for logits, labels in facts]
        losses, counts = zip(*sums, strict=True)
        return LossSums(torch.stack(losses).sum(), torch.stack(counts).sum(), prepared.num_targets)

    def _word_loss(self, features_RD: torch.Tensor, words_RW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Each cell's feature is drawn to the embeddings of what could be said of it, which the decoder need then only
        copy."""
        return _any_of(self._module["lm_head"](features_RD).float(), words_RW)


def _any_of(logits_CV: torch.Tensor, targets_CW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross-entropy against all targets of a row alike; right if the likeliest value is one of them."""
    is_target_CW = targets_CW != IGNORE
    chosen_CW = logits_CV.log_softmax(dim=1).gather(1, targets_CW.clamp(min=0))
    loss = -(chosen_CW * is_target_CW).sum(dim=1) / is_target_CW.sum(dim=1)
    is_right_C = (logits_CV.argmax(dim=1, keepdim=True) == targets_CW).any(dim=1)
    return loss.sum(), is_right_C.sum()


def _cross_entropy(logits_TV: torch.Tensor, targets_T: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Summed loss and how many are right, over the targets that are not IGNORE."""
    loss = functional.cross_entropy(logits_TV, targets_T, ignore_index=IGNORE, reduction="sum")
    return loss, (logits_TV.argmax(dim=-1) == targets_T).sum()
