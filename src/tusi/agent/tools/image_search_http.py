"""A provider of image_search over HTTP, for a real search service or a small adapter in front of one.

POST to the service: {"image": "data:image/jpeg;base64,...", "limit": 3}
Its answer:          {"results": [{"caption": "...", "source": "...", "image": "https://... or a data URL"}, ...]}
source and image may be left out. The service's own address is the user's choice and may be a private one; addresses
that come in its answer are fetched under the same rules as those of any picture.
"""

from __future__ import annotations

import base64
import io
import json
import time
from typing import Any

import httpx
from PIL import Image

from tusi.agent.tool import ToolError
from tusi.agent.tools.image_search import SearchHit
from tusi.core.errors import ConfigError, UnsupportedMedia
from tusi.processing.limits import MediaLimits
from tusi.processing.sources import open_source

MAX_ANSWER_BYTES = 8 * 2**20
MAX_CAPTION_CHARS = 2000
TIMEOUT = 20.0
_SENT_SIDE = 1024
_DEFAULT_LIMITS = MediaLimits()


class HttpProvider:
    """Asks the service at a URL. timeout: seconds for the whole answer. headers: such as an Authorization."""

    def __init__(
        self,
        url: str,
        *,
        limits: MediaLimits = _DEFAULT_LIMITS,
        timeout: float = TIMEOUT,
        headers: dict[str, str] | None = None,
    ) -> None:
        try:
            parsed = httpx.URL(url)
        except (httpx.InvalidURL, TypeError) as error:
            raise ConfigError(f"the image search service {url!r} is not a URL ({error}). Correct it.") from error
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise ConfigError(f"the image search service {url!r} is not an address. Write https://host/path.")
        self._url, self._limits, self._timeout = parsed, limits, timeout
        # Compressed answers could grow past the cap in one step.
        self._headers = {"Accept-Encoding": "identity", **(headers or {})}

    def search(self, picture: Image.Image, limit: int) -> list[SearchHit]:
        """See the protocol. Raises ToolError."""
        answer = self._ask({"image": _data_url(picture), "limit": limit})
        results = answer.get("results") if isinstance(answer, dict) else None
        if not isinstance(results, list) or not all(isinstance(entry, dict) for entry in results):
            raise ToolError("the search service did not answer with results; go on without it")
        return [self._hit(entry) for entry in results[:limit]]

    def _ask(self, question: dict[str, Any]) -> Any:
        ends_at = time.monotonic() + self._timeout
        body = bytearray()
        try:
            # No redirects: a service that moved is the user's to know. No proxies or passwords of the environment.
            with (
                httpx.Client(timeout=self._timeout, follow_redirects=False, trust_env=False) as client,
                client.stream("POST", self._url, json=question, headers=self._headers) as response,
            ):
                if response.status_code != httpx.codes.OK:
                    raise ToolError(f"the search service answered {response.status_code}; go on without it")
                for chunk in response.iter_bytes():
                    body += chunk
                    if len(body) > MAX_ANSWER_BYTES:
                        raise ToolError(f"the search service sent over {MAX_ANSWER_BYTES} bytes; go on without it")
                    if time.monotonic() > ends_at:
                        raise ToolError(f"the search service took over {self._timeout:g} s; go on without it")
            return json.loads(body)
        except httpx.HTTPError as error:
            raise ToolError(f"the search service failed ({type(error).__name__}); go on without it") from error
        except (ValueError, RecursionError) as error:
            raise ToolError("the search service did not answer with JSON; go on without it") from error

    def _hit(self, entry: dict[str, Any]) -> SearchHit:
        caption = str(entry.get("caption") or "no caption")[:MAX_CAPTION_CHARS]
        source = str(entry.get("source") or "")[:MAX_CAPTION_CHARS]
        image = entry.get("image")
        if not isinstance(image, str) or not image.lower().startswith(("http://", "https://", "data:")):
            return SearchHit(caption, source)
        try:
            with open_source(image, "image", self._limits) as file:
                return SearchHit(caption, source, file.read())
        except UnsupportedMedia as error:  # the caption is worth having all the same
            return SearchHit(f"{caption} (its picture was not fetched: {error})", source)


def _data_url(picture: Image.Image) -> str:
    small = picture.copy()
    small.thumbnail((_SENT_SIDE, _SENT_SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=90)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
