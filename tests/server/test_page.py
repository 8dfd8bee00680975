"""The page's files: which are sent, as what, with which headers, to whom. What the page does: tests/server/web."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest

import tusi.server
from tests.fixtures.http_server import Running, running
from tusi.backends.fake import FakeBackend
from tusi.server.config import ServerConfig

WEB = Path(tusi.server.__file__).parent / "web"
NAMES = sorted(file.name for file in WEB.iterdir() if file.is_file())


def get(server: Running, path: str, **headers: str) -> httpx.Response:
    with server.http() as client:
        return client.get(path, headers=headers)


def policy(response: httpx.Response) -> dict[str, str]:
    parts = (part.strip().partition(" ") for part in response.headers["content-security-policy"].split(";"))
    return {name: value for name, _, value in parts}


def test_the_page_is_at_the_root(served: Running) -> None:
    page = get(served, "/")
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.content == (WEB / "index.html").read_bytes()


@pytest.mark.parametrize("name", NAMES)
def test_every_file_is_sent_as_it_is(served: Running, name: str) -> None:
    part = get(served, f"/page/{name}")
    assert part.status_code == 200
    assert part.content == (WEB / name).read_bytes()
    kinds = {"css": "text/css", "html": "text/html", "js": "text/javascript", "svg": "image/svg+xml"}
    assert part.headers["content-type"].split(";")[0] == kinds[name.rsplit(".", 1)[1]]
    assert part.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("name", NAMES)
def test_files_name_only_files_that_are_there(name: str) -> None:
    text = (WEB / name).read_text(encoding="utf-8")
    named = re.findall(r'from "\./([\w.]+)"|(?:href|src)="page/([\w.]+)"', text)
    assert {first or second for first, second in named} <= set(NAMES)


def test_every_module_is_used() -> None:
    used = {"index.html"}
    found = ["index.html"]
    while found:
        text = (WEB / found.pop()).read_text(encoding="utf-8")
        named = {a or b for a, b in re.findall(r'from "\./([\w.]+)"|(?:href|src)="page/([\w.]+)"', text)}
        found += named - used
        used |= named
    assert used == set(NAMES)


@pytest.mark.parametrize("path", ["/", "/page/main.js"])
def test_nothing_from_elsewhere_may_run_or_be_asked(served: Running, path: str) -> None:
    rules = policy(get(served, path))
    assert rules["default-src"] == "'none'"
    assert rules["script-src"] == rules["style-src"] == rules["connect-src"] == "'self'"
    assert rules["frame-ancestors"] == "'none'"
    assert rules["require-trusted-types-for"] == "'script'"
    assert not any(word in value for value in rules.values() for word in ("unsafe", "http", "data:", "*"))


def test_files_carry_no_inline_code_or_foreign_address() -> None:
    page = (WEB / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\son\w+=|\sstyle=", page)
    for name in NAMES:
        text = (WEB / name).read_text(encoding="utf-8")
        foreign = set(re.findall(r"https?://[\w.-]+", text)) - {"http://www.w3.org"}
        assert not foreign, name
        assert not re.search(r"\.innerHTML|\beval\(|new Function|document\.write", text), name


def test_a_browser_asks_again_and_is_told_that_nothing_has_changed(served: Running) -> None:
    first = get(served, "/page/main.js")
    assert first.headers["cache-control"] == "no-cache"
    again = get(served, "/page/main.js", **{"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    other = get(served, "/page/main.js", **{"If-None-Match": '"another"'})
    assert other.status_code == 200


@pytest.mark.parametrize("path", ["/page/nothing.js", "/page/..%2fpage.py", "/page/%2e%2e/page.py", "/page/", "/page"])
def test_there_is_nothing_else(served: Running, path: str) -> None:
    answer = get(served, path)
    assert answer.status_code == 404
    assert "error" in answer.json()


def test_the_page_comes_without_a_key_and_the_api_does_not(fake: FakeBackend) -> None:
    with running(fake, ServerConfig(api_keys=("secret",), drain_seconds=5)) as server:
        assert get(server, "/").status_code == 200
        assert get(server, "/page/main.js").status_code == 200
        for path in ("/v1/models", "/v1/facts", "/page/../v1/models", "/pages"):
            assert get(server, path).status_code == 401
        assert get(server, "/v1/facts", Authorization="Bearer secret").status_code == 200


def test_facts(fake: FakeBackend, served: Running) -> None:
    facts = get(served, "/v1/facts").json()
    assert facts["models"] == [fake.model]
    assert facts["precision"] is None
    assert facts["max_body_bytes"] == ServerConfig().max_body_bytes
    assert facts["max_file_bytes"] == ServerConfig().max_file_bytes


def test_facts_of_a_local_model(tiny: Running) -> None:
    facts = get(tiny, "/v1/facts").json()
    assert (facts["precision"], facts["max_model_len"]) == ("fp32", 8192)
    assert isinstance(facts["can_switch_thinking"], bool)
