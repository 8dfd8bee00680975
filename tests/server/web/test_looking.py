"""A person gives a picture and watches the model look: thoughts, a crop, boxes where they belong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.fixtures.http_server import Running, wait_until
from tests.server.web.conftest import GREEN, HEIGHT, RED, WIDTH, answered, ask, is_near, pixels_of, until
from tests.server.web.story import BOX, BOXES, THOUGHT, StoryBackend
from tusi.chat.messages import ImagePart

OpenPage = Callable[..., Any]
MARKS = [(86, 180, 233), (0, 158, 115)]
"""Colours of the second and third mark (the zoom has the first)."""


def span(line: np.ndarray) -> tuple[int, int]:
    """First and last place where something is."""
    places = np.flatnonzero(line)
    return int(places[0]), int(places[-1]) + 1


def expected(box: Any, pixels: np.ndarray) -> tuple[float, ...]:
    height, width = pixels.shape[:2]
    return box[0] * width / 1000, box[1] * height / 1000, box[2] * width / 1000, box[3] * height / 1000


def frame(pixels: np.ndarray, colour: tuple[int, int, int], box: Any) -> tuple[int, int, int, int]:
    """Where the lines of a frame of this colour lie, measured across its middle and near its right end."""
    seen = is_near(pixels, colour)
    x1, y1, x2, y2 = expected(box, pixels)
    left, right = span(seen[round((y1 + y2) / 2)])
    top, bottom = span(seen[:, round(x2 - 0.06 * (x2 - x1))])
    return left, top, right, bottom


@pytest.mark.parametrize(
    "options",
    [
        {"viewport": {"width": 1280, "height": 900}},
        {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2, "is_mobile": True, "has_touch": True},
    ],
    ids=["desktop", "phone"],
)
def test_boxes_are_drawn_at_the_right_pixels(
    site: Running, open_page: OpenPage, fields: Path, options: dict[str, Any]
) -> None:
    page = open_page(site, **options)
    ask(page, "look at this", fields)
    answer = answered(page)
    stage = answer.locator(".answer-figure .stage")
    until(page, "document.querySelector('.answer-figure img').complete")
    page.mouse.move(1, 1)
    pixels = pixels_of(stage)
    assert pixels.shape[1] / pixels.shape[0] == pytest.approx(WIDTH / HEIGHT, rel=0.01)
    for box, colour, field in zip(BOXES, MARKS, (GREEN, RED), strict=True):
        found = frame(pixels, colour, box["bbox_2d"])
        assert found == pytest.approx(expected(box["bbox_2d"], pixels), abs=2)
        # And the same against what is in the picture: the field shows right up to its frame, and nowhere else.
        rows, columns = np.nonzero(is_near(pixels, field))
        inside = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        line = 3 * options.get("device_scale_factor", 1)
        distances = [int(abs(a - b)) for a, b in zip(found, inside, strict=True)]
        assert max(distances) <= line + 2, distances


def test_a_thought_streams_and_folds(site: Running, open_page: OpenPage, fields: Path, story: StoryBackend) -> None:
    story.pause = 0.05
    page = open_page(site)
    ask(page, "look at this", fields)
    thought = page.locator("details.thought").first
    page.wait_for_selector("details.thought[open].is-thinking")
    early = thought.locator(".prose").inner_text()
    until(page, f"document.querySelector('.thought .prose').innerText.length > {len(early)}")
    story.pause = 0.0
    answered(page)
    assert thought.get_attribute("open") is None
    thought.locator("summary").click()
    assert thought.locator(".prose").inner_text() == THOUGHT.replace("*", "")
    assert thought.locator("strong").inner_text() == "I look closer"


def test_a_call_shows_its_crop_and_where_it_looked(site: Running, open_page: OpenPage, fields: Path) -> None:
    page = open_page(site)
    ask(page, "look at this", fields)
    answered(page)
    tool = page.locator(".tool")
    assert tool.locator(".tool-title").inner_text() == "Looked closer: the green field"
    crop = pixels_of(tool.locator(".is-crop img"))
    assert is_near(crop[20:-20, 20:-20], GREEN).all()
    # Where it looked: the field alone keeps its colour, all else is dimmed.
    where = pixels_of(tool.locator(".zoom-from .stage"))
    x1, y1, x2, y2 = (round(value) for value in expected(BOX, where))
    assert is_near(where[y1 + 25 : y2 - 4, x1 + 25 : x2 - 4], GREEN).all()
    assert not is_near(where, RED).any()
    # It stands between the thought before it and the one after it.
    order = "[...document.querySelectorAll('.turn > *')].map((item) => item.classList[0])"
    assert page.evaluate(order) == ["thought", "tool", "thought", "prose"]


def test_pointing_at_a_name_lights_up_its_box(site: Running, open_page: OpenPage, fields: Path) -> None:
    page = open_page(site)
    ask(page, "look at this", fields)
    answer = answered(page)
    answer.locator(".legend .chip", has_text="red").hover()
    lit = answer.locator(".answer-figure .mark.is-lit")
    assert lit.count() == 1
    assert lit.inner_text() == "2 red"
    page.mouse.move(1, 1)
    assert answer.locator(".mark.is-lit").count() == 0
    answer.locator(".legend .chip", has_text="green").focus()
    assert answer.locator(".answer-figure .mark.is-lit").inner_text() == "1 green"


def test_pointing_at_a_box_lights_up_its_name(site: Running, open_page: OpenPage, fields: Path) -> None:
    page = open_page(site)
    ask(page, "look at this", fields)
    answer = answered(page)
    stage = answer.locator(".answer-figure .stage")
    stage.scroll_into_view_if_needed()
    place = stage.bounding_box()
    for x, y, name in ((0.7, 0.35, "green"), (0.25, 0.75, "red")):
        page.mouse.move(place["x"] + x * place["width"], place["y"] + y * place["height"])
        assert answer.locator(".chip.is-lit .chip-label").all_inner_texts() == [name]
    page.mouse.move(place["x"] + 0.5 * place["width"], place["y"] + 0.55 * place["height"])
    assert answer.locator(".is-lit").count() == 0


def test_a_box_in_a_sentence_stays_there(site: Running, open_page: OpenPage, fields: Path) -> None:
    page = open_page(site)
    ask(page, "one please", fields)
    answer = answered(page)
    said = answer.locator(".turn > .prose > p").inner_text()
    assert said.split() == ["It", "is", "here:", "1", "红色", ",", "at", "the", "left."]
    stage = answer.locator(".gallery .stage")
    found = frame(pixels_of(stage), (230, 159, 0), [100, 600, 400, 900])
    assert found == pytest.approx(expected([100, 600, 400, 900], pixels_of(stage)), abs=2)


def test_boxes_appear_while_they_are_written(
    site: Running, open_page: OpenPage, fields: Path, story: StoryBackend
) -> None:
    page = open_page(site)
    story.pause_at = '"label": "green"'
    ask(page, "look at this", fields)
    page.wait_for_selector(".is-answer[aria-busy=true] .answer-figure .mark")
    assert page.locator(".answer-figure .mark").count() == 1
    assert "\ufdd0" not in page.locator(".is-answer").inner_text()
    story.go_on()
    answered(page)
    assert page.locator(".answer-figure .mark").count() == 2


def test_what_the_server_gets_back_is_what_the_model_saw(
    site: Running, open_page: OpenPage, fields: Path, story: StoryBackend
) -> None:
    page = open_page(site)
    ask(page, "look at this", fields)
    answered(page)
    ask(page, "sum now")
    wait_until(lambda: len(story.requests) >= 3)
    roles = [message.role for message in story.requests[2].messages]
    assert roles == ["user", "assistant", "tool", "assistant", "user"]
    [crop] = story.requests[2].messages[2].content
    assert isinstance(crop, ImagePart)
    answered(page)


def test_facts_are_shown(site: Running, open_page: OpenPage, fields: Path) -> None:
    page = open_page(site)
    assert page.locator(".model-name").inner_text() == "story"
    assert page.locator(".precision").inner_text() == "int8"
    assert page.locator(".context").inner_text() == "4.1K tokens of context"
    ask(page, "look at this", fields)
    answer = answered(page)
    speed, tokens, left = answer.locator(".facts span").all_inner_texts()
    assert float(speed.split()[0].replace(",", "")) > 0
    assert speed.endswith("tokens/s")
    assert int(tokens.split()[0].replace(",", "")) > len(THOUGHT)
    assert 0 < int(left.split()[0].replace(",", "")) < 4096
