"""Lookups ask for what is there, and answers say where all of it stands."""

from __future__ import annotations

import re

import pytest

from tusi.tasks.world.dense import DenseScene, dense_scene, spot
from tusi.tasks.world.lookup import MAX_ITEMS, NUM_TURNS, lookup_turns
from tusi.tasks.world.sample import Language
from tusi.tasks.world.wording import Words

LANGUAGES: tuple[Language, ...] = ("en", "zh")


def make_scene(seed: int, language: Language, difficulty: int) -> DenseScene:
    return dense_scene(seed, difficulty, language, num_turns=1)


@pytest.mark.parametrize("difficulty", [1, 3, 5])
@pytest.mark.parametrize("language", LANGUAGES)
def test_answers_say_things_that_stand_there(language: Language, difficulty: int) -> None:
    for seed in range(12):
        scene, words = make_scene(seed, language, difficulty), Words(language)
        turns = lookup_turns(scene, seed, language)
        assert 1 <= len(turns) <= NUM_TURNS
        places = {(words.full(thing), spot(thing.bbox_2d)) for thing in scene.objects}
        names = {words.full(thing) for thing in scene.objects}
        for turn in turns:
            said = re.findall(r"([^,，()\[\]]+) (\(\d+,\d+\)|\[[^\]]+\])", turn.answer)
            assert said
            for name, place in said:
                assert (name.strip(), place) in places or (place[0] == "[" and name.strip() in names)


def test_a_named_thing_that_stands_twice_is_placed_twice() -> None:
    found = 0
    for seed in range(200):
        scene = make_scene(seed, "en", 5)
        names = [Words("en").full(thing) for thing in scene.objects]
        for turn in lookup_turns(scene, seed, "en"):
            if turn.question.startswith("Where: "):
                asked = turn.question[len("Where: ") : -1].split(", ")
                assert [turn.answer.count(f"{name} (") for name in asked] == [names.count(name) for name in asked]
                found += max(names.count(name) for name in asked) > 1
    assert found


def test_the_same_seed_asks_the_same_and_lists_are_short() -> None:
    scene = make_scene(3, "en", 5)
    assert lookup_turns(scene, 3, "en") == lookup_turns(scene, 3, "en") != lookup_turns(scene, 4, "en")
    assert all(turn.question.count("(") <= MAX_ITEMS for turn in lookup_turns(scene, 3, "en"))
