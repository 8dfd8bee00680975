"""What is said is not lost: stop, reload, branches, export; and what a person is told when something goes wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.http_server import Running, running, wait_until
from tests.fixtures.videos import make_video
from tests.server.web.conftest import TOOLS, answered, ask, attach, shows, until
from tests.server.web.story import StoryBackend
from tusi.server.config import ServerConfig

OpenPage = Callable[..., Any]
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}


def texts(page: Any) -> list[str]:
    """What is said in the conversation: the texts of the person, and the answers without their thoughts."""
    return page.locator(".user-text, .turn > .prose").all_inner_texts()  # type: ignore[no-any-return]


def test_a_generation_is_stopped_and_goes_on_from_what_it_said(
    site: Running, open_page: OpenPage, story: StoryBackend
) -> None:
    page = open_page(site)
    ask(page, "count for me")
    until(page, "(document.querySelector('.turn > .prose')?.innerText ?? '').length > 40")
    page.get_by_role("button", name="Stop").click()
    answer = answered(page)
    wait_until(story.is_aborted)
    wait_until(lambda: site.metric("tusi_requests_in_flight") == 0)
    said = answer.locator(".turn > .prose").inner_text()
    assert said.startswith("0 1 2 3 4 5")
    assert len(said) < 4000
    assert "You stopped this answer." in answer.inner_text()
    ask(page, "hello")
    answered(page)
    assert texts(page) == ["count for me", said, "hello", "You said: hello."]


def test_escape_stops_too(site: Running, open_page: OpenPage) -> None:
    page = open_page(site)
    ask(page, "count for me")
    page.wait_for_selector(".turn > .prose")
    page.keyboard.press("Escape")
    assert "You stopped this answer." in answered(page).inner_text()


def test_a_reload_loses_nothing(site: Running, open_page: OpenPage, fields: Path) -> None:
    page = open_page(site)
    ask(page, "look at this", fields)
    answered(page)
    attach(page, fields)
    page.fill("#message", "not sent yet")
    before = (texts(page), page.locator(".mark").count(), page.locator(".thought").count())
    page.reload()
    answered(page)
    assert (texts(page), page.locator(".mark").count(), page.locator(".thought").count()) == before
    loaded = "[...document.images].map((image) => [image.complete, image.naturalWidth > 0])"
    until(page, f"{loaded}.flat().every(Boolean)")
    assert page.locator(".user-media img, .tool img, .answer-figure img").count() == 4
    assert page.input_value("#message") == "not sent yet"
    assert page.locator(".composer .attachments img").count() == 1


def test_a_reload_in_the_middle_keeps_what_had_come(site: Running, open_page: OpenPage) -> None:
    page = open_page(site)
    ask(page, "count for me")
    until(page, "(document.querySelector('.turn > .prose')?.innerText ?? '').length > 400")
    page.reload()
    answer = answered(page)
    assert answer.locator(".turn > .prose").inner_text().startswith("0 1 2 3 4 5")
    assert "interrupted when the page was left" in answer.inner_text()
    wait_until(lambda: site.metric("tusi_requests_in_flight") == 0)


def test_an_edit_is_a_branch(site: Running, open_page: OpenPage) -> None:
    page = open_page(site)
    ask(page, "first")
    answered(page)
    ask(page, "second")
    answered(page)
    first = page.locator(".is-user").first
    first.hover()
    first.get_by_role("button", name="Edit").click()
    page.locator(".edit-text").fill("other")
    page.keyboard.press("Enter")
    answered(page)
    assert texts(page) == ["other", "You said: other."]
    page.locator(".is-user .versions").get_by_role("button", name="Previous version").click()
    assert texts(page) == ["first", "You said: first.", "second", "You said: second."]
    page.reload()
    answered(page)
    assert texts(page) == ["first", "You said: first.", "second", "You said: second."]
    assert page.locator(".is-user .versions").first.inner_text().strip() == "1 of 2"
    page.locator(".is-user .versions").get_by_role("button", name="Next version").click()
    page.reload()
    answered(page)
    assert texts(page) == ["other", "You said: other."]


def test_an_answer_is_given_again(site: Running, open_page: OpenPage, story: StoryBackend) -> None:
    page = open_page(site)
    ask(page, "hello")
    answered(page)
    page.get_by_role("button", name="Answer again").click()
    page.wait_for_selector(".is-answer .versions")
    answered(page)
    assert page.locator(".is-answer .versions").inner_text().strip() == "2 of 2"
    assert [len(request.messages) for request in story.requests] == [1, 1]


def test_an_export_comes_back_as_it_was(site: Running, open_page: OpenPage, fields: Path, tmp_path: Path) -> None:
    page = open_page(site)
    ask(page, "look at this", fields)
    answered(page)
    said = texts(page)
    files = {}
    for name in ("JSON", "Markdown"):
        page.locator(".menu summary").click()
        with page.expect_download() as download:
            page.get_by_role("menuitem", name=f"Export as {name}").click()
        files[name] = tmp_path / download.value.suggested_filename
        download.value.save_as(files[name])
    body = json.loads(files["JSON"].read_text())
    assert [node["role"] for node in body["nodes"]] == ["user", "assistant"]
    assert len(body["media"]) == 2
    assert "There are two fields" in files["Markdown"].read_text()
    other = open_page(site)  # another browser, which has never seen it
    other.set_input_files(".sidebar input[type=file]", str(files["JSON"]))
    answered(other)
    assert texts(other) == said
    until(other, "[...document.images].every((image) => image.complete && image.naturalWidth > 0)")
    assert other.locator(".answer-figure .mark").count() == 2


def test_a_file_that_is_no_export_is_refused(site: Running, open_page: OpenPage, tmp_path: Path) -> None:
    page = open_page(site, allowed="")
    (tmp_path / "x.json").write_text('{"format": "other"}')
    page.set_input_files(".sidebar input[type=file]", str(tmp_path / "x.json"))
    assert "not a conversation" in page.locator(".notice").inner_text()


def test_conversations_are_kept_apart_and_deleted_with_a_way_back(site: Running, open_page: OpenPage) -> None:
    page = open_page(site)
    listed = page.locator(".chat").all_inner_texts
    for text in ("first", "second"):
        page.get_by_role("button", name="New conversation", exact=True).first.click()
        ask(page, text)
        answered(page)
    shows(page, listed, ["second", "first"])
    page.locator(".chat", has_text="first").click()
    shows(page, lambda: texts(page), ["first", "You said: first."])
    page.locator(".chats li.is-current").get_by_role("button", name="Delete").click()
    shows(page, listed, ["second"])
    page.get_by_role("button", name="Undo").click()
    shows(page, lambda: len(listed()), 2)


def test_a_deletion_is_final_once_nobody_takes_it_back(site: Running, open_page: OpenPage, fields: Path) -> None:
    page = open_page(site)
    ask(page, "look at this", fields)
    answered(page)
    page.get_by_role("button", name="Delete").click()
    page.locator(".notice").get_by_role("button", name="Close").click()
    count = """new Promise((resolve) => {
      const opening = indexedDB.open("tusi");
      opening.onsuccess = () => {
        const names = ["conversations", "nodes", "media", "uploads"];
        const transaction = opening.result.transaction(names);
        const counts = names.map((name) => transaction.objectStore(name).count());
        transaction.oncomplete = () => resolve(counts.reduce((sum, one) => sum + one.result, 0));
      };
    })"""
    until(page, f"{count}.then((found) => found === 0)")
    page.reload()
    page.wait_for_selector(".hero")


def test_where_nothing_can_be_kept_it_still_works_and_says_so(site: Running, open_page: OpenPage, fields: Path) -> None:
    page = open_page(
        site, allowed="indexedDB is not defined", script="delete window.indexedDB; delete Window.prototype.indexedDB;"
    )
    assert "does not let the page keep anything" in page.locator(".notice").inner_text()
    ask(page, "look at this", fields)
    answered(page)
    assert page.locator(".answer-figure .mark").count() == 2


def test_a_key_is_asked_for_when_the_server_wants_one(story: StoryBackend, open_page: OpenPage) -> None:
    with running(story, ServerConfig(api_keys=("secret",), drain_seconds=5), TOOLS) as server:
        page = open_page(server, allowed="401")
        dialog = page.get_by_role("dialog", name="API key")
        dialog.locator("input[type=password]").fill("wrong")
        dialog.get_by_role("button", name="Continue").click()
        assert "did not accept" in page.get_by_role("dialog", name="API key").inner_text()
        dialog.locator("input[type=password]").fill("secret")
        dialog.get_by_role("button", name="Continue").click()
        page.wait_for_selector(".model-name")
        ask(page, "hello")
        answered(page)
        assert texts(page)[-1] == "You said: hello."
        page.reload()  # the tab still knows it
        page.wait_for_selector(".model-name")


def test_a_busy_server_is_asked_again(site: Running, open_page: OpenPage) -> None:
    page = open_page(site, allowed="429")
    replies = [{"status": 429, "headers": {"Retry-After": "30"}, "body": '{"error": {"message": "too many requests"}}'}]
    page.route("**/v1/chat/completions", lambda route: route.fulfill(**replies.pop()) if replies else route.continue_())
    ask(page, "hello")
    problem = page.wait_for_selector(".problem")
    assert "busy" in problem.inner_text()
    assert "too many requests" in problem.inner_text()
    page.get_by_role("button", name="Try now").click()
    answered(page)
    assert texts(page) == ["hello", "You said: hello."]


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        ({"status": 400, "body": '{"error": {"message": "messages is wrong. Correct it."}}'}, "messages is wrong."),
        ({"status": 500, "body": "<html>"}, "The server failed at this."),
        ({"status": 413, "body": "{}"}, "more than the server takes"),
        ({"status": 200, "body": 'data: {"choices": [{"delta": {"content": "Half"}}]}\n\n'}, "The connection broke"),
        ({"status": 200, "body": 'data: {"error": {"message": "the engine died."}}\n\n'}, "the engine died."),
        (None, "cannot be reached"),
    ],
    ids=["refused", "failed", "too-large", "cut", "late", "unreachable"],
)
def test_what_goes_wrong_is_said(
    site: Running, open_page: OpenPage, failure: dict[str, Any] | None, words: str
) -> None:
    page = open_page(site, allowed="Failed to load resource")
    page.route("**/v1/chat/completions", lambda route: route.fulfill(**failure) if failure else route.abort())
    ask(page, "hello")
    answer = answered(page)
    assert words in answer.inner_text()
    page.unroute("**/v1/chat/completions")
    answer.get_by_role("button", name="Try again").click()
    until(page, "document.querySelector('.is-answer:last-child .turn > .prose')?.innerText.includes('You said')")
    answered(page)
    assert texts(page)[-1] == "You said: hello."


def test_times_seek_the_video(site: Running, open_page: OpenPage, tmp_path: Path) -> None:
    page = open_page(site)
    clip = tmp_path / "clip.webm"
    clip.write_bytes(make_video(40, rate=10, container="webm", codec="libvpx"))
    ask(page, "watch this", clip)
    answer = answered(page)
    assert answer.locator("button.time").all_inner_texts() == ["00:01", "2.5 s"]
    answer.locator("button.time", has_text="2.5").click()
    until(page, "document.querySelector('.user-media video').currentTime === 2.5")
    answer.locator("button.time", has_text="00:01").click()
    until(page, "document.querySelector('.user-media video').currentTime === 1")


def test_what_a_model_writes_is_text(site: Running, open_page: OpenPage) -> None:
    page = open_page(site)
    ask(page, "attack me")
    answer = answered(page)
    assert "<img src=x onerror=" in answer.inner_text()
    assert answer.locator("img, script, b").count() == 0
    assert [link.get_attribute("href") for link in answer.locator("a").all()] == ["https://example.com/a.png"]
    assert page.title() == "Tusi"


def test_a_failed_call_says_why(site: Running, open_page: OpenPage, fields: Path) -> None:
    page = open_page(site)
    ask(page, "wrong box", fields)
    answered(page)
    assert "holds no area" in page.locator(".tool.is-error .tool-text").inner_text()
    assert page.locator(".tool img").count() == 0


@pytest.mark.parametrize(
    ("locale", "title", "words"), [("zh-CN", "图思", "给我看一张图。"), ("en-GB", "Tusi", "Show me a picture.")]
)
def test_it_speaks_the_languages_of_the_browser(
    site: Running, open_page: OpenPage, locale: str, title: str, words: str
) -> None:
    page = open_page(site, locale=locale)
    assert page.title() == title
    assert page.locator(".hero h2").inner_text() == words


def test_language_and_looks_change_at_once_and_last(site: Running, open_page: OpenPage) -> None:
    page = open_page(site)
    ask(page, "hello")
    answered(page)
    page.locator(".settings-button").click()
    page.get_by_label("Language").select_option("zh")
    page.get_by_label("外观").select_option("dark")
    page.keyboard.press("Escape")
    page.reload()
    answered(page)
    assert page.get_by_role("button", name="重新回答").count() == 1
    assert page.evaluate("getComputedStyle(document.body).colorScheme") == "dark"


@pytest.mark.parametrize("system", ["light", "dark"])
def test_colours_follow_the_system_until_somebody_chooses(site: Running, open_page: OpenPage, system: str) -> None:
    page = open_page(site, color_scheme=system)
    paper = {"light": "rgb(250, 248, 244)", "dark": "rgb(24, 23, 21)"}

    def ground() -> str:
        return page.evaluate("getComputedStyle(document.body).backgroundColor")

    assert ground() == paper[system]
    page.locator(".settings-button").click()
    for chosen in ("dark", "light"):
        page.get_by_label("Appearance").select_option(chosen)
        shows(page, ground, paper[chosen])
    page.get_by_label("Appearance").select_option("auto")
    shows(page, ground, paper[system])


def test_settings_reach_the_model(site: Running, open_page: OpenPage, story: StoryBackend) -> None:
    page = open_page(site)
    page.locator(".settings-button").click()
    page.get_by_label("System prompt").fill("Be brief.")
    page.get_by_label("Longest answer").fill("77")
    page.locator(".choice", has_text="Off").click()
    page.keyboard.press("Escape")
    page.get_by_label("Calculator").uncheck()
    with page.expect_request("**/v1/chat/completions") as asked:
        ask(page, "hello")
    answered(page)
    body = asked.value.post_data_json
    assert body["max_tokens"] == 77
    assert body["tools"] == [{"type": "builtin", "name": "image_zoom_in_tool"}]
    [request] = story.requests
    assert [message.text for message in request.messages] == ["Be brief.", "hello"]
    assert request.template_kwargs == {"enable_thinking": False}


def test_the_keyboard_is_enough(site: Running, open_page: OpenPage) -> None:
    page = open_page(site)
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("/")
    page.keyboard.type("one line")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("another")
    page.keyboard.press("Enter")
    answered(page)
    assert page.locator(".user-text").inner_text() == "one line\nanother"
    page.keyboard.press("ArrowUp")
    page.keyboard.type(" more")
    page.keyboard.press("Enter")
    answered(page)
    assert page.locator(".user-text").inner_text() == "one line\nanother more"
    page.keyboard.press("Control+Shift+O")
    page.wait_for_selector(".hero")
    assert page.evaluate("document.activeElement.id") == "message"


def test_it_fits_on_a_phone(site: Running, open_page: OpenPage, fields: Path) -> None:
    page = open_page(site, **PHONE)
    ask(page, "look at this", fields)
    answered(page)
    for element in ("document.documentElement", "document.querySelector('.scroll')"):
        assert page.evaluate(f"{element}.scrollWidth <= {element}.clientWidth")
    page.wait_for_selector(".sidebar", state="hidden")
    page.get_by_role("button", name="Show conversations").tap()
    assert page.wait_for_selector(".chat").inner_text() == "look at this"
    page.locator(".chat").tap()
    page.wait_for_selector(".sidebar", state="hidden")


@pytest.mark.parametrize("way", ["drop", "paste"])
def test_pictures_are_dropped_and_pasted(site: Running, open_page: OpenPage, fields: Path, way: str) -> None:
    page = open_page(site)
    page.evaluate(
        """([bytes, way]) => {
          const transfer = new DataTransfer();
          transfer.items.add(new File([new Uint8Array(bytes)], "fields.png", { type: "image/png" }));
          const options = { bubbles: true, cancelable: true, dataTransfer: transfer, clipboardData: transfer };
          const target = document.querySelector(way === "drop" ? ".messages" : "#message");
          target.dispatchEvent(way === "drop" ? new DragEvent("drop", options) : new ClipboardEvent("paste", options));
        }""",
        [list(fields.read_bytes()), way],
    )
    page.wait_for_selector(".composer .attachments img")
    assert page.locator(".composer .attachments img").count() == 1


def test_what_is_no_picture_is_not_added(site: Running, open_page: OpenPage, tmp_path: Path) -> None:
    page = open_page(site)
    (tmp_path / "notes.txt").write_text("x")
    page.set_input_files(".composer input[type=file]", str(tmp_path / "notes.txt"))
    assert "notes.txt" in page.locator(".notice").inner_text()
    assert page.locator(".composer .attachments li").count() == 0


def test_two_tabs_do_not_undo_each_other(site: Running, open_page: OpenPage) -> None:
    page = open_page(site)
    ask(page, "hello")
    answered(page)
    other = page.context.new_page()
    other.said = list
    other.goto(site.url)
    answered(other)
    ask(other, "from the other tab")
    answered(other)
    until(page, "document.querySelectorAll('.is-answer[aria-busy=false]').length === 2")
    said = texts(other)
    until(page, f"document.querySelector('.is-answer:last-child .turn > .prose')?.innerText === {json.dumps(said[-1])}")
    assert texts(page) == said == ["hello", "You said: hello.", "from the other tab", "You said: from the other tab."]
