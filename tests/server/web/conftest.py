"""A real browser before the real server. Without a browser these tests are skipped, and say how to get one."""

from __future__ import annotations

import io
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.fixtures.http_server import Running, running
from tests.server.web.story import BOX, BOXES, StoryBackend
from tusi.agent.tools.calculator import Calculator
from tusi.agent.tools.zoom import ImageZoomInTool
from tusi.server.facts import ModelFacts
from tusi.server.server_tools import ServerTools

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "microsoft-edge")
TOOLS = ServerTools((ImageZoomInTool(), Calculator()))
GREEN, RED, WHITE = (30, 160, 70), (200, 40, 40), (255, 255, 255)
WIDTH, HEIGHT = 1200, 800


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Headless Chromium, driven by Playwright."""
    api = pytest.importorskip("playwright.sync_api", reason="no Playwright; pip install playwright")
    with api.sync_playwright() as playwright:
        path = _find(Path(playwright.chromium.executable_path))
        if path is None:
            pytest.skip("no browser; run `playwright install chromium`, or name one in TUSI_TEST_BROWSER")
        arguments = ["--no-sandbox", "--disable-dev-shm-usage", "--force-color-profile=srgb"]
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()


def _find(own: Path) -> str | None:
    """A browser that somebody named, Playwright's own, or one of the system."""
    named = os.environ.get("TUSI_TEST_BROWSER")
    if named is not None:
        return named
    return str(own) if own.exists() else next(filter(None, map(shutil.which, NAMES)), None)


@pytest.fixture
def story(monkeypatch: pytest.MonkeyPatch) -> StoryBackend:
    facts = ModelFacts(precision="int8", max_model_len=4096, can_switch_thinking=True)
    monkeypatch.setattr(ModelFacts, "of", classmethod(lambda _cls, _backend: facts))
    return StoryBackend(pause=0.005)


@pytest.fixture
def site(story: StoryBackend) -> Iterator[Running]:
    with running(story, tools=TOOLS) as server:
        yield server


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens the page of a server in a browser that has never been there. Its console must stay silent.

    allowed: what the console may say all the same. script: runs before the page does.
    """
    contexts = []

    def open_page(server: Running, *, allowed: str | None = None, script: str = "", **options: Any) -> Any:
        context = browser.new_context(**{"locale": "en-US", "viewport": {"width": 1280, "height": 900}} | options)
        context.set_default_timeout(60_000)
        said: list[str] = []
        contexts.append((context, said))
        page = context.new_page()
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
        page.said = lambda: [text for text in said if allowed is None or allowed not in text]
        page.add_init_script(script)
        page.goto(server.url)
        page.wait_for_selector("#message")
        return page

    yield open_page
    for context, _ in contexts:
        pages = context.pages
        complaints = [text for page in pages for text in page.said()]
        context.close()
        assert complaints == []


@pytest.fixture
def fields(tmp_path: Path) -> Path:
    """A white picture with a green field that the story zooms into, and a red one."""
    pixels = np.full((HEIGHT, WIDTH, 3), WHITE, np.uint8)
    for colour, (x1, y1, x2, y2) in ((GREEN, BOX), (RED, BOXES[1]["bbox_2d"])):
        pixels[y1 * HEIGHT // 1000 : y2 * HEIGHT // 1000, x1 * WIDTH // 1000 : x2 * WIDTH // 1000] = colour
    path = tmp_path / "fields.png"
    Image.fromarray(pixels).save(path)
    return path


# ---- what a person does


def attach(page: Any, *files: Path) -> None:
    page.set_input_files(".composer input[type=file]", [str(file) for file in files])
    page.wait_for_selector(".composer .attachments :is(img, video)")


def ask(page: Any, text: str, *files: Path) -> None:
    if files:
        attach(page, *files)
    page.fill("#message", text)
    page.keyboard.press("Enter")


def answered(page: Any) -> Any:
    """The last answer, once it is complete."""
    page.wait_for_selector(".messages > .is-answer:last-child[aria-busy=false]")
    return page.locator(".is-answer").last


def until(page: Any, expression: str, seconds: float = 60.0) -> None:
    """Wait until a JavaScript expression holds. (Playwright's own way needs eval, which the page's policy forbids.)"""
    end = time.monotonic() + seconds
    while not page.evaluate(expression):
        assert time.monotonic() < end, f"it never held: {expression}"
        page.wait_for_timeout(10)


def shows(page: Any, read: Callable[[], object], expected: object, seconds: float = 60.0) -> None:
    """Wait until what is read from the page is what is expected: the page draws when it gets to it."""
    end = time.monotonic() + seconds
    while (found := read()) != expected:
        assert time.monotonic() < end, f"{found!r} never became {expected!r}"
        page.wait_for_timeout(10)


def pixels_of(element: Any) -> np.ndarray:
    """What of an element is seen."""
    return np.asarray(Image.open(io.BytesIO(element.screenshot())).convert("RGB")).astype(int)


def is_near(pixels: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    return (np.abs(pixels - np.array(colour)) <= 6).all(axis=-1)
