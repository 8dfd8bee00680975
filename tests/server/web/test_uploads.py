"""Pictures and videos are put on the server once, with progress; what the server forgets is put there again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.http_server import Running, running, wait_until
from tests.server.web.conftest import TOOLS, answered, ask, attach, shows, until
from tests.server.web.story import StoryBackend
from tusi.chat.messages import ImagePart
from tusi.processing.sources import KeptFile
from tusi.server.config import ServerConfig

OpenPage = Callable[..., Any]


def watched(page: Any) -> tuple[list[str], list[dict[str, Any]]]:
    """Uploads (their method), and the bodies of questions, as they are sent from now on."""
    uploads: list[str] = []
    asked: list[dict[str, Any]] = []

    def note(request: Any) -> None:
        if request.url.endswith("/v1/files"):
            uploads.append(request.method)
        elif request.url.endswith("/v1/chat/completions"):
            asked.append(json.loads(request.post_data))

    page.on("request", note)
    return uploads, asked


def stored(server: Running) -> list[str]:
    return [file.id for file in server.openai().files.list()]


def test_a_picture_is_sent_once_for_a_whole_conversation(
    site: Running, open_page: OpenPage, fields: Path, story: StoryBackend
) -> None:
    page = open_page(site)
    uploads, asked = watched(page)
    ask(page, "look at this", fields)
    answered(page)
    assert len(uploads) == 1
    ask(page, "sum now")  # names the picture, and the crop, which is uploaded now
    answered(page)
    page.get_by_role("button", name="Answer again").last.click()
    shows(page, lambda: len(asked), 3)
    answered(page)
    page.reload()
    answered(page)
    page.locator(".user-text").first.hover()
    page.get_by_role("button", name="Edit").first.click()
    page.fill(".edit-text", "one more time")
    page.get_by_role("button", name="Send again").click()
    until(page, "document.querySelector('.turn > .prose')?.innerText.includes('It is here')")
    answered(page)
    assert len(uploads) == 2
    assert len(asked) == 4
    assert all("data:" not in json.dumps(body) for body in asked)
    seen = {
        part.source for request in story.requests for part in request.messages[0].content if isinstance(part, ImagePart)
    }
    assert len(seen) == 1
    assert all(isinstance(source, KeptFile) for source in seen)
    assert sorted(stored(site)) == sorted(source.path.name for source in {*seen, *crops(story)})


def crops(story: StoryBackend) -> set[Any]:
    tools = [message for request in story.requests for message in request.messages if message.role == "tool"]
    parts = [part for message in tools for part in message.content if isinstance(part, ImagePart)]
    return {part.source for part in parts if isinstance(part.source, KeptFile)}


def test_progress_is_shown_beside_the_picture_and_then_with_the_answer(
    site: Running, open_page: OpenPage, fields: Path
) -> None:
    page = open_page(site)
    held: list[Any] = []
    page.route("**/v1/files", lambda route: held.append(route))
    attach(page, fields)
    assert page.locator(".attachments progress").is_visible()
    page.fill("#message", "look at this")
    page.keyboard.press("Enter")
    shows(page, lambda: "Sending fields.png" in page.locator(".is-answer").inner_text(), True)
    held.pop().continue_()
    answered(page)
    assert page.locator(".answer-figure .mark").count() == 2
    assert not held  # it was not sent a second time


def test_an_answer_that_waits_for_an_upload_is_stopped(site: Running, open_page: OpenPage, fields: Path) -> None:
    page = open_page(site)
    held: list[Any] = []
    page.route("**/v1/files", lambda route: held.append(route))
    ask(page, "look at this", fields)
    page.wait_for_selector(".is-answer[aria-busy=true]")
    page.keyboard.press("Escape")
    assert "You stopped" in answered(page).inner_text()
    held.pop().continue_()
    page.locator(".note").get_by_role("button", name="Answer again").click()
    shows(page, page.locator(".answer-figure .mark").count, 2)
    answered(page)


def test_what_the_server_has_forgotten_is_sent_again(site: Running, open_page: OpenPage, fields: Path) -> None:
    page = open_page(site, allowed="404")
    uploads, asked = watched(page)
    ask(page, "look at this", fields)
    answered(page)
    [first] = stored(site)
    site.openai().files.delete(first)
    ask(page, "one more")
    answered(page)
    assert "It is here" in page.locator(".is-answer").last.inner_text()
    assert first not in stored(site)
    assert len(uploads) == 4  # the picture, its crop; and both again
    assert len(asked) == 3


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        ({"status": 500, "body": "<html>"}, "The server failed at this."),
        ({"status": 400, "body": '{"error": {"message": "no such purpose."}}'}, "no such purpose."),
        ({"status": 413, "body": "{}"}, "more than the server takes"),
        (None, "cannot be reached"),
    ],
    ids=["failed", "refused", "too-large", "unreachable"],
)
def test_an_upload_that_fails_is_said_and_tried_again(
    site: Running, open_page: OpenPage, fields: Path, failure: dict[str, Any] | None, words: str
) -> None:
    page = open_page(site, allowed="Failed to load resource")
    page.route("**/v1/files", lambda route: route.fulfill(**failure) if failure else route.abort())
    ask(page, "look at this", fields)
    answer = answered(page)
    assert words in answer.inner_text()
    page.unroute("**/v1/files")
    answer.get_by_role("button", name="Try again").click()
    shows(page, page.locator(".answer-figure .mark").count, 2)
    answered(page)


def test_a_file_that_is_too_large_is_refused_at_once(story: StoryBackend, open_page: OpenPage, fields: Path) -> None:
    size = fields.stat().st_size
    with running(story, ServerConfig(max_file_bytes=size - 1, drain_seconds=5), tools=TOOLS) as server:
        page = open_page(server)
        page.wait_for_selector(".model-name")
        uploads, _ = watched(page)
        attach(page, fields)
        assert "larger than the server takes" in page.locator(".notice").inner_text()
        page.fill("#message", "look at this")
        page.keyboard.press("Enter")
        assert "Remove a picture or video" in answered(page).inner_text()
        assert uploads == []


def test_what_is_taken_away_is_deleted_there_too(site: Running, open_page: OpenPage, fields: Path) -> None:
    page = open_page(site)
    attach(page, fields)
    wait_until(lambda: len(stored(site)) == 1)
    shows(page, page.locator(".attachments progress").is_visible, False)
    page.get_by_role("button", name="Remove fields.png").click()
    wait_until(lambda: stored(site) == [])
    ask(page, "look at this", fields)
    answered(page)
    assert len(stored(site)) == 1
    page.get_by_role("button", name="Delete").click()
    page.locator(".notice").get_by_role("button", name="Close").click()
    shows(page, lambda: stored(site), [])


def test_conversations_of_an_older_page_are_taken_over(site: Running, open_page: OpenPage) -> None:
    page = open_page(site, allowed="404")  # a picture that is opened by itself asks for /favicon.ico
    ask(page, "hello")
    answered(page)
    # As the older page had it: version 1, without uploads. The database cannot be opened in an older version, so it is
    # made anew by a document that is not the page.
    page.goto(f"{site.url}/page/icon.svg")
    page.evaluate(OLDER)
    page.goto(site.url)
    page.wait_for_selector(".chat")
    assert page.locator(".chat").all_inner_texts() == ["From before"]
    ask(page, "and now")
    answered(page)


OLDER = """new Promise((resolve, reject) => {
  indexedDB.deleteDatabase("tusi").onsuccess = () => {
    const opening = indexedDB.open("tusi", 1);
    opening.onerror = () => reject(opening.error);
    opening.onupgradeneeded = () => {
      for (const name of ["conversations", "nodes", "media"]) {
        const objects = opening.result.createObjectStore(name, { keyPath: "id" });
        if (name !== "conversations") objects.createIndex("conversation", "conversation");
      }
    };
    opening.onsuccess = () => {
      const transaction = opening.result.transaction("conversations", "readwrite");
      transaction.objectStore("conversations").put({
        id: "old", title: "From before", isNamed: true, created: 1, updated: 1, selected: {}, draftMedia: [],
        deleted: false,
      });
      transaction.oncomplete = () => { opening.result.close(); resolve(); };
    };
  };
})"""
