"""/v1/batches: create, look at, list and cancel them. Running them is the runner's business."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from typing import Any, Literal

from fastapi import APIRouter, Query
from pydantic import Field

from tusi.core.errors import RequestError
from tusi.server.body import JSONRoute
from tusi.server.files import page_of
from tusi.server.schema import Body
from tusi.server.state.batches import BatchStore
from tusi.server.state.files import FileStore

_WINDOW = re.compile(r"([1-9][0-9]{0,4})(m|h|d)")
_SECONDS = {"m": 60, "h": 3600, "d": 24 * 3600}
_MAX_WINDOW = 30 * 24 * 3600


class OutputExpiresAfter(Body):
    """When the files that a batch leaves expire."""

    anchor: Literal["created_at"]
    seconds: int = Field(ge=3600, le=_MAX_WINDOW)


class BatchRequest(Body):
    """Body of POST /v1/batches. completion_window: "24h"; also other numbers of minutes (m), hours and days (d)."""

    input_file_id: str
    endpoint: str
    completion_window: str
    metadata: dict[str, str] | None = None
    output_expires_after: OutputExpiresAfter | None = None


def router(batches: BatchStore, files: FileStore, *, endpoints: Collection[str], wake: Callable[[], None]) -> APIRouter:
    """The endpoints. endpoints: what a batch may ask."""
    routes = APIRouter(route_class=JSONRoute)

    @routes.post("/v1/batches")
    def create_batch(body: BatchRequest) -> dict[str, Any]:
        """Begin a batch."""
        if body.endpoint not in endpoints:
            raise RequestError(
                f"endpoint: {body.endpoint[:80]!r} is not run in batches here. Use one of: {', '.join(endpoints)}.",
                param="endpoint",
            )
        given = files.get(body.input_file_id, param="input_file_id")
        if given.purpose != "batch":
            raise RequestError(
                f"input_file_id: the file was uploaded for {given.purpose!r}. Upload it with purpose 'batch'.",
                param="input_file_id",
            )
        expires = body.output_expires_after
        batch = batches.create(
            endpoint=body.endpoint,
            input_file_id=given.id,
            window=(body.completion_window, _seconds(body.completion_window)),
            metadata=body.metadata,
            output_lifetime=None if expires is None else expires.seconds,
        )
        wake()
        return batch.to_object()

    @routes.get("/v1/batches")
    def list_batches(limit: int = Query(20, ge=1, le=100), after: str | None = None) -> dict[str, Any]:
        """Batches, the newest first."""
        return page_of([batch.to_object() for batch in batches.list()], limit=limit, after=after)

    @routes.get("/v1/batches/{batch_id}")
    def retrieve_batch(batch_id: str) -> dict[str, Any]:
        """How far a batch is."""
        return batches.get(batch_id).to_object()

    @routes.post("/v1/batches/{batch_id}/cancel")
    def cancel_batch(batch_id: str) -> dict[str, Any]:
        """End a batch; what is finished of it is kept, and its files hold it."""
        if not batches.move(batch_id, of=("validating", "in_progress"), to="cancelling"):
            status = batches.get(batch_id).status
            if status not in ("cancelling", "cancelled"):
                raise RequestError(f"the batch is {status} and can no longer be cancelled. Read its files instead.")
        wake()
        return batches.get(batch_id).to_object()

    return routes


def _seconds(window: str) -> int:
    found = _WINDOW.fullmatch(window)
    seconds = int(found.group(1)) * _SECONDS[found.group(2)] if found else 0
    if not 60 <= seconds <= _MAX_WINDOW:
        raise RequestError(
            f'completion_window: {window[:80]!r} is no time of 1m to 30d. Write "24h".', param="completion_window"
        )
    return seconds
