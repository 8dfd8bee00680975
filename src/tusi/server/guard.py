"""What stands before every endpoint: names, the API key, and what a body may cost. Plain ASGI: streams pass untouched.

Names: a server for this machine alone, without a key, could be asked by any web page that a browser here has open. A
page's own name that it lets resolve to this machine (DNS rebinding) shows in Host, a foreign page in Origin.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tusi.server.config import ServerConfig
from tusi.server.errors import ErrorReply, Refusal
from tusi.server.page import is_page

# What a load balancer or Prometheus asks, without a key; it tells nothing about requests.
OPEN_PATHS = ("/health", "/metrics")
FILES_PATH = "/v1/files"


class Guard:
    """Middleware; see the module."""

    def __init__(self, app: ASGIApp, *, config: ServerConfig) -> None:
        self._app = app
        self._config = config
        self._num_held_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or pass the request on with a body that cannot grow too large."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is not None:
            await refusal.response()(scope, receive, send)
            return
        body = _Body(self, receive, is_file=scope["path"] == FILES_PATH)
        try:
            await self._app(scope, body.receive, send)
        finally:
            self._num_held_bytes -= body.num_held_bytes

    def hold(self, num_bytes: int) -> None:
        """Note that so much more of bodies is in memory. Raises Refusal."""
        self._num_held_bytes += num_bytes
        if self._num_held_bytes > self._config.max_held_bytes:
            raise Refusal(
                429,
                f"the requests in the house hold {self._config.max_held_bytes:,} bytes, as many as they may. Try again "
                "in a moment.",
                code="server_busy",
                headers={"Retry-After": "1"},
            )

    @property
    def config(self) -> ServerConfig:
        """The server's limits."""
        return self._config

    def _refusal(self, scope: Scope) -> ErrorReply | None:
        headers = Headers(scope=scope)
        path = scope["path"]
        if self._config.hosts is not None:
            host = headers.get("host", "")
            if not self._is_ours(host):
                return _wrong_host(host)
            origin = headers.get("origin")
            if origin is not None and scope["method"] not in ("GET", "HEAD") and not self._is_ours_or(origin, host):
                return _wrong_origin(origin)
        if path not in OPEN_PATHS and not is_page(path) and not self._has_key(headers):
            return _UNAUTHORIZED
        if headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
            return _ENCODED
        declared = headers.get("content-length", "")
        limit = self._config.max_file_bytes if path == FILES_PATH else self._config.max_body_bytes
        return body_too_large(limit).reply if declared.isdecimal() and int(declared[:20]) > limit else None

    def _is_ours(self, host: str) -> bool:
        """Whether a Host header names this machine in a way that no stranger's DNS can."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if name in ("localhost", *(self._config.hosts or ())) or name.endswith(".localhost"):
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def _is_ours_or(self, origin: str, host: str) -> bool:
        netloc = origin.partition("://")[2]
        return netloc == host or (bool(netloc) and self._is_ours(netloc))

    def _has_key(self, headers: Headers) -> bool:
        if not self._config.api_keys:
            return True
        scheme, _, key = headers.get("authorization", "").partition(" ")
        given = key.strip().encode("latin-1", "replace")
        # Every key is compared, and in full: how long it takes tells nothing about any of them.
        fits = [hmac.compare_digest(given, expected.encode()) for expected in self._config.api_keys]
        return scheme.lower() == "bearer" and any(fits)


class _Body:
    """Counts a request's body while it arrives, and waits for it only so long.

    is_file: it is put on disk as it comes, and may take its time as long as something comes. num_held_bytes: those
    that are in memory.
    """

    def __init__(self, guard: Guard, receive: Receive, *, is_file: bool) -> None:
        self.num_held_bytes = 0
        self._guard = guard
        self._receive = receive
        self._is_file = is_file
        self._limit = guard.config.max_file_bytes if is_file else guard.config.max_body_bytes
        self._num_bytes = 0
        self._is_whole = False
        self._deadline = self._new_deadline()

    async def receive(self) -> Message:
        """The next message. Raises Refusal."""
        if self._is_whole:
            return await self._receive()  # the client's leaving may be waited for without end
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except TimeoutError:
            raise Refusal(
                408,
                f"the body had not come whole after {self._guard.config.body_seconds} s. Send it faster, or smaller.",
                code="request_timeout",
            ) from None
        data = message.get("body", b"")
        self._is_whole = not message.get("more_body", False)
        self._num_bytes += len(data)
        if self._is_file:
            self._deadline = self._new_deadline()
        else:
            self.num_held_bytes += len(data)
            self._guard.hold(len(data))
        if self._num_bytes > self._limit:
            raise body_too_large(self._limit)
        return message

    def _new_deadline(self) -> float:
        return asyncio.get_running_loop().time() + self._guard.config.body_seconds


def body_too_large(limit: int) -> Refusal:
    """For a request body over the limit."""
    message = f"the request is larger than {limit:,} bytes, the limit here. Send smaller or fewer media, or URLs."
    return Refusal(413, message, code="request_too_large")


_UNAUTHORIZED = ErrorReply(
    status=401,
    message="the API key is missing or wrong. Send the header Authorization: Bearer KEY.",
    code="invalid_api_key",
    headers={"WWW-Authenticate": "Bearer"},
)
_ENCODED = ErrorReply(
    status=415,
    message="the body is compressed, which is not undone here. Send it as it is, without Content-Encoding.",
    code="unsupported_encoding",
)


def _wrong_host(host: str) -> ErrorReply:
    message = (
        f"this server is for its own machine, and {host[:80]!r} is not known as a name of it. Use an IP address or "
        "localhost; or start the server with --allowed-host, or with --api-key."
    )
    return ErrorReply(status=403, message=message, code="wrong_host")


def _wrong_origin(origin: str) -> ErrorReply:
    message = (
        f"a web page of {origin[:80]!r} asks, and this server is for its own machine. Start it with --allowed-host, or "
        "with --api-key."
    )
    return ErrorReply(status=403, message=message, code="wrong_origin")
