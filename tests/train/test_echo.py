"""Lists to repeat: said again exactly, looked up in rightly, of training's half of the catalogue only."""

from __future__ import annotations

import re

import pytest

from tusi.tasks.world.database import is_trained, knowledge_search
from tusi.tasks.world.wording import Language, Words
from tusi.train.echo import echo_conversation


@pytest.mark.parametrize("language", ["en", "zh"])
def test_what_is_repeated_and_looked_up_stands_in_the_list(language: Language) -> None:
    separator = Words(language).join(["", ""])
    for seed in range(40):
        turns = [m.text for m in echo_conversation(seed, 1 + seed % 5, language).messages]
        listed, _ = turns[0].split("\n")
        assert turns[1] == listed
        for question, answer in zip(turns[2::2], turns[3::2], strict=True):
            key = re.sub("^What comes after (.*)\\?$|^(.*)后面是什么？$", r"\1\2", question)
            assert f"{separator}{key}{separator}{answer}{separator}" in f"{separator}{listed}{separator}"


def test_lists_are_repeatable_and_of_training_names_only() -> None:
    first = echo_conversation(3, 5, "en")
    assert first == echo_conversation(3, 5, "en")
    assert first != echo_conversation(4, 5, "en")
    text = " ".join(m.text for seed in range(60) for m in echo_conversation(seed, 5, "en").messages)
    names = set(re.findall(r"\b[A-Z][a-z]{5}\b", text)) - {"Repeat"}
    found = [re.search(r"no\. (\d+)", knowledge_search(name, Words("en"))) for name in names]
    numbers = [int(match[1]) for match in found if match]
    assert len(numbers) > 50
    assert all(map(is_trained, numbers))
