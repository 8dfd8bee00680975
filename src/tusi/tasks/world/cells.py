"""What each merged cell of a picture shows: the dense targets that a vision tower learns from before it learns words.

A cell is 28 x 28 pixels of the resized picture, one image token. Of each the targets say what stands there, its colour,
where the whole of it lies, and which characters are printed in the cell.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from tusi.tasks.world.atlas import COLOURS, SHAPES, load_concepts
from tusi.tasks.world.sample import ObjectAnnotation, TextAnnotation
from tusi.tasks.world.scene import COORDINATE_STEP, spoken
from tusi.tasks.world.wording import Words

CELL = 28
"""Pixels of a merged cell's side: two patches of fourteen."""
IGNORED_CELL = -100
GRAZE = 0.2
"""How far, of a cell, a box may reach into it before the cell no longer shows nothing."""
TEXT = "text"
CHARACTERS = "".join(map(chr, range(33, 127))) + "×÷°²Ω"
NUM_SLOTS = 4
"""Characters told apart in one cell, in reading order."""
MIN_LEGIBLE_PIXELS = 7

BBox = tuple[int, int, int, int]


@cache
def cell_classes() -> tuple[str, ...]:
    """What a cell can show: "" for nothing, every concept in the atlas' order, plain shapes by colour, printed text."""
    return ("", *load_concepts(), *(f"{colour} {shape}" for shape in SHAPES for colour in COLOURS), TEXT)


@cache
def _class_ids() -> dict[str, int]:
    return {name: index for index, name in enumerate(cell_classes())}


@cache
def target_sizes() -> tuple[int, ...]:
    """How many values each of a cell's L targets takes: class, colour, x1, y1, x2, y2, then characters one by one."""
    coordinate = 1000 // COORDINATE_STEP + 1
    return (len(cell_classes()), 1 + len(COLOURS), *(coordinate,) * 4, *(1 + len(CHARACTERS),) * NUM_SLOTS)


def cell_targets(
    objects: Sequence[ObjectAnnotation],
    texts: Sequence[TextAnnotation],
    rows: int,
    columns: int,
    *,
    is_complete: bool = True,
) -> NDArray[np.int64]:
    """[C, L] the targets of the C = rows x columns cells, row by row; IGNORED_CELL where there is nothing to say.

    A cell shows an object when its middle lies in the object's box (an object too small for that takes the cell of its
    centre); one that a box merely touches is ignored, since it shows neither the object nor nothing.
    is_complete: every thing in the picture is annotated, so that a cell without one shows nothing.
    """
    targets_HWL = np.full((rows, columns, len(target_sizes())), IGNORED_CELL, np.int64)
    if is_complete:
        targets_HWL[..., 0] = 0
    for bbox in (*(thing.bbox_2d for thing in objects), *(text.bbox_2d for text in texts)):
        x1, y1, x2, y2 = _in_cells(bbox, rows, columns)
        across, down = slice(int(x1 + GRAZE), math.ceil(x2 - GRAZE)), slice(int(y1 + GRAZE), math.ceil(y2 - GRAZE))
        targets_HWL[down, across] = IGNORED_CELL
    for thing in objects:
        _mark(targets_HWL, thing.bbox_2d, _name(thing), thing.colour)
    for text in texts:
        _mark(targets_HWL, text.bbox_2d, TEXT, None)
        _mark_characters(targets_HWL, text)
    return targets_HWL.reshape(rows * columns, -1)


def cell_words(
    objects: Sequence[ObjectAnnotation], texts: Sequence[TextAnnotation], rows: int, columns: int
) -> list[tuple[str, ...]]:
    """What could be said of each of the C cells in either language: names, colours, printed characters, or nothing."""
    words_HW: list[list[tuple[str, ...]]] = [[()] * columns for _ in range(rows)]
    for thing in objects:
        x1, y1, x2, y2 = _in_cells(thing.bbox_2d, rows, columns)
        for row in range(rows)[_covered(y1, y2, rows)]:
            for column in range(columns)[_covered(x1, x2, columns)]:
                words_HW[row][column] = _words(thing)
    for text in texts:
        for row, column, character in _legible_characters(text, rows, columns):
            words_HW[row][column] += (character,)
    return [words for words_W in words_HW for words in words_W]


def _words(thing: ObjectAnnotation) -> tuple[str, ...]:
    names = (Words("en").name(thing.concept), Words("zh").name(thing.concept))
    return names if thing.colour is None else (*names, thing.colour, Words("zh").colour(thing.colour))


def _name(thing: ObjectAnnotation) -> str:
    return f"{thing.colour} {thing.concept}" if thing.concept in SHAPES else thing.concept


def _in_cells(bbox: BBox, rows: int, columns: int) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = bbox
    return x1 * columns / 1000, y1 * rows / 1000, x2 * columns / 1000, y2 * rows / 1000


def _mark(targets_HWL: NDArray[np.int64], bbox: BBox, name: str, colour: str | None) -> None:
    rows, columns, _ = targets_HWL.shape
    x1, y1, x2, y2 = _in_cells(bbox, rows, columns)
    cells = targets_HWL[_covered(y1, y2, rows), _covered(x1, x2, columns)]
    cells[..., 0] = _class_ids()[name]
    cells[..., 1] = 0 if colour is None else 1 + list(COLOURS).index(colour)
    cells[..., 2:6] = [min(1000, spoken(value)) // COORDINATE_STEP for value in bbox]
    cells[..., 6:] = IGNORED_CELL


def _mark_characters(targets_HWL: NDArray[np.int64], text: TextAnnotation) -> None:
    rows, columns, _ = targets_HWL.shape
    used: dict[int, int] = {}
    for row, column, character in _legible_characters(text, rows, columns):
        if column not in used:
            used[column] = 0
            targets_HWL[row, column, 6:] = 0
        if used[column] < NUM_SLOTS:
            targets_HWL[row, column, 6 + used[column]] = 1 + CHARACTERS.index(character)
            used[column] += 1


def _legible_characters(text: TextAnnotation, rows: int, columns: int) -> Iterator[tuple[int, int, str]]:
    """Row, column and character: each in the cell that its middle lies in, taking them to be equally wide."""
    x1, y1, x2, y2 = _in_cells(text.bbox_2d, rows, columns)
    if (y2 - y1) * CELL < MIN_LEGIBLE_PIXELS or not set(text.text) <= {*CHARACTERS, " "}:
        return
    row = min(rows - 1, int((y1 + y2) / 2))
    for index, character in enumerate(text.text):
        if character != " ":
            yield row, min(columns - 1, int(x1 + (x2 - x1) * (index + 0.5) / len(text.text))), character


def _covered(low: float, high: float, count: int) -> slice:
    """The cells of an axis whose middles lie in [low, high] (in cells), at least the one under the centre."""
    first, last = math.ceil(low - 0.5), math.floor(high - 0.5)
    if last < first:
        first = last = min(count - 1, int((low + high) / 2))
    return slice(max(0, first), min(count, last + 1))
