"""Errors as OpenAI's clients know them: a status, and {"error": {"message", "type", "param", "code"}}.

What somebody may correct is told in full. What is our own fault is logged in full, and told only as far as it is an
error raised on purpose.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as StarletteHTTPException

from tusi.core.errors import (
    BackendUnavailable,
    CapacityError,
    EngineError,
    EngineRestarting,
    ReplicaLost,
    RequestError,
)

logger = logging.getLogger(__name__)

_TYPES = {400: "invalid_request_error", 401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}
_NOT_FOUND = ("model_not_found", "response_not_found", "file_not_found", "batch_not_found")


class ModelNotFound(RequestError):
    """The request names a model that is not served here."""

    default_code = "model_not_found"


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorReply:
    """An error on its way out."""

    status: int
    message: str
    param: str | None = None
    code: str | None = None
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def body(self) -> dict[str, Any]:
        """The JSON object that OpenAI's clients expect."""
        kind = _TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        """As a whole answer."""
        return JSONResponse(self.body, self.status, self.headers)


class Refusal(HTTPException):
    """A refusal with a status of its own, by what stands before the endpoints."""

    def __init__(self, status: int, message: str, *, code: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(status, message, headers)
        self.reply = ErrorReply(status=status, message=message, code=code, headers=headers or {})


def describe(error: BaseException) -> ErrorReply:
    """What to tell the client about an error. Logs those that are not the client's."""
    if isinstance(error, RequestError):
        status = 404 if error.code in _NOT_FOUND else 400
        return ErrorReply(status=status, message=str(error), param=error.param, code=error.code)
    if isinstance(error, CapacityError):
        return ErrorReply(status=429, message=str(error), code="server_busy", headers=_retry_after(error.retry_after))
    if isinstance(error, EngineRestarting | ReplicaLost):
        code = "replica_lost" if isinstance(error, ReplicaLost) else "engine_restarting"
        return ErrorReply(status=503, message=str(error), code=code, headers=_retry_after(error.retry_after))
    if isinstance(error, BackendUnavailable):
        return ErrorReply(status=503, message=str(error), code="unavailable")
    if isinstance(error, EngineError):
        logger.error("the engine failed a request: %s", error)
        return ErrorReply(status=500, message=str(error), code="engine_error")
    logger.error("a request failed unexpectedly", exc_info=error)
    message = "the server failed at this request through a fault of its own; its log says how. Try again, or report it."
    return ErrorReply(status=500, message=message, code="internal_error")


def _retry_after(seconds: float) -> dict[str, str]:
    return {"Retry-After": str(max(1, math.ceil(seconds)))}


def install(app: FastAPI) -> None:
    """Make every error of an application leave in OpenAI's shape."""

    async def on_error(_request: Request, error: Exception) -> JSONResponse:
        return describe(error).response()

    async def on_validation(_request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        return describe_validation(error.errors()).response()

    async def on_http(_request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, StarletteHTTPException)
        if isinstance(error, Refusal):
            return error.reply.response()
        headers = dict(error.headers or {})
        return ErrorReply(status=error.status_code, message=str(error.detail), headers=headers).response()

    app.add_exception_handler(RequestValidationError, on_validation)
    app.add_exception_handler(StarletteHTTPException, on_http)
    for kind in (RequestError, CapacityError, BackendUnavailable, EngineError, Exception):
        app.add_exception_handler(kind, on_error)


def describe_validation(errors: Sequence[Any]) -> ErrorReply:
    """The first thing wrong with a request: its path, what it is, what to do."""
    first = errors[0]
    path = [part for part in first["loc"] if part != "body"]
    param = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".") or None
    where = f"{param}: " if param else ""
    if first["type"] == "extra_forbidden":
        message = f"{where}this field is not one that is honoured here. Leave it out, or correct its name."
        return ErrorReply(status=400, message=message, param=param, code="unsupported_parameter")
    if first["type"] in ("json_invalid", "model_attributes_type"):
        why = f" ({first['ctx']['error']})" if first["type"] == "json_invalid" else ""
        message = f"the body is not a JSON object{why}. Send one, with the header Content-Type: application/json."
        return ErrorReply(status=400, message=message, code="invalid_json")
    return ErrorReply(
        status=400, message=f"{where}{first['msg']}. Correct this field.", param=param, code="invalid_request"
    )
