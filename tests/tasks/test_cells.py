"""What each cell is said to show agrees with the picture's annotations."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tusi.tasks.world.atlas import COLOURS
from tusi.tasks.world.cells import CHARACTERS, IGNORED_CELL, TEXT, cell_classes, cell_targets, cell_words, target_sizes
from tusi.tasks.world.dense import dense_scene
from tusi.tasks.world.generate import generate
from tusi.tasks.world.sample import ObjectAnnotation, TextAnnotation

BBox = tuple[int, int, int, int]


def thing(concept: str, bbox: BBox, colour: str | None = None) -> ObjectAnnotation:
    return ObjectAnnotation(concept, "twitter", colour, bbox)


def grid(objects: list[ObjectAnnotation], texts: list[TextAnnotation] = [], **kwargs: bool) -> NDArray[np.int64]:  # noqa: B006
    """Four by four cells of 250 units each."""
    return cell_targets(objects, texts, 4, 4, **kwargs).reshape(4, 4, -1)


def test_a_cell_shows_what_covers_its_middle() -> None:
    # The cat covers the middles of the top left quarter, the circle only touches.
    classes = grid([thing("cat", (0, 0, 480, 490)), thing("circle", (760, 760, 820, 820), "red")])[..., 0]
    assert (classes[:2, :2] == cell_classes().index("cat")).all()
    assert classes[3, 3] == cell_classes().index("red circle")
    assert (classes == 0).sum() == 11


def test_a_cell_that_is_half_covered_teaches_nothing() -> None:
    targets = grid([thing("cat", (0, 0, 340, 250))])
    assert targets[0, 0, 0] == cell_classes().index("cat")
    assert (targets[0, 1] == IGNORED_CELL).all()
    assert (targets[1:, :, 0] == 0).all()
    assert (targets[1:, :, 1:] == IGNORED_CELL).all()


def test_a_cell_knows_the_colour_and_the_whole_box_of_its_object() -> None:
    targets = grid([thing("cat", (0, 250, 496, 1000), "green")])
    assert (targets[1:, :2, 1] == 1 + list(COLOURS).index("green")).all()
    assert (targets[1:, :2, 2:6] == [0, 25, 50, 100]).all()


def test_where_not_all_is_annotated_no_cell_is_said_to_be_empty() -> None:
    targets = grid([thing("cat", (0, 0, 250, 250))], is_complete=False)
    assert targets[0, 0, 0] > 0
    assert (targets[1:] == IGNORED_CELL).all()


def test_characters_lie_in_the_cells_of_their_middles_in_order() -> None:
    # Five characters over two and a half cells: two in the first, two in the second, one in the third.
    targets = grid([], [TextAnnotation("1 2+3", (0, 250, 625, 500))])
    row = targets[1]
    assert (row[:2, 0] == cell_classes().index(TEXT)).all()
    assert row[:, 6:].tolist() == [
        [1 + CHARACTERS.index("1"), 0, 0, 0],
        [1 + CHARACTERS.index("2"), 1 + CHARACTERS.index("+"), 0, 0],
        [1 + CHARACTERS.index("3"), 0, 0, 0],
        [IGNORED_CELL] * 4,
    ]


def test_print_too_small_to_read_is_not_asked_for() -> None:
    assert (grid([], [TextAnnotation("12", (0, 0, 200, 60))])[..., 6:] == IGNORED_CELL).all()


def test_every_object_of_a_scene_has_a_cell() -> None:
    for seed in range(20):
        scene = dense_scene(seed, 1 + seed % 5, "en")
        height, width = (side // 28 for side in scene.pixels.shape[:2])
        classes = cell_targets(scene.objects, scene.texts, height, width)[:, 0]
        shown = {cell_classes()[label] for label in np.unique(classes) if label > 0} - {TEXT}
        assert shown == {t.concept if t.concept in cell_classes() else f"{t.colour} {t.concept}" for t in scene.objects}


@pytest.mark.parametrize("family", ["reasoning", "stem", "grounding", "tool_use"])
def test_targets_are_within_their_sizes(family: str) -> None:
    for seed in range(30):
        sample = generate(family, 1 + seed % 5, "en", seed)
        targets = cell_targets(sample.objects, sample.texts, 6, 7, is_complete=False)
        assert ((targets == IGNORED_CELL) | ((targets >= 0) & (targets < np.array(target_sizes())))).all()
        assert (targets[:, 0] > 0).any() or not (sample.objects or sample.texts)


def test_words_are_said_where_things_stand() -> None:
    objects = [thing("cat", (0, 0, 500, 250)), thing("cat", (0, 500, 250, 750), "red")]
    words = cell_words(objects, [TextAnnotation("42", (750, 750, 1000, 1000))], 4, 4)
    assert words[0] == words[1] == ("cat", "小猫")
    assert words[8] == ("cat", "小猫", "red", "红")
    assert words[15] == ("4", "2")
    assert [i for i, said in enumerate(words) if said] == [0, 1, 8, 15]
