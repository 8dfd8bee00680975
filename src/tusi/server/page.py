"""The page at /: files of this package, kept in memory, sent with headers that let nothing else in.

The page is a client of the public API like any other; this module knows none of what it does. Its files lie in `web/`
as they are sent: no build step, nothing from elsewhere.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import resources

from fastapi import APIRouter, HTTPException, Request
from starlette.responses import Response

_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".webmanifest": "application/manifest+json",
}

# What a model writes is never code: no inline script, no string that becomes markup (trusted types), nothing loaded
# from another place. blob: is what a person dropped and what tools returned.
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob:",
        "media-src blob:",
        "connect-src 'self'",
        "manifest-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",  # asked about each time, and answered with 304: an update shows at once
}


@dataclass(frozen=True, slots=True)
class _File:
    body: bytes
    media_type: str
    etag: str


def router() -> APIRouter:
    """The endpoints."""
    files = _load()
    routes = APIRouter(include_in_schema=False)

    @routes.get("/", response_model=None)
    async def index(http: Request) -> Response:
        """The page."""
        return _respond(files["index.html"], http)

    @routes.get("/page/{name}", response_model=None)
    async def part(name: str, http: Request) -> Response:
        """What it is made of."""
        if name not in files:
            raise HTTPException(404, f"the page has no part called {name[:80]!r}. Load / again.")
        return _respond(files[name], http)

    return routes


def is_page(path: str) -> bool:
    """Whether a path is the page's own. A browser cannot send a key with it; the page asks for one then."""
    return path == "/" or path.startswith("/page/")


def _load() -> dict[str, _File]:
    folder = resources.files("tusi.server") / "web"
    files = {}
    for item in folder.iterdir():
        suffix = "." + item.name.rpartition(".")[2]
        if suffix in _TYPES:
            body = item.read_bytes()
            files[item.name] = _File(body, _TYPES[suffix], f'"{hashlib.sha256(body).hexdigest()[:32]}"')
    return files


def _respond(file: _File, http: Request) -> Response:
    headers = _HEADERS | {"ETag": file.etag}
    if file.etag in http.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(file.body, media_type=file.media_type, headers=headers)
