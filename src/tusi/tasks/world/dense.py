"""Dense targets in words, for training that starts below questions: captions, many questions a picture.

`dense_scene` draws a picture full of things with many questions about it; `caption` and `dense_questions` read the
annotations of any picture. Coordinates are said as everywhere in the world (0-1000, steps of 10).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tusi.tasks.world.atlas import SHAPES, load_concepts
from tusi.tasks.world.canvas import Canvas
from tusi.tasks.world.expert import Context
from tusi.tasks.world.families.common import COLOUR_IDS
from tusi.tasks.world.layout import object_side, picture_size, scatter
from tusi.tasks.world.rng import Rng, derive_key
from tusi.tasks.world.sample import Language, ObjectAnnotation, Pixels, TextAnnotation, WorldSample
from tusi.tasks.world.scene import Frame, draw_thing, spoken
from tusi.tasks.world.splits import SPLITS, Split
from tusi.tasks.world.wording import Words

NUM_DENSE_OBJECTS = {1: (2, 4), 2: (4, 6), 3: (6, 10), 4: (8, 14), 5: (10, 18)}


@dataclass(frozen=True, slots=True)
class Turn:
    """A short question and its answer."""

    question: str
    answer: str


@dataclass(frozen=True, slots=True, eq=False)
class DenseScene:
    """A picture full of things, all of them annotated, and questions about it; the first asks for everything."""

    pixels: Pixels
    objects: tuple[ObjectAnnotation, ...]
    texts: tuple[TextAnnotation, ...]
    turns: tuple[Turn, ...]


def dense_scene(
    seed: int,
    difficulty: int,
    language: Language,
    *,
    split: Split = "train",
    num_turns: int = 6,
    max_objects: int | None = None,
) -> DenseScene:
    """The dense picture of a seed: artwork, artwork on cards, plain shapes and numbers, mixed.

    num_turns: how many questions, the caption included (fewer if the picture does not hold so many different ones).
    max_objects: at most so many things, the printed ones counted apart; None: as many as the difficulty says.
    """
    rng = Rng(derive_key(SPLITS.index(split), "dense", difficulty, seed))
    context, words = Context(rng, difficulty, split, Words(language)), Words(language)
    width, height = picture_size(rng, difficulty)
    canvas = Canvas.ground(rng, width, height, difficulty)
    number = rng.integer(*NUM_DENSE_OBJECTS[difficulty]) if max_objects is None else rng.integer(1, max_objects)
    num_texts = rng.integer(0, 1 if difficulty <= 2 else 3)
    places = scatter(rng, width, height, [object_side(rng, difficulty) for _ in range(number + num_texts)])
    pool = context.pool()
    things, printed = [], []
    style = context.style()
    for place in places[:number]:
        if difficulty >= 3 and rng.chance(0.3):
            style = context.style()
        colour = rng.choice(COLOUR_IDS) if rng.chance(0.35) else None
        concept = rng.choice(SHAPES) if colour is not None and rng.chance(0.4) else rng.choice(pool).id
        things.append(draw_thing(canvas, concept, style, colour, place))
    for place in places[number:]:
        text = str(rng.integer(0, 9 if difficulty == 1 else 99))
        middle = place.side // 2
        box = canvas.text(text, place.x + middle, place.y + middle, place.side * 3 // 5, anchor="mm")
        printed.append((text, box))
    frame = Frame.of(canvas)
    objects, texts = frame.annotate(things), frame.annotate_texts(printed)
    everything = words.pick(rng, ["List everything.", "What is in the picture?"], ["列出所有东西。", "图里有什么？"])
    turns = [Turn(everything, _caption(words, objects, texts))]
    turns += _questions(rng, words, list(objects), texts, num_turns - 1)
    return DenseScene(canvas.pixels, objects, texts, tuple(turns))


def caption(sample: WorldSample, *, frame: int | None = None) -> str:
    """Every object with its centre and size, every printed text, in reading order: "cat (210,300) 240x250, ..."."""
    objects = [thing for thing in sample.objects if thing.frame == frame]
    return _caption(Words(sample.language), objects, sample.texts)


def _caption(words: Words, objects: Sequence[ObjectAnnotation], texts: Sequence[TextAnnotation]) -> str:
    parts = [
        (b[1] + b[3], b[0], f"{words.full(o)} {spot(b)} {spoken(b[2] - b[0])}x{spoken(b[3] - b[1])}")
        for o in objects
        for b in [o.bbox_2d]
    ]
    parts += [(t.bbox_2d[1] + t.bbox_2d[3], t.bbox_2d[0], f'"{t.text}" {spot(t.bbox_2d)}') for t in texts]
    return words.join(part for _, _, part in sorted(parts)) or words("nothing", "没有东西")


def spot(bbox: tuple[int, int, int, int]) -> str:
    """A box's centre, as it is said."""
    return f"({spoken((bbox[0] + bbox[2]) / 2)},{spoken((bbox[1] + bbox[3]) / 2)})"


def dense_questions(sample: WorldSample, count: int) -> list[Turn]:
    """Up to count short questions about a picture's objects and texts; the same ones every time."""
    rng = Rng(derive_key(SPLITS.index(sample.split), "questions", sample.id))
    things = [thing for thing in sample.objects if thing.frame is None]
    return _questions(rng, Words(sample.language), things, sample.texts, count)


def _questions(
    rng: Rng, words: Words, things: list[ObjectAnnotation], texts: Sequence[TextAnnotation], count: int
) -> list[Turn]:
    if count <= 0:
        return []
    makers = _MAKERS if things else ()
    rounds = -(-count // max(1, len(makers)))
    asked = [maker(rng, words, things) for maker in makers for _ in range(rounds)]
    asked += [
        (words(f"What is written at {spot(text.bbox_2d)}?", f"{spot(text.bbox_2d)}写着什么？"), text.text)
        for text in texts
    ]
    # A question asked twice has one answer, so a dictionary removes repetitions.
    unique = list(dict(asked).items())
    return [Turn(question, answer) for question, answer in rng.sample(unique, min(count, len(unique)))]


def _unique(rng: Rng, words: Words, things: list[ObjectAnnotation]) -> tuple[ObjectAnnotation, str]:
    """An object that its description alone picks out, if any does."""
    names = [words.full(thing) for thing in things]
    alone = [i for i, name in enumerate(names) if names.count(name) == 1]
    index = rng.choice(alone) if alone else 0
    return things[index], names[index]


def _where(rng: Rng, words: Words, things: list[ObjectAnnotation]) -> tuple[str, str]:
    thing, name = _unique(rng, words, things)
    if sum(words.full(other) == name for other in things) > 1:
        return _how_many(rng, words, things)
    return words(f"Where is the {name}?", f"{name}在哪里？"), spot(thing.bbox_2d)


def _what(rng: Rng, words: Words, things: list[ObjectAnnotation]) -> tuple[str, str]:
    thing = rng.choice(things)
    return words(f"What is at {spot(thing.bbox_2d)}?", f"{spot(thing.bbox_2d)}是什么？"), words.full(thing)


def _how_many(rng: Rng, words: Words, things: list[ObjectAnnotation]) -> tuple[str, str]:
    concept = rng.choice(things).concept
    number = sum(thing.concept == concept for thing in things)
    return words(f"Number of {words.plural(concept)}?", f"{words.name(concept)}的数量？"), str(number)


def _box(rng: Rng, words: Words, things: list[ObjectAnnotation]) -> tuple[str, str]:
    thing, name = _unique(rng, words, things)
    if sum(words.full(other) == name for other in things) > 1:
        return _how_many(rng, words, things)
    return words(f"Box of the {name}?", f"{name}的框？"), str([spoken(value) for value in thing.bbox_2d])


def _colour(rng: Rng, words: Words, things: list[ObjectAnnotation]) -> tuple[str, str]:
    coloured = [thing for thing in things if thing.colour is not None]
    if not coloured:
        return _what(rng, words, things)
    thing = rng.choice(coloured)
    assert thing.colour is not None
    answer = words(thing.colour, f"{words.colour(thing.colour)}色")
    return words(f"Which colour is at {spot(thing.bbox_2d)}?", f"{spot(thing.bbox_2d)}是什么颜色？"), answer


def _is_there(rng: Rng, words: Words, things: list[ObjectAnnotation]) -> tuple[str, str]:
    there = {thing.concept for thing in things}
    if rng.chance(0.5):
        concept = rng.choice(sorted(there))
    else:
        roles = {"core", "common"}
        concept = rng.choice([c.id for c in load_concepts().values() if c.role in roles])
    name = words.name(concept)
    return words(f"Is there any {name}?", f"有{name}吗？"), words(
        "yes" if concept in there else "no", "有" if concept in there else "没有"
    )


_MAKERS: tuple[Callable[[Rng, Words, list[ObjectAnnotation]], tuple[str, str]], ...] = (
    _where, _what, _how_many, _box, _colour, _is_there,
)  # fmt: skip
