"""Reads a request's body as JSON, more strictly than Python does: what nobody else would take for JSON is a 400.

`APIRouter(route_class=JSONRoute)` makes every endpoint of a router read its body so. Values that Python's reader lets
through, and that would fail somewhere deep inside, end here: NaN, numbers beyond a float, half a surrogate pair, texts
that are not UTF-8, and nesting on which a recursive reader would run out of stack.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn

from fastapi import Request, Response
from fastapi.routing import APIRoute

MAX_DEPTH = 100


class JSONRoute(APIRoute):
    """See the module."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The endpoint, which is given a request that reads strictly."""
        handle = super().get_route_handler()

        async def handle_strictly(request: Request) -> Response:
            return await handle(_StrictRequest(request.scope, request.receive))

        return handle_strictly


class _StrictRequest(Request):
    async def json(self) -> Any:
        return read_json(await self.body())


def read_json(data: bytes) -> Any:
    """The value of a JSON text. Raises json.JSONDecodeError."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        _refuse("it is not UTF-8")
    try:
        value = json.loads(text, parse_constant=_refuse_constant, parse_float=_finite, parse_int=_readable)
    except RecursionError:
        _refuse(f"it is nested deeper than {MAX_DEPTH} levels")
    _check_depth(value)
    if "\\ud" in text or "\\uD" in text:
        _check_surrogates(value)
    return value


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [child for parent in level for child in _children(parent) if isinstance(child, dict | list)]
        if not level:
            return
    _refuse(f"it is nested deeper than {MAX_DEPTH} levels")


def _check_surrogates(value: Any) -> None:
    waiting = [value]
    while waiting:
        one = waiting.pop()
        waiting += _children(one)
        texts = list(one) if isinstance(one, dict) else [one] if isinstance(one, str) else []
        for text in texts:
            try:
                text.encode()
            except UnicodeEncodeError:
                _refuse("a string has half a surrogate pair, which is no character")


def _children(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [*value.values()]
    return value if isinstance(value, list) else []


def _refuse_constant(name: str) -> NoReturn:
    _refuse(f"{name} is no number in JSON")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        _refuse(f"the number {text[:20]} is out of range")
    return value


def _readable(text: str) -> int:
    if len(text) > 100:
        _refuse("a whole number has more than 100 digits")
    return int(text)


def _refuse(why: str) -> NoReturn:
    raise json.JSONDecodeError(why, "", 0)
