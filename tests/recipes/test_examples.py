"""The examples are what they say: pictures of the world that anyone can draw again, answered right by tusi-mini."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tusi.cli.main import main
from tusi.models import embedded
from tusi.tasks.scoring import score
from tusi.tasks.world import WorldSample, generate

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
QUESTIONS = EXAMPLES / "questions.json"

pytestmark = pytest.mark.skipif(not embedded.is_embedded_there(), reason="no tusi-mini is shipped in this tree")


def entries() -> list[Any]:
    known = json.loads(QUESTIONS.read_text(encoding="utf-8")) if QUESTIONS.exists() else []
    return [pytest.param(entry, id=entry["name"]) for entry in known]


def sample_of(entry: Mapping[str, Any]) -> WorldSample:
    family, kind, difficulty, language, split, seed = entry["sample"].split("/")
    return generate(family, int(difficulty), language, int(seed), split, kind=kind)


def test_there_are_examples_of_looking_closer_pointing_and_counting() -> None:
    families = {param.values[0]["sample"].split("/")[0] for param in entries()}
    assert families >= {"zoom", "grounding", "reasoning", "stem"}


@pytest.mark.parametrize("entry", entries())
def test_the_picture_is_a_held_out_sample_that_may_be_shared(entry: Mapping[str, Any]) -> None:
    sample = sample_of(entry)
    assert sample.split == "eval"
    assert (sample.id, sample.question, sample.answer) == (entry["sample"], entry["question"], entry["answer"])
    assert "openmoji" not in {thing.style for thing in sample.objects}
    assert np.array_equal(np.asarray(Image.open(EXAMPLES / entry["picture"])), sample.media[0])


@pytest.mark.parametrize("entry", entries())
def test_the_shipped_model_answers_right(entry: Mapping[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    words = [str(EXAMPLES / entry["picture"]), entry["question"]]
    assert main(["ask", *words, "--model", "tusi-mini", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    sample = sample_of(entry)
    assert score(sample.gold, said["content"]) == 1
    assert tuple(call["name"] for call in said["tool_calls"]) == sample.expected_tools
