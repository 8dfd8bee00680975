"""Dense targets agree with the picture they describe."""

from __future__ import annotations

import re

import numpy as np

from tusi.tasks.world import generate
from tusi.tasks.world.dense import caption, dense_questions, dense_scene
from tusi.tasks.world.sample import ObjectAnnotation


def thing(concept: str, bbox: tuple[int, int, int, int], colour: str | None = None) -> ObjectAnnotation:
    return ObjectAnnotation(concept, "twitter", colour, bbox)


def test_a_scene_repeats_itself_and_asks_for_everything_first() -> None:
    scene, again = (dense_scene(5, 3, "zh", num_turns=8) for _ in range(2))
    assert np.array_equal(scene.pixels, again.pixels)
    assert scene.turns == again.turns
    assert 2 <= len(scene.turns) <= 8
    first = scene.turns[0].answer
    assert len(re.findall(r"\(\d+,\d+\)", first)) == len(scene.objects) + len(scene.texts)
    other = dense_scene(5, 3, "zh", split="eval")
    assert other.pixels.shape != scene.pixels.shape or not np.array_equal(other.pixels, scene.pixels)


def test_questions_have_the_answers_of_the_annotations() -> None:
    asked = 0
    for seed in range(30):
        scene = dense_scene(seed, 4, "en", num_turns=12)
        for turn in scene.turns[1:]:
            spot = re.search(r"What is at \((\d+),(\d+)\)", turn.question)
            if spot:
                x, y = int(spot[1]), int(spot[2])
                hits = [
                    o for o in scene.objects if o.bbox_2d[0] <= x <= o.bbox_2d[2] and o.bbox_2d[1] <= y <= o.bbox_2d[3]
                ]
                assert len(hits) == 1
                assert (hits[0].colour or "") in turn.answer
                asked += 1
            if turn.question.startswith("Where is the"):
                name = turn.question.removeprefix("Where is the ").removesuffix("?")
                assert scene.turns[0].answer.count(f"{name} ({turn.answer[1:-1]})") == 1
                asked += 1
    assert asked > 40


def test_captions_and_questions_of_samples() -> None:
    sample = generate("stem", 2, "en", 3, kind="arithmetic")
    assert sample.texts[0].text in caption(sample)
    questions = dense_questions(sample, 5)
    assert questions == dense_questions(sample, 5)
    assert questions[0].answer == sample.texts[0].text
    clip = generate("video", 1, "en", 0)
    assert caption(clip, frame=len(clip.media[0].frames) - 1) != "nothing"  # type: ignore[union-attr]
    assert dense_questions(clip, 5) == []
