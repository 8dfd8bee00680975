"""What stands before every endpoint: the API key and the size of the body. Plain ASGI: streams pass untouched."""

from __future__ import annotations

import hmac

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tusi.server.config import ServerConfig
from tusi.server.errors import ErrorReply, body_too_large
from tusi.server.page import is_page

# What a load balancer or Prometheus asks, without a key; it tells nothing about requests.
OPEN_PATHS = ("/health", "/metrics")
FILES_PATH = "/v1/files"


class Guard:
    """Middleware; see the module."""

    def __init__(self, app: ASGIApp, *, config: ServerConfig) -> None:
        self._app = app
        self._config = config

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or pass the request on with a body that cannot grow too large."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        is_open = scope["path"] in OPEN_PATHS or is_page(scope["path"])
        if not is_open and not self._has_key(headers):
            await _UNAUTHORIZED.response()(scope, receive, send)
            return
        limit = self._config.max_file_bytes if scope["path"] == FILES_PATH else self._config.max_body_bytes
        declared = headers.get("content-length", "")
        if declared.isdecimal() and int(declared[:20]) > limit:
            error = body_too_large(limit)
            await ErrorReply(status=413, message=error.detail).response()(scope, receive, send)
            return
        await self._app(scope, _limited(receive, limit), send)

    def _has_key(self, headers: Headers) -> bool:
        if not self._config.api_keys:
            return True
        scheme, _, key = headers.get("authorization", "").partition(" ")
        given = key.strip().encode("latin-1", "replace")
        # Every key is compared, and in full: how long it takes tells nothing about any of them.
        fits = [hmac.compare_digest(given, expected.encode()) for expected in self._config.api_keys]
        return scheme.lower() == "bearer" and any(fits)


_UNAUTHORIZED = ErrorReply(
    status=401,
    message="the API key is missing or wrong. Send the header Authorization: Bearer KEY.",
    code="invalid_api_key",
    headers={"WWW-Authenticate": "Bearer"},
)


def _limited(receive: Receive, limit: int) -> Receive:
    num_bytes = 0

    async def counted() -> Message:
        nonlocal num_bytes
        message = await receive()
        num_bytes += len(message.get("body", b""))
        if num_bytes > limit:
            raise body_too_large(limit)
        return message

    return counted
