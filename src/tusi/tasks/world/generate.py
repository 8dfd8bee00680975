"""`generate`: the one door to the world. Looks the family up, derives the random numbers, has the trace played."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import get_args

from tusi.chat.messages import Message
from tusi.core.errors import ConfigError
from tusi.tasks.world.expert import Context, Draft, assistant_turn, tool_call
from tusi.tasks.world.families import grounding, reasoning, stem, tool_use, video, zoom
from tusi.tasks.world.messages import WorldTools
from tusi.tasks.world.rng import Rng, derive_key
from tusi.tasks.world.sample import Language, WorldSample
from tusi.tasks.world.splits import SPLITS, Split
from tusi.tasks.world.wording import Words

DIFFICULTIES = (1, 2, 3, 4, 5)
LANGUAGES: tuple[Language, ...] = get_args(Language)
WORLD_VERSION = 3
"""Raised whenever a change makes old seeds show something else, so that results cannot be mixed up unseen."""

KindTable = Mapping[str, tuple[int, Callable[[Context], Draft]]]
_FAMILIES: dict[str, KindTable] = {
    "reasoning": reasoning.KINDS,
    "stem": stem.KINDS,
    "grounding": grounding.KINDS,
    "zoom": zoom.KINDS,
    "tool_use": tool_use.KINDS,
    "video": video.KINDS,
}
FAMILIES = tuple(_FAMILIES)


def kinds(family: str, difficulty: int) -> tuple[str, ...]:
    """The question kinds of a family at a difficulty (some begin above 1)."""
    return tuple(kind for kind, (first, _) in _table(family).items() if difficulty >= first)


def generate(
    family: str, difficulty: int, language: Language, seed: int, split: Split = "train", *, kind: str | None = None
) -> WorldSample:
    """The sample that these arguments name: the same one on every machine.

    Both languages show the same picture for the same seed. kind: ask for one question kind instead of a random one.
    Raises ConfigError for a family, difficulty, language, split or kind that does not exist.
    """
    table = _table(family)
    _check("difficulty", difficulty, DIFFICULTIES)
    _check("language", language, LANGUAGES)
    _check("split", split, SPLITS)
    available = kinds(family, difficulty)
    name = (WORLD_VERSION, family, difficulty, seed)
    chosen = Rng(derive_key(SPLITS.index(split), *name)).choice(available) if kind is None else kind
    _check("kind", chosen, available)
    # The kind is part of the key, so a sample is the same whether its kind was drawn or asked for.
    rng = Rng(derive_key(SPLITS.index(split), *name, chosen))
    words = Words(language)
    draft = table[chosen][1](Context(rng, difficulty, split, words))
    return WorldSample(
        id=f"{family}/{chosen}/{difficulty}/{language}/{split}/{seed}",
        family=family,
        kind=chosen,
        difficulty=difficulty,
        language=language,
        split=split,
        seed=seed,
        media=(draft.media,),
        question=draft.question,
        gold=draft.gold,
        tools=draft.tools,
        trace=_play(draft, words),
        record=draft.record,
        objects=draft.objects,
        texts=draft.texts,
    )


def _play(draft: Draft, words: Words) -> tuple[Message, ...]:
    """The expert's turns, with what the tools really answer."""
    tools = WorldTools((draft.media,), words.language, draft.record, draft.tools)
    trace = []
    for index, step in enumerate(draft.steps):
        call = tool_call(index, step)
        trace.append(assistant_turn(step.thought, call=call))
        trace.append(Message(role="tool", content=tools.call(step.tool, step.arguments), tool_call_id=call.id))
    trace.append(assistant_turn(draft.thought, answer=draft.answer))
    return tuple(trace)


def _table(family: str) -> KindTable:
    _check("family", family, FAMILIES)
    return _FAMILIES[family]


def _check(name: str, value: object, allowed: tuple[object, ...]) -> None:
    if value not in allowed or isinstance(value, bool):
        raise ConfigError(
            f"the world has no {name} {value!r}; there are {', '.join(map(str, allowed))}; name one of them"
        )
