"""What strangers may send as pictures and videos to make the server reach, read or compute what it should not."""

from __future__ import annotations

import base64
import io
import socket
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.fixtures.http_server import Running
from tests.fixtures.media_server import MediaServer, media_server
from tests.processing.test_frames import many
from tusi.processing import addresses, http


@pytest.fixture
def private() -> Iterator[MediaServer]:
    """A server in the network that is not to be reached."""
    with media_server() as server:
        server.pages["/secret.png"] = (200, {}, b"secret")
        yield server


def ask(server: Running, url: str, kind: str = "image_url") -> httpx.Response:
    content = [{"type": kind, kind: {"url": url}}]
    with server.http() as client:
        return client.post(
            "/v1/chat/completions", json={"messages": [{"role": "user", "content": content}], "max_tokens": 1}
        )


def refused(response: httpx.Response) -> dict[str, Any]:
    assert response.status_code == 400, response.text
    error: dict[str, Any] = response.json()["error"]
    assert error["param"] in ("images[0]", "videos[0]")
    return error


def data_url(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:{port}/secret.png",
        "http://localhost:{port}/secret.png",
        "http://LOCALHOST.:{port}/secret.png",
        "http://0.0.0.0:{port}/secret.png",
        "http://0:{port}/secret.png",
        "http://127.1:{port}/secret.png",
        "http://2130706433:{port}/secret.png",
        "http://0x7f000001:{port}/secret.png",
        "http://0x7f.1:{port}/secret.png",
        "http://0177.0.0.1:{port}/secret.png",
        "http://017700000001:{port}/secret.png",
        "http://[::1]:{port}/secret.png",
        "http://[::]:{port}/secret.png",
        "http://[::ffff:127.0.0.1]:{port}/secret.png",
        "http://[::ffff:7f00:1]:{port}/secret.png",
        "http://[64:ff9b::7f00:1]:{port}/secret.png",
        "http://[2002:7f00:1::]:{port}/secret.png",
        "http://①②⑦.⓪.⓪.①:{port}/secret.png",
        "http://user:pass@127.0.0.1:{port}/secret.png",
        "http://127.0.0.1:{port}\\@example.com/secret.png",
        "http://169.254.169.254/latest/meta-data/",
        "http://[fe80::1]/x.png",
        "http://[fd00:ec2::254]/latest/meta-data/",
        "http://10.0.0.1/x.png",
        "http://172.16.0.1/x.png",
        "http://192.168.0.1/x.png",
        "http://100.100.100.200/latest/meta-data/",
        "http://224.0.0.1/x.png",
        "file:///etc/passwd",
        "file://localhost/etc/passwd",
        "FILE:///etc/passwd",
        "/etc/passwd",
        "../../etc/passwd",
        "~/.ssh/id_rsa",
        "gopher://127.0.0.1:{port}/_GET",
        "ftp://127.0.0.1/x.png",
        "unix:///var/run/docker.sock",
        "http:///x.png",
        "http://",
        "https:127.0.0.1:{port}/secret.png",
        "\x00http://127.0.0.1:{port}/secret.png",
        " http://127.0.0.1:{port}/secret.png",
    ],
)
def test_what_must_not_be_reached_is_refused(tiny: Running, private: MediaServer, url: str) -> None:
    refused(ask(tiny, url.format(port=private.server_port)))
    assert private.requests == []


@pytest.mark.parametrize("url", ["http://127.0.0.1:{port}/secret.png", "file:///etc/passwd", "http://169.254.169.254/"])
def test_videos_go_the_same_way(tiny: Running, private: MediaServer, url: str) -> None:
    refused(ask(tiny, url.format(port=private.server_port), "video_url"))
    assert private.requests == []


def test_a_name_that_resolves_to_a_private_address_is_refused(
    tiny: Running, private: MediaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = socket.getaddrinfo
    asked: list[str] = []

    def resolve(host: str, port: int, *args: Any, **kwargs: Any) -> Any:
        if not host.endswith(".example"):
            return real(host, port, *args, **kwargs)
        asked.append(host)
        answers = {"inside.example": ["127.0.0.1"], "mixed.example": ["93.184.215.14", "127.0.0.1"],
                   "six.example": ["::1"]}[host]  # fmt: skip
        return [
            (socket.AF_INET6 if ":" in a else socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, port)) for a in answers
        ]

    monkeypatch.setattr(http.socket, "getaddrinfo", resolve)
    for name in ("inside", "mixed", "six"):
        error = refused(ask(tiny, f"http://{name}.example:{private.server_port}/secret.png"))
        assert error["code"] == "media_url_refused"
    assert asked == ["inside.example", "mixed.example", "six.example"]
    assert private.requests == []


def test_a_name_that_changes_its_mind_is_resolved_once(
    tiny: Running, private: MediaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS rebinding: the address that was checked is the one that is connected to."""
    real, asked = socket.getaddrinfo, []

    def resolve(host: str, port: int, *args: Any, **kwargs: Any) -> Any:
        if host != "rebind.example":
            return real(host, port, *args, **kwargs)
        asked.append(host)
        # A public address, where nobody answers; were it asked again, it would be this machine.
        address = "192.0.2.1" if len(asked) == 1 else "127.0.0.1"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(http.socket, "getaddrinfo", resolve)
    monkeypatch.setattr(http, "forbidden_reason", lambda address: None if str(address) == "192.0.2.1" else "private")
    refused(ask(tiny, f"http://rebind.example:{private.server_port}/secret.png"))
    assert asked == ["rebind.example"]
    assert private.requests == []


@pytest.mark.parametrize(
    "target", ["http://127.0.0.2:{port}/secret.png", "http://169.254.169.254/latest", "file:///etc/passwd", "//[::1]/x"]
)
def test_redirects_to_what_must_not_be_reached_are_refused(
    tiny: Running, private: MediaServer, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    private.pages["/away.png"] = (302, {"Location": target.format(port=private.server_port)}, b"")
    # The first hop stands for a public server; all else is judged as ever.
    monkeypatch.setattr(
        http, "forbidden_reason", lambda a: None if str(a) == "127.0.0.1" else addresses.forbidden_reason(a)
    )
    refused(ask(tiny, f"http://127.0.0.1:{private.server_port}/away.png"))
    assert [path for path, _ in private.requests] == ["/away.png"]


def png_bomb(width: int, height: int) -> bytes:
    """A small file that says it is large, and is."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = zlib.compress(b"\0" * min(height * (width // 8 + 1), 10_000_000), 9)
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def text_bomb() -> bytes:
    """A PNG whose text would unpack to 20 MB."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    plain = io.BytesIO()
    Image.new("RGB", (40, 40)).save(plain, "PNG")
    data = plain.getvalue()
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(b"\0" * 1_000_000) for _ in range(20)) + packer.flush()
    return data[:33] + chunk(b"zTXt", b"Comment\0\0" + packed) + data[33:]


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (png_bomb(100_000, 100_000), "image/png"),
        (png_bomb(2**31 - 1, 2**31 - 1), "image/png"),
        (text_bomb(), "image/png"),
        (many("GIF", 10_000), "image/gif"),
        (many("TIFF", 10_000), "image/tiff"),
        (b"%PDF-1.7\n" + b"1 0 obj<</Type/Page>>endobj\n" * 10_000, "application/pdf"),
        (b"<?xml version='1.0'?><!DOCTYPE x [<!ENTITY a 'aaaa'>]><svg>&a;</svg>", "image/svg+xml"),
        (b"#EXTM3U\nfile:///etc/passwd\n", "image/png"),
        (b"PK\x03\x04" + b"\0" * 100, "application/zip"),
    ],
    ids=["wide", "endless", "text", "gif", "tiff", "pdf", "svg", "playlist", "zip"],
)
def test_bombs_and_what_is_no_picture_are_refused(tiny: Running, data: bytes, kind: str) -> None:
    refused(ask(tiny, data_url(data, kind)))


def test_videos_are_held_to_limits_too(tiny: Running) -> None:
    frame = io.BytesIO()
    Image.new("RGB", (28, 28)).save(frame, "JPEG")
    one = base64.b64encode(frame.getvalue()).decode()
    error = refused(ask(tiny, "data:video/jpeg;base64," + ",".join([one] * 10_000), "video_url"))
    assert error["code"] == "media_limit_exceeded"
    for data in (
        b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n",
        b"ffconcat version 1.0\nfile /etc/passwd\n",
    ):
        refused(ask(tiny, data_url(data, "video/mp4"), "video_url"))


def test_more_pictures_than_allowed_are_refused(tiny: Running) -> None:
    file = io.BytesIO()
    Image.new("RGB", (28, 28)).save(file, "PNG")
    part = {"type": "image_url", "image_url": {"url": data_url(file.getvalue())}}
    with tiny.http() as client:
        response = client.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": [part] * 65}]})
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "media_limit_exceeded"
