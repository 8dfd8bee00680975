"""/v1/files: what clients upload once and name by its id: pictures and videos of messages, inputs of batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, File, Form, Query, UploadFile
from fastapi.responses import FileResponse
from starlette.responses import Response

from tusi.core.errors import RequestError
from tusi.server.state.files import FileStore

_PURPOSES = ("assistants", "batch", "user_data", "vision")
_MAX_LIFETIME = 30 * 24 * 3600


def router(files: FileStore) -> APIRouter:
    """The endpoints. They are no coroutines: disks are slow, and the loop has others to serve."""
    routes = APIRouter()

    @routes.post("/v1/files")
    def create_file(
        file: Annotated[UploadFile, File()],
        purpose: Annotated[str, Form()],
        anchor: Annotated[str | None, Form(alias="expires_after[anchor]")] = None,
        seconds: Annotated[int | None, Form(alias="expires_after[seconds]", ge=3600, le=_MAX_LIFETIME)] = None,
    ) -> dict[str, Any]:
        """Upload a file."""
        if purpose not in _PURPOSES:
            raise RequestError(
                f"purpose: {purpose[:80]!r} is not known here. Use one of: {', '.join(_PURPOSES)}.", param="purpose"
            )
        if (anchor is None) != (seconds is None) or anchor not in (None, "created_at"):
            raise RequestError(
                "expires_after: it needs anchor 'created_at' and seconds. Give both, or leave it out.",
                param="expires_after",
            )
        name = (file.filename or "upload").replace("\\", "/").rsplit("/", 1)[-1][:255]
        return files.add(file.file, filename=name, purpose=purpose, lifetime=seconds).to_object()

    @routes.get("/v1/files")
    def list_files(
        purpose: str | None = None,
        limit: int = Query(10_000, ge=1, le=10_000),
        order: Literal["asc", "desc"] = "desc",
        after: str | None = None,
    ) -> dict[str, Any]:
        """Files, the newest first."""
        found = files.list(purpose=purpose, newest_first=order == "desc")
        return page_of([file.to_object() for file in found], limit=limit, after=after)

    @routes.get("/v1/files/{file_id}")
    def retrieve_file(file_id: str) -> dict[str, Any]:
        """What is known of a file."""
        return files.get(file_id).to_object()

    @routes.get("/v1/files/{file_id}/content", response_model=None)
    def file_content(file_id: str) -> Response:
        """The file itself, as something to be saved: what somebody uploaded is never a page of this server."""
        found = files.get(file_id)
        return FileResponse(
            files.path(file_id),
            media_type="application/octet-stream",
            filename=found.filename,
            headers={"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "sandbox"},
        )

    @routes.delete("/v1/files/{file_id}")
    def delete_file(file_id: str) -> dict[str, Any]:
        """Delete a file."""
        files.delete(file_id)
        return {"id": file_id, "object": "file", "deleted": True}

    return routes


def page_of(items: Sequence[dict[str, Any]], *, limit: int, after: str | None) -> dict[str, Any]:
    """A page of a list, as OpenAI's clients turn them. Raises RequestError."""
    if after is not None:
        ids = [item["id"] for item in items]
        if after not in ids:
            raise RequestError(f"after: there is no {after[:80]!r} in this list. Take an id from it.", param="after")
        items = items[ids.index(after) + 1 :]
    shown = list(items[:limit])
    return {
        "object": "list",
        "data": shown,
        "first_id": shown[0]["id"] if shown else None,
        "last_id": shown[-1]["id"] if shown else None,
        "has_more": len(items) > limit,
    }
