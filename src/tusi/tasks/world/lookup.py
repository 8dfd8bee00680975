"""Looking things up in a picture, and nothing else: lists of names to be placed, lists of places to be named.

A caption or an earlier answer in the conversation would let a model copy what it should see, so each thing is asked for
once, in an order of chance, and no caption comes before. Answers are spelt as thoughts of the families are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tusi.tasks.world.dense import DenseScene, Turn, spot
from tusi.tasks.world.rng import Rng, derive_key
from tusi.tasks.world.sample import Language, ObjectAnnotation
from tusi.tasks.world.scene import spoken
from tusi.tasks.world.splits import SPLITS, Split
from tusi.tasks.world.wording import Words

NUM_TURNS = 3
MAX_ITEMS = 6


def lookup_turns(scene: DenseScene, seed: int, language: Language, *, split: Split = "train") -> tuple[Turn, ...]:
    """Up to NUM_TURNS lists of lookups that the scene's things are dealt to. A scene without things has none."""
    rng, words = Rng(derive_key(SPLITS.index(split), "lookup", seed)), Words(language)
    things = rng.sample(scene.objects, len(scene.objects))
    lists = [things[start::NUM_TURNS][:MAX_ITEMS] for start in range(NUM_TURNS)]
    turns = [rng.choice(_MAKERS)(words, scene, dealt) for dealt in lists if dealt]
    return tuple(turn for turn in turns if turn is not None)


def _names(words: Words, scene: DenseScene, things: Sequence[ObjectAnnotation]) -> Turn:
    """Which thing stands where."""
    spots = words.join(spot(thing.bbox_2d) for thing in things)
    answer = words.join(f"{words.full(thing)} {spot(thing.bbox_2d)}" for thing in things)
    return Turn(words(f"What is at {spots}?", f"{spots}是什么？"), answer)


def _places(words: Words, scene: DenseScene, things: Sequence[ObjectAnnotation]) -> Turn:
    """Where each of the named things stands: every one of its name, in reading order."""
    return _asked(words, scene, things, ("Where: {}?", "{}在哪里？"), lambda thing: spot(thing.bbox_2d))


def _boxes(words: Words, scene: DenseScene, things: Sequence[ObjectAnnotation]) -> Turn:
    """The boxes of all things of the names."""
    return _asked(words, scene, things, ("Boxes: {}?", "{}的框？"), lambda t: str([spoken(v) for v in t.bbox_2d]))


def _asked(
    words: Words,
    scene: DenseScene,
    things: Sequence[ObjectAnnotation],
    question: tuple[str, str],
    said: Callable[[ObjectAnnotation], str],
) -> Turn:
    names = list(dict.fromkeys(words.full(thing) for thing in things))
    found = {name: [t for t in scene.objects if words.full(t) == name] for name in names}
    answer = words.join(
        f"{name} {said(thing)}"
        for name in names
        for thing in sorted(found[name], key=lambda t: (t.bbox_2d[1] + t.bbox_2d[3], t.bbox_2d[0]))
    )
    listed = words.join(names)
    return Turn(words(question[0].format(listed), question[1].format(listed)), answer)


_MAKERS = (_names, _places, _places, _boxes)
