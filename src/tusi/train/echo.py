"""Text to be said again: lists of names, numbers and sums, repeated whole and looked up in.

What a tool found is worth nothing to a model that cannot copy a word it has never seen. Each list is a page of such
words.
"""

from __future__ import annotations

from tusi.chat.messages import Message, TextPart
from tusi.tasks.world.atlas import load_concepts
from tusi.tasks.world.database import draw_entry
from tusi.tasks.world.families.common import COLOUR_IDS
from tusi.tasks.world.rng import Rng, derive_key
from tusi.tasks.world.sample import Language
from tusi.tasks.world.splits import SPLITS, Split
from tusi.tasks.world.wording import Words
from tusi.train.encode import Conversation

NUM_ITEMS = {1: (2, 6), 2: (4, 10), 3: (6, 16), 4: (10, 20), 5: (12, 24)}
NUM_LOOKUPS = 3


def echo_conversation(seed: int, difficulty: int, language: Language, *, split: Split = "train") -> Conversation:
    """A list that the assistant repeats, then some questions about what stands after what in it."""
    rng, words = Rng(derive_key(SPLITS.index(split), "echo", difficulty, seed)), Words(language)
    drawn = [_item(rng, words, split) for _ in range(rng.integer(*NUM_ITEMS[difficulty]))]
    # An item that stood twice would have two followers.
    items = list(dict.fromkeys(drawn))
    listed = words.join(items)
    turns = [(f"{listed}\n{words('Repeat.', '重复。')}", listed)]
    for index in rng.sample(range(len(items) - 1), min(NUM_LOOKUPS, len(items) - 1)):
        question = words(f"What comes after {items[index]}?", f"{items[index]}后面是什么？")
        turns.append((question, items[index + 1]))
    return Conversation(messages=tuple(message for turn in turns for message in _turn(*turn)))


def _turn(question: str, answer: str) -> tuple[Message, Message]:
    return (
        Message(role="user", content=(TextPart(question),)),
        Message(role="assistant", content=(TextPart(answer),)),
    )


def _item(rng: Rng, words: Words, split: Split) -> str:
    kind = rng.integer(0, 9)
    if kind <= 3:
        return draw_entry(rng, split).name
    if kind <= 5:
        return str(rng.integer(0, 10 ** rng.integer(1, 5) - 1))
    if kind == 6:
        return f"({rng.integer(0, 99) * 10},{rng.integer(0, 99) * 10})"
    name = words.name(rng.choice([c.id for c in load_concepts().values() if c.role in ("core", "common")]))
    if kind == 7:
        return f"{name} {rng.integer(1, 99)}"
    if kind == 8:
        return f"{words.colour(rng.choice(COLOUR_IDS))} {name}"
    return name
