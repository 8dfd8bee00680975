"""Bodies are JSON in the strict sense, and shallow enough for whatever reads them."""

from __future__ import annotations

import json

import httpx
import pytest

from tests.fixtures.http_server import Running
from tusi.server.body import MAX_DEPTH, read_json

PATHS = ("/v1/chat/completions", "/v1/completions", "/tokenize", "/detokenize")


def post(server: Running, path: str, body: bytes) -> httpx.Response:
    with server.http() as client:
        return client.post(path, content=body, headers={"Content-Type": "application/json"})


def nested(depth: int, opening: str = "[", closing: str = "]") -> bytes:
    return (opening * depth + closing * depth).encode()


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b'{"a": NaN}', "NaN is no number"),
        (b'{"a": -Infinity}', "-Infinity is no number"),
        (b'{"a": 1e999}', "out of range"),
        (b'{"a": ' + b"9" * 5000 + b"}", "100 digits"),
        (b'{"a": "\\ud800"}', "surrogate"),
        (b'{"a": ["x", {"\\uDC00": 1}]}', "surrogate"),
        (b'{"a": "\xed\xa0\x80"}', "not UTF-8"),
        ('{"a": 1}'.encode("utf-16"), "not UTF-8"),
        (b'{"a": ' + nested(MAX_DEPTH + 1) + b"}", "deeper than"),
        (nested(200_000), "deeper than"),
        (nested(3000, '{"a":', "}").replace(b":}", b":1}"), "deeper than"),
        (b'{"a": 1', "delimiter"),
        (b"", ""),
    ],
)
def test_what_is_not_json_is_refused(served: Running, path: str, body: bytes, why: str) -> None:
    response = post(served, path, body)
    assert response.status_code == 400, response.text
    assert why in response.json()["error"]["message"]


def test_what_is_json_is_read() -> None:
    for text in (
        '{"a": [1, 2.5, -1e300, true, null, "\\ud83d\\ude00 \\\\ud8"]}',
        '"é"',
        "[[[]]]",
        "\ufeff{}",
        "1" * 100,
    ):
        assert read_json(text.encode()) == json.loads(text.removeprefix("\ufeff"))
    assert read_json(nested(MAX_DEPTH)) is not None
    with pytest.raises(json.JSONDecodeError):
        read_json(nested(MAX_DEPTH + 2))


def test_deep_schemas_of_tools_fail_nowhere_inside(tiny: Running) -> None:
    schema: dict[str, object] = {"type": "string"}
    for _ in range(40):
        schema = {"type": "object", "properties": {"a": schema}}
    body = {
        "messages": [{"role": "user", "content": "x"}],
        "max_tokens": 2,
        "response_format": {"type": "json_schema", "json_schema": {"name": "deep", "schema": schema}},
    }
    assert post(tiny, "/v1/chat/completions", json.dumps(body).encode()).status_code == 200
