"""A packed row gives what transformers' own modules give for each example alone: losses and gradients."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional
from transformers import Ernie4_5_VLMoeForConditionalGeneration

from tests.train.synthetic import SyntheticSource
from tusi.models.random_checkpoint import TINY_TEXT, tiny_config, write_random_checkpoint
from tusi.train.collate import Batch
from tusi.train.encode import IGNORE
from tusi.train.model import load_model
from tusi.train.objectives import SupervisedObjective
from tusi.train.packed import use_packed_rows
from tusi.train.prepared import MEDIA_INPUTS

MEDIA = (("pixel_values", "image_grid_thw"), ("pixel_values_videos", "video_grid_thw"), ())
"""What the three examples of a synthetic row bring with them."""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    text = replace(TINY_TEXT, num_hidden_layers=3, mlp_layer_types=("dense", "sparse", "sparse"))
    return write_random_checkpoint(tmp_path_factory.mktemp("packed") / "tiny", seed=3, config=tiny_config(text=text))


def plain_losses(model: Ernie4_5_VLMoeForConditionalGeneration, batch: Batch) -> list[torch.Tensor]:
    """Each example's summed loss by transformers' forward as it is, one example at a time."""
    borders = batch.inputs["cu_seq_lens_q"].tolist()
    losses = []
    for start, end, media in zip(borders[:-1], borders[1:], MEDIA, strict=True):
        inputs = {name: batch.inputs[name] for name in media}
        for name in ("input_ids", "mm_token_type_ids", "moe_mm_token_type_ids", "position_ids"):
            inputs[name] = batch.inputs[name][..., start:end]
        logits_TV = model(**inputs, use_cache=False).logits[0]
        losses.append(
            functional.cross_entropy(
                logits_TV[:-1], batch.labels_T[start + 1 : end], ignore_index=IGNORE, reduction="sum"
            )
        )
    return losses


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_losses_and_gradients_are_those_of_transformers_example_by_example(checkpoint: Path) -> None:
    batch = SyntheticSource(checkpoint).batch(0)
    assert {name for pair in MEDIA for name in pair} == MEDIA_INPUTS
    plain = load_model(checkpoint, random_init=False, seed=0)
    expected = torch.stack(plain_losses(plain, batch)).sum()
    expected.backward()
    packed = load_model(checkpoint, random_init=False, seed=0)
    sums = SupervisedObjective(packed).loss(batch)
    sums.loss.backward()
    assert sums.num_targets == batch.num_targets == 18
    torch.testing.assert_close(sums.loss, expected, rtol=1e-5, atol=1e-5)
    theirs, ours = gradients(plain), gradients(packed)
    assert set(ours) == set(theirs)
    for name, gradient in theirs.items():
        torch.testing.assert_close(ours[name], gradient, rtol=1e-4, atol=1e-5, msg=name)


def test_a_text_row_needs_no_vision_experts(checkpoint: Path) -> None:
    plain, packed = (load_model(checkpoint, random_init=False, seed=0) for _ in range(2))
    use_packed_rows(packed)
    ids = torch.arange(300, 312)[None]
    for mask in (None, torch.zeros_like(ids)):
        torch.testing.assert_close(
            packed(input_ids=ids, moe_mm_token_type_ids=mask).logits, plain(input_ids=ids).logits, rtol=1e-4, atol=1e-5
        )


def test_what_is_exported_does_not_know_of_packing(checkpoint: Path) -> None:
    plain, packed = (load_model(checkpoint, random_init=False, seed=0) for _ in range(2))
    use_packed_rows(packed)
    assert list(plain.state_dict()) == list(packed.state_dict())
