from __future__ import annotations

import base64
import contextlib
import io
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from PIL import Image

from tests.fixtures.media_server import media_server
from tusi.agent.tool import ToolError
from tusi.agent.tools import image_search_http
from tusi.agent.tools.image_search_http import HttpProvider
from tusi.core.errors import ConfigError
from tusi.processing.limits import MediaLimits

PICTURE = Image.new("RGB", (2000, 1000), (1, 2, 3))


class Service(ThreadingHTTPServer):
    """Answers every question with status and body; asked: the questions."""

    daemon_threads = True

    def __init__(self, status: int, body: bytes, delay: float) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status, self.body, self.delay = status, body, delay
        self.asked: list[tuple[dict[str, str], Any]] = []


class _Handler(BaseHTTPRequestHandler):
    server: Service

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        self.server.asked.append((dict(self.headers), json.loads(self.rfile.read(length))))
        self.send_response(self.server.status)
        self.send_header("Location", "http://127.0.0.1:1/")
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            for start in range(0, len(self.server.body), 65536):
                time.sleep(self.server.delay)
                self.wfile.write(self.server.body[start : start + 65536])

    def log_message(self, *args: object) -> None:
        """Quiet."""


@contextlib.contextmanager
def service(answer: object = None, *, status: int = 200, delay: float = 0.0) -> Iterator[tuple[Service, str]]:
    body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    server = Service(status, body, delay)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server, f"http://127.0.0.1:{server.server_port}/search"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_the_picture_is_sent_and_hits_come_back() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG")
    data_url = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    results = [{"caption": "a cat", "source": "cats.org", "image": data_url}, {"caption": "b"}, {}, {"caption": "d"}]
    with service({"results": results}) as (server, url):
        hits = HttpProvider(url, headers={"Authorization": "Bearer k"}).search(PICTURE, 3)
    assert [(hit.caption, hit.source) for hit in hits] == [("a cat", "cats.org"), ("b", ""), ("no caption", "")]
    assert hits[0].picture == buffer.getvalue()
    ((headers, question),) = server.asked
    assert headers["Authorization"] == "Bearer k"
    assert question["limit"] == 3
    sent = Image.open(io.BytesIO(base64.b64decode(question["image"].partition(",")[2])))
    assert sent.size == (1024, 512)


@pytest.mark.parametrize(
    ("answer", "status", "message"),
    [
        (b"words", 200, "did not answer with JSON"),
        ([], 200, "did not answer with results"),
        ({"results": [1]}, 200, "did not answer with results"),
        ({"results": []}, 503, "answered 503; go on without it"),
        ({"results": []}, 302, "answered 302"),
    ],
)
def test_other_answers_are_told_to_the_model(answer: object, status: int, message: str) -> None:
    with service(answer, status=status) as (_, url), pytest.raises(ToolError, match=message):
        HttpProvider(url).search(PICTURE, 3)


def test_limits_of_size_and_time(monkeypatch: pytest.MonkeyPatch) -> None:
    with service(b" " * 300_000, delay=0.15) as (_, url), pytest.raises(ToolError, match=r"took over 0.2 s"):
        HttpProvider(url, timeout=0.2).search(PICTURE, 3)
    monkeypatch.setattr(image_search_http, "MAX_ANSWER_BYTES", 1000)
    with service(b" " * 300_000) as (_, url), pytest.raises(ToolError, match="sent over 1000 bytes"):
        HttpProvider(url).search(PICTURE, 3)
    with pytest.raises(ToolError, match=r"the search service failed .ConnectError.; go on without it"):
        HttpProvider("http://127.0.0.1:1/").search(PICTURE, 3)


def test_addresses_in_an_answer_may_not_be_private_ones() -> None:
    with media_server() as inside:
        answer = {"results": [{"caption": "a", "image": f"{inside.url}/secret"}, {"image": "file:///etc/passwd"}]}
        inside.pages["/secret"] = (200, {}, b"x")
        with service(answer) as (_, url):
            first, second = HttpProvider(url).search(PICTURE, 3)
            assert first.picture is None
            assert "its picture was not fetched" in first.caption
            assert "not a public address" in first.caption
            assert second.picture is None
            assert inside.requests == []
            allowed = HttpProvider(url, limits=MediaLimits(allow_private_addresses=True)).search(PICTURE, 1)
    assert allowed[0].picture == b"x"


@pytest.mark.parametrize("url", ["ftp://x/", "search", "http://", "http://x:y/", ""])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="the image search service"):
        HttpProvider(url)
