"""Told traces hold no picture, say what the answer needs, and teach the same words as the shown ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tusi.backends.local.loading import load_frontend
from tusi.chat.messages import TextPart
from tusi.core.errors import ConfigError
from tusi.tasks.world.generate import FAMILIES, generate
from tusi.tasks.world.sample import WorldSample
from tusi.train.collate import TokenIds
from tusi.train.encode import Encoder
from tusi.train.recipe import DataSection, SourceSection
from tusi.train.sources import CellSource, ConversationSource
from tusi.train.told import told_conversation

BASE = Path(__file__).parents[2] / "recipes" / "tusi-mini" / "base"


def first_of(family: str, kind: str, difficulty: int) -> WorldSample:
    samples = (generate(family, difficulty, "en", seed, "train") for seed in range(200))
    return next(sample for sample in samples if sample.kind == kind)


@pytest.mark.parametrize("family", FAMILIES)
def test_only_text_is_left_and_the_expert_says_the_same(family: str) -> None:
    for seed in range(20):
        sample = generate(family, 1 + seed % 5, "zh" if seed % 2 else "en", seed, "train")
        user, *trace = told_conversation(sample).messages
        assert all(isinstance(part, TextPart) and part.text for m in (user, *trace) for part in m.content)
        assert user.text.endswith(sample.question)
        for told, shown in zip(trace, sample.trace, strict=True):
            assert (told.role, told.reasoning, told.tool_calls) == (shown.role, shown.reasoning, shown.tool_calls)
            assert told.role == "tool" or told.content == shown.content


def test_printed_numbers_things_and_boxes_are_told() -> None:
    motion = first_of("stem", "motion", 1)
    assert all(f'"{text.text}"' in told_conversation(motion).messages[0].text for text in motion.texts)
    point = first_of("grounding", "point", 1)
    assert all(str(list(o.bbox_2d)) in told_conversation(point).messages[0].text for o in point.objects)


def test_a_chart_is_told_without_the_conclusion() -> None:
    sample = first_of("reasoning", "bar", 1)
    seen, conclusion = (sample.trace[0].reasoning or "").split(". ")
    told = told_conversation(sample).messages[0].text
    assert seen in told
    assert conclusion not in told


def test_a_crop_becomes_what_is_seen_in_it() -> None:
    sample = first_of("zoom", "number", 1)
    _, _, result, answer = told_conversation(sample).messages
    assert result.text == answer.reasoning


def test_an_object_to_be_searched_is_not_named() -> None:
    sample = first_of("tool_use", "image_search", 1)
    assert told_conversation(sample).messages[0].text == sample.question


def test_a_source_of_told_samples_has_no_pixels() -> None:
    frontend = load_frontend(BASE, name="base")
    encoder = Encoder(frontend.template, frontend.processor, frontend.tokenizer, max_tokens=4000)
    data = DataSection(sources=(SourceSection(task="stem", is_told=True),), samples_per_batch=4)
    batch = ConversationSource(data, encoder, TokenIds(image=1, video=2), seed=1, split="train", ramp_batches=0).batch(
        0
    )
    assert "pixel_values" not in batch.inputs
    assert not np.any(batch.inputs["moe_mm_token_type_ids"].numpy())


def test_dense_pictures_cannot_be_told() -> None:
    frontend = load_frontend(BASE, name="base")
    encoder = Encoder(frontend.template, frontend.processor, frontend.tokenizer, max_tokens=4000)
    data, ids = DataSection(sources=(SourceSection(task="dense", is_told=True),)), TokenIds(image=1, video=2)
    with pytest.raises(ConfigError, match="dense cannot be told"):
        ConversationSource(data, encoder, ids, seed=1, split="train", ramp_batches=0)
    with pytest.raises(ConfigError, match="dense cannot be told"):
        CellSource(data, frontend.processor, frontend.tokenizer, seed=1, split="train", ramp_batches=0)
