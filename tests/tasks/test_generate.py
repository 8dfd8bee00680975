"""The world as a whole: every family, kind, difficulty, language and split gives a valid, right, repeatable sample."""

from __future__ import annotations

import pickle
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.fixtures.world_solver import named, refer, solve
from tusi.chat.messages import ImagePart, TextPart
from tusi.core.errors import ConfigError
from tusi.tasks.gold import BoxesGold, BoxGold, ChoiceGold, LabelledBox, NumberGold, PointGold, TextGold, TimeGold
from tusi.tasks.scoring import score
from tusi.tasks.world import DIFFICULTIES, FAMILIES, LANGUAGES, SPLITS, Clip, WorldSample, generate, kinds
from tusi.tasks.world.atlas import load_concepts
from tusi.tasks.world.database import is_trained, name_of
from tusi.tasks.world.rng import derive_key
from tusi.tasks.world.sample import Pixels
from tusi.tasks.world.scene import COORDINATE_STEP
from tusi.tasks.world.splits import HELDOUT_STYLE, TRAINED_STYLES

KINDS = [(family, kind) for family in FAMILIES for kind in kinds(family, 5)]


def samples(family: str, kind: str, *, seeds: int = 2, split: str = "train") -> Iterator[WorldSample]:
    seeds = 1 if family == "zoom" else seeds  # its canvases are large
    for difficulty in DIFFICULTIES:
        if kind in kinds(family, difficulty):
            for language in LANGUAGES:
                for seed in range(seeds):
                    yield generate(family, difficulty, language, seed, split, kind=kind)  # type: ignore[arg-type]


def frames(sample: WorldSample) -> list[np.ndarray]:
    medium = sample.media[0]
    return list(medium.frames) if isinstance(medium, Clip) else [medium]


def wrong_answers(sample: WorldSample) -> list[str]:
    """Answers near the right one."""
    gold = sample.gold
    match gold:
        case TextGold():
            return [rival for rival in gold.rivals[:12] if rival not in gold.accepted]
        case NumberGold():
            return [str(gold.value + 1), str(gold.value - 1), str(gold.value * 10 + 3)]
        case ChoiceGold():
            return [letter for letter in "ABCD"[: len(gold.options)] if letter != gold.letter]
        case BoxGold():
            x1, y1, x2, y2 = gold.box.bbox_2d
            moved = [x1 + 0.6 * (x2 - x1), y1, x2 + 0.6 * (x2 - x1), y2]
            return [f"[{moved[0]}, {moved[1]}, {moved[2]}, {moved[3]}]", f"[{x2}, {y2}, {x1}, {y1}]"]
        case BoxesGold():
            return ['[{"bbox_2d": [0, 0, 1, 1], "label": "x"}]', "[]" if gold.boxes else "[0, 0, 500, 500]"]
        case PointGold():
            x1, y1, x2, y2 = gold.bbox_2d
            return [f"[{x2 + 3}, {y2}]", f"({x1 - 3}, {y1})"]
        case TimeGold():
            return [f"{gold.seconds + 2 * gold.tolerance + 0.1} s", f"{gold.seconds - 2 * gold.tolerance - 0.1}秒"]


@pytest.mark.parametrize(("family", "kind"), KINDS)
def test_gold_scores_one_and_wrong_answers_zero(family: str, kind: str) -> None:
    for sample in samples(family, kind):
        assert score(sample.gold, sample.answer) == 1, sample.id
        assert score(sample.gold, f"<think>{sample.answer}</think>") == 0 or sample.answer == "[]", sample.id
        for wrong in [*wrong_answers(sample), "", "I do not know."]:
            assert score(sample.gold, wrong) == 0, (sample.id, wrong, sample.gold)
            thought = f"maybe {wrong}\n</think>\n\n{sample.answer}"
            assert score(sample.gold, thought) == 1, (sample.id, wrong)


@pytest.mark.parametrize(("family", "kind"), KINDS)
def test_the_same_arguments_give_the_same_sample(family: str, kind: str) -> None:
    for sample in samples(family, kind, seeds=1):
        again = generate(family, sample.difficulty, sample.language, sample.seed, kind=kind)
        ours, theirs = (pickle.dumps(s) for s in (sample, again))
        assert ours == theirs
        other = generate(family, sample.difficulty, sample.language, sample.seed + 1, kind=kind)
        assert pickle.dumps(replace(other, seed=sample.seed, id=sample.id)) != ours


@pytest.mark.parametrize("family", FAMILIES)
def test_a_kind_that_was_drawn_and_one_that_was_asked_for_are_one_sample(family: str) -> None:
    drawn = generate(family, 3, "en", 11)
    assert pickle.dumps(generate(family, 3, "en", 11, kind=drawn.kind)) == pickle.dumps(drawn)


@pytest.mark.parametrize(("family", "kind"), KINDS)
def test_both_languages_show_the_same_picture(family: str, kind: str) -> None:
    english, chinese = (generate(family, 4, language, 5, kind=kind) for language in LANGUAGES)
    assert all((a == b).all() for a, b in zip(frames(english), frames(chinese), strict=True))
    assert english.question != chinese.question
    said = [message.reasoning or "" for message in english.trace] + [english.question]
    assert not re.search(r"[\u4e00-\u9fff]", "".join(said))


@pytest.mark.parametrize(("family", "kind"), KINDS)
def test_pictures_and_boxes_are_what_the_model_can_take(family: str, kind: str) -> None:
    for sample in samples(family, kind, seeds=1):
        for frame in frames(sample):
            assert frame.dtype == np.uint8
            assert frame.ndim == 3
            assert frame.shape[2] == 3
            if family != "zoom":
                assert frame.shape[0] % 28 == frame.shape[1] % 28 == 0
                assert frame.shape[0] * frame.shape[1] <= 100 * 28 * 28
            else:
                assert 800 <= frame.shape[1] <= 2000
        for item in (*sample.objects, *sample.texts):
            x1, y1, x2, y2 = item.bbox_2d
            assert 0 <= x1 < x2 <= 1000, sample.id
            assert 0 <= y1 < y2 <= 1000, sample.id
        if isinstance(sample.media[0], Clip):
            assert len(sample.media[0].times) == len(sample.media[0].frames)
            assert all(thing.frame is not None for thing in sample.objects)


def even_light(pixels: Pixels) -> NDArray[np.float64]:
    """The bare ground: its light changes evenly across and downwards, so three corners tell all of it."""
    corner, right, bottom = (pixels[y, x].astype(float) for y, x in ((0, 0), (0, -1), (-1, 0)))
    across, down = (np.linspace(0, 1, side) for side in (pixels.shape[1], pixels.shape[0]))
    return corner + across[None, :, None] * (right - corner) + down[:, None, None] * (bottom - corner)


@pytest.mark.parametrize("kind", ["relation", "count", "compare", "odd_one"])
def test_boxes_are_tight_around_what_is_drawn(kind: str) -> None:
    checked = 0
    for seed in range(12):
        sample = generate("reasoning", 1, "en", seed, kind=kind)
        pixels = frames(sample)[0]
        height, width = pixels.shape[:2]
        differs = np.abs(pixels - even_light(pixels)).max(axis=2) > 6
        covered = np.zeros_like(differs)
        for thing in sample.objects:
            x1, y1, x2, y2 = (
                round(v * side / 1000) for v, side in zip(thing.bbox_2d, (width, height) * 2, strict=True)
            )
            rows = np.flatnonzero(differs[y1:y2, x1:x2].any(axis=1))
            columns = np.flatnonzero(differs[y1:y2, x1:x2].any(axis=0))
            drawn = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
            assert np.abs(np.subtract(drawn, (0, 0, x2 - x1, y2 - y1))).max() <= 2, (sample.id, thing, drawn)
            covered[max(0, y1 - 2) : y2 + 2, max(0, x1 - 2) : x2 + 2] = True
            checked += 1
        assert not (differs & ~covered).any(), f"{sample.id}: something is drawn outside all boxes"
    assert checked > 20


@pytest.mark.parametrize("kind", ["relation", "count", "compare", "odd_one"])
def test_an_independent_solver_finds_the_gold_answer(kind: str) -> None:
    solved = 0
    for difficulty in DIFFICULTIES:
        for seed in range(25):
            sample = generate("reasoning", difficulty, "en", seed, "eval", kind=kind)
            answer = solve(sample)
            if answer is not None:
                solved += 1
                assert score(sample.gold, answer) == 1, (sample.question, answer, sample.gold)
    assert solved > 60


@pytest.mark.parametrize("kind", ["refer", "point"])
def test_referring_expressions_mean_exactly_one_thing(kind: str) -> None:
    for difficulty in DIFFICULTIES:
        for seed in range(25):
            sample = generate("grounding", difficulty, "en", seed, "eval", kind=kind)
            match = re.match(r"(?:Box|Where is|Find|Point at|Point to) the (.+?)[.?] Answer", sample.question)
            assert match, sample.question
            pixels = frames(sample)[0]
            thing = refer(list(sample.objects), match[1], (pixels.shape[1], pixels.shape[0]))
            gold = sample.gold.box.bbox_2d if isinstance(sample.gold, BoxGold) else sample.gold.bbox_2d  # type: ignore[union-attr]
            assert thing.bbox_2d == gold, sample.question


def test_all_of_them_are_all_of_them() -> None:
    empty = 0
    for difficulty in DIFFICULTIES:
        for seed in range(25):
            sample = generate("grounding", difficulty, "en", seed, kind="all")
            match = re.match(r"(?:Box|Find) all (.+?)(?: on (\w+) cards)?\. Answer", sample.question)
            assert match
            assert isinstance(sample.gold, BoxesGold)
            meant = [t for t in named(list(sample.objects), match[1]) if match[2] is None or t.colour == match[2]]
            assert {t.bbox_2d for t in meant} == {box.bbox_2d for box in sample.gold.boxes}, sample.question
            empty += not meant
    assert empty > 0


def test_clips_happen_when_the_gold_says() -> None:
    for difficulty in DIFFICULTIES:
        for seed in range(20):
            sample = generate("video", difficulty, "en", seed, kind="come_and_go")
            clip = sample.media[0]
            assert isinstance(clip, Clip)
            present: dict[str, set[int]] = {}
            for thing in sample.objects:
                assert thing.frame is not None
                present.setdefault(thing.concept, set()).add(thing.frame)
            changing = {concept: seen for concept, seen in present.items() if len(seen) < len(clip.frames)}
            ((_, seen),) = changing.items()
            at = min(seen) if 0 not in seen else max(seen) + 1
            if isinstance(sample.gold, TimeGold):
                assert sample.gold.seconds == clip.times[at]


def test_the_order_of_appearance_is_strict() -> None:
    for difficulty in DIFFICULTIES:
        sample = generate("video", difficulty, "en", 3, kind="order")
        first = {}
        for thing in sample.objects:
            first.setdefault(thing.concept, thing.frame)
        assert len(set(first.values())) == len(first) > 1


def test_training_never_shows_what_is_held_out() -> None:
    heldout = [concept for concept in load_concepts().values() if concept.role == "heldout"]
    names = re.compile("|".join(rf"\b{c.en}s?\b|{c.zh}" for c in heldout))
    for family, kind in KINDS:
        for sample in samples(family, kind):
            for thing in sample.objects:
                concept = load_concepts().get(thing.concept)
                assert thing.style in TRAINED_STYLES
                assert concept is None or concept.role != "heldout"
                assert concept is None or concept.role != "longtail" or family == "tool_use"
            texts = [sample.question, *(m.text + (m.reasoning or "") for m in sample.trace)]
            assert not names.search(" ".join(texts)), sample.id


def test_held_out_splits_show_only_what_is_held_out() -> None:
    for family, kind in KINDS:
        for sample in samples(family, kind, seeds=1, split="heldout_style"):
            assert {thing.style for thing in sample.objects} <= {HELDOUT_STYLE}
        for sample in samples(family, kind, seeds=1, split="heldout_concepts"):
            roles = {load_concepts()[t.concept].role for t in sample.objects if t.concept in load_concepts()}
            assert roles <= {"heldout", "longtail"}


def test_keys_of_different_splits_can_never_meet() -> None:
    keys = {split: {derive_key(i, 1, "stem", 1, seed) for seed in range(500)} for i, split in enumerate(SPLITS)}
    assert len(set().union(*keys.values())) == 500 * len(SPLITS)
    assert all(key % 4 == i for i, split in enumerate(SPLITS) for key in keys[split])


def test_catalogue_halves_are_disjoint() -> None:
    records = {
        split: {generate("tool_use", 3, "en", seed, split, kind="image_search").record for seed in range(30)}  # type: ignore[arg-type]
        for split in ("train", "eval")
    }
    assert all(number is not None and is_trained(number) for number in records["train"])
    assert not any(number is None or is_trained(number) for number in records["eval"])


def test_nothing_in_an_entry_tells_which_half_it_is_of() -> None:
    halves = [[n for n in range(1000, 10000) if is_trained(n) == trained] for trained in (True, False)]
    for part in (lambda n: n % 10, lambda n: name_of(n)[:2], lambda n: name_of(n)[2:4], lambda n: name_of(n)[4:]):
        trained, held_out = (Counter(map(part, half)) for half in halves)
        assert trained.keys() == held_out.keys()
        assert all(0.5 < trained[key] / held_out[key] < 2 for key in trained)


def test_spoken_coordinates_are_multiples_of_the_step() -> None:
    for seed in range(10):
        sample = generate("grounding", 4, "en", seed, kind="all")
        numbers = [int(n) for n in re.findall(r"\d+", sample.answer.replace("bbox_2d", ""))]
        assert all(number % COORDINATE_STEP == 0 for number in numbers)


def test_traces_are_turns_that_end_in_the_answer() -> None:
    for family, kind in KINDS:
        sample = generate(family, 5, "zh", 1, kind=kind)
        assert [m.role for m in sample.trace[::2]] == ["assistant"] * (len(sample.trace) // 2 + 1)
        assert all(m.role == "tool" and m.tool_call_id for m in sample.trace[1::2])
        assert all(m.reasoning for m in sample.trace if m.role == "assistant")
        assert all(len(m.reasoning or "") <= 260 for m in sample.trace), sample.id
        assert set(sample.expected_tools) <= set(sample.tools)
        assert all(isinstance(p, TextPart | ImagePart) for m in sample.trace for p in m.content)


def test_zoom_questions_need_the_zoom() -> None:
    for kind in kinds("zoom", 5):
        sample = generate("zoom", 4, "en", 2, kind=kind)
        assert len(sample.expected_tools) == (2 if kind in ("pair", "nested") else 1)


@pytest.mark.parametrize(
    ("changed", "advice"),
    [
        ({"family": "maths"}, "stem"),
        ({"difficulty": 6}, "1, 2, 3, 4, 5"),
        ({"difficulty": True}, "1, 2, 3, 4, 5"),
        ({"language": "fr"}, "en, zh"),
        ({"split": "test"}, "heldout_style"),
        ({"kind": "gear"}, "relation"),
    ],
)
def test_what_does_not_exist_is_refused_with_what_does(changed: dict[str, object], advice: str) -> None:
    arguments = {"family": "reasoning", "difficulty": 1, "language": "en", "seed": 0} | changed
    with pytest.raises(ConfigError, match=advice):
        generate(**arguments)  # type: ignore[arg-type]


def test_labelled_boxes_name_what_they_hold() -> None:
    sample = generate("grounding", 3, "en", 4, kind="refer")
    assert isinstance(sample.gold, BoxGold)
    assert isinstance(sample.gold.box, LabelledBox)
    assert sample.gold.box.label in sample.answer
