"""What a server allows and how it is called. Values only; the media limits are the backend's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tusi.core.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """Limits and names of one server.

    served_model_names: names that requests may use for the model; empty: the backend's own.
    api_keys: of these, clients must send one as `Authorization: Bearer ...`; empty: nothing is asked.
    mm_processor_kwargs: for requests that bring none of the same name.
    max_requests: requests in the house at once, running and waiting; the next one is answered with 429.
    max_body_bytes, max_held_bytes: of one request, of all in the house. body_seconds: for a body to arrive.
    max_file_bytes: of an upload to /v1/files, which lies on disk.
    batch_concurrency: lines of a batch that run at once, behind all other requests.
    hosts: names, beside IP addresses and localhost, by which requests must call the server; None: any name will do.
    drain_seconds: what requests get to finish in once the server is told to stop.
    state_dir: where responses, files and batches are kept; None: a temporary folder, gone with the server.
    """

    served_model_names: tuple[str, ...] = ()
    api_keys: tuple[str, ...] = ()
    mm_processor_kwargs: Mapping[str, Any] = field(default_factory=dict)
    max_requests: int = 256
    max_body_bytes: int = 128 * 2**20
    max_held_bytes: int = 1024 * 2**20
    max_file_bytes: int = 1024 * 2**20
    body_seconds: int = 120
    batch_concurrency: int = 8
    hosts: tuple[str, ...] | None = None
    drain_seconds: int = 60
    state_dir: Path | None = None

    def __post_init__(self) -> None:
        for name in _POSITIVE:
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)!r}; it must be 1 or more. Correct it.")
        if not all(key.isascii() and key.isprintable() and key.strip() == key != "" for key in self.api_keys):
            raise ConfigError(
                "an API key is empty or has characters that a header cannot carry; it must be visible ASCII. "
                "Choose another one."
            )


_POSITIVE = (
    "max_requests",
    "max_body_bytes",
    "max_held_bytes",
    "max_file_bytes",
    "body_seconds",
    "batch_concurrency",
    "drain_seconds",
)
