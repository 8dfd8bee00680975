"""The OpenAPI description at /openapi.json, made true: FastAPI knows what comes in, and little of what goes out.

FastAPI says that a wrong request is a 422 of its own form, that every answer is JSON, and nothing of errors, keys and
event streams. Here it is told what the server really does; a test asks every endpoint and compares.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from tusi import __version__
from tusi.server.config import ServerConfig
from tusi.server.schema import IGNORED_FIELDS

Schema = dict[str, Any]

_ERRORS = {
    "400": "The request is wrong: the message says what, and what to do.",
    "401": "The API key is missing or wrong.",
    "403": "Asked by a name, or from a web page, that this server does not know.",
    "404": "There is no such thing here.",
    "408": "The body did not come in time.",
    "413": "The body is too large.",
    "415": "The body is compressed.",
    "429": "No room now; Retry-After says when to come again.",
    "500": "The server failed through a fault of its own.",
    "503": "What this needs is not there just now, or not in this backend.",
}
_TEXT: Schema = {"type": "string"}
_TEXT_OR_NULL: Schema = {"type": ["string", "null"]}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_OPEN: Schema = {"type": "object", "additionalProperties": True}


def _object(required: Mapping[str, Schema], **optional: Schema) -> Schema:
    return {"type": "object", "required": [*required], "properties": {**required, **optional}}


def _array(items: Schema, **limits: Any) -> Schema:
    return {"type": "array", "items": items, **limits}


_URL = _object({"url": _TEXT}, detail=_TEXT_OR_NULL)
_PARTS: Schema = {
    "anyOf": [
        _object({"type": {"const": "text"}, "text": _TEXT}),
        _object({"type": {"const": "image_url"}, "image_url": {"anyOf": [_URL, _TEXT]}}),
        _object({"type": {"const": "video_url"}, "video_url": {"anyOf": [_URL, _TEXT]}}),
    ]
}
_CALL = _object(
    {"id": _TEXT, "type": {"const": "function"}, "function": _object({"name": _TEXT, "arguments": _TEXT})}, index=_COUNT
)
_MESSAGE = _object(
    {"role": {"enum": ["system", "developer", "user", "assistant", "tool"]}},
    content={"anyOf": [_TEXT, _array(_PARTS), {"type": "null"}]},
    reasoning=_TEXT_OR_NULL,
    reasoning_content=_TEXT_OR_NULL,
    tool_calls={"anyOf": [_array(_CALL), {"type": "null"}]},
    tool_call_id=_TEXT_OR_NULL,
    name=_TEXT_OR_NULL,
)
_TOOL: Schema = {
    "anyOf": [
        _object(
            {
                "type": {"const": "function"},
                "function": _object({"name": {"type": "string", "minLength": 1}}, description=_TEXT, parameters=_OPEN),
            }
        ),
        _object({"type": {"const": "builtin"}}, name=_TEXT),
    ]
}
_USAGE = _object({"prompt_tokens": _COUNT, "completion_tokens": _COUNT, "total_tokens": _COUNT})
_FINISH: Schema = {"enum": ["stop", "length", "tool_calls", "abort"]}
_ANSWER = _object(
    {"role": {"const": "assistant"}, "content": _TEXT_OR_NULL},
    reasoning=_TEXT_OR_NULL,
    reasoning_content=_TEXT_OR_NULL,
    tool_calls={"anyOf": [_array(_CALL), {"type": "null"}]},
)
_CARD = _object({"id": _TEXT, "object": {"const": "model"}, "created": _COUNT, "owned_by": _TEXT})


def _list_of(item: Schema) -> Schema:
    return _object({"object": {"const": "list"}, "data": _array(item)})


def _generated(kind: str, choice: Schema) -> Schema:
    return _object(
        {
            "id": _TEXT,
            "object": {"const": kind},
            "created": _COUNT,
            "model": _TEXT,
            "choices": _array(choice),
            "usage": _USAGE,
        }
    )


_ANSWERS: Mapping[tuple[str, str], Schema] = {
    ("/v1/chat/completions", "post"): _generated(
        "chat.completion", _object({"index": _COUNT, "message": _ANSWER, "finish_reason": _FINISH})
    ),
    ("/v1/completions", "post"): _generated(
        "text_completion", _object({"index": _COUNT, "text": _TEXT, "finish_reason": _FINISH})
    ),
    ("/v1/responses", "post"): _object({"id": _TEXT, "object": {"const": "response"}, "output": _array(_OPEN)}),
    ("/v1/models", "get"): _list_of(_CARD),
    ("/v1/models/{name}", "get"): _CARD,
    ("/v1/tools", "get"): _list_of(_object({"id": _TEXT, "object": {"const": "tool"}})),
    ("/v1/files", "get"): _list_of(_object({"id": _TEXT, "object": {"const": "file"}})),
    ("/v1/batches", "get"): _list_of(_object({"id": _TEXT, "object": {"const": "batch"}})),
    ("/tokenize", "post"): _object(
        {"tokens": _array(_COUNT), "count": _COUNT, "max_model_len": {"type": ["integer", "null"]}}
    ),
    ("/detokenize", "post"): _object({"prompt": _TEXT}),
    ("/health", "get"): _object({"status": {"enum": ["ok", "degraded"]}}, replicas=_array(_OPEN)),
}
_STREAMED = ("/v1/chat/completions", "/v1/completions", "/v1/responses")
_NO_JSON = {"/metrics": "text/plain", "/v1/files/{file_id}/content": "application/octet-stream"}
_KEYLESS = ("/health", "/metrics")


def install(app: FastAPI, config: ServerConfig) -> None:
    """Make the application describe itself so."""

    def described() -> Schema:
        if app.openapi_schema is None:
            app.openapi_schema = describe(app, config)
        return app.openapi_schema

    app.openapi = described  # type: ignore[method-assign]  # FastAPI's documented way


def describe(app: FastAPI, config: ServerConfig) -> Schema:
    """The description."""
    schema = get_openapi(
        title="Tusi",
        version=__version__,
        routes=app.routes,
        description="Speaks to OpenAI's clients; see docs/server.md.",
    )
    components = schema["components"]
    _correct_bodies(components["schemas"])
    components["schemas"]["Error"] = _object(
        {"error": _object({"message": _TEXT, "type": _TEXT, "param": _TEXT_OR_NULL, "code": _TEXT_OR_NULL})}
    )
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    components["responses"] = {status: {"description": why, "content": error} for status, why in _ERRORS.items()}
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            _correct_operation(operation, path, method)
    if config.api_keys:
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        schema["security"] = [{"key": []}]
        for path in _KEYLESS:
            schema["paths"][path]["get"]["security"] = []
    return schema


def _correct_operation(operation: Schema, path: str, method: str) -> None:
    responses = operation["responses"]
    responses.pop("422", None)
    if path in _NO_JSON:
        responses["200"]["content"] = {_NO_JSON[path]: {"schema": _TEXT}}
    elif (path, method) in _ANSWERS:
        responses["200"]["content"]["application/json"]["schema"] = _ANSWERS[path, method]
    if path in _STREAMED and method == "post":
        responses["200"]["content"]["text/event-stream"] = {"schema": _TEXT}
    for status in _ERRORS:
        responses.setdefault(status, {"$ref": f"#/components/responses/{status}"})


def _correct_bodies(schemas: dict[str, Schema]) -> None:
    """What the models leave to later checks, and what they drop before they look."""
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for name, body in schemas.items():
        fields = body.get("properties", {})
        if "messages" in fields:
            fields["messages"] |= {"items": _MESSAGE, "minItems": 1} if name == "ChatCompletionRequest" else {}
        if "tools" in fields and name == "ChatCompletionRequest":
            fields["tools"] = {"anyOf": [_array(_TOOL), {"type": "null"}]}
        if name in ("ChatCompletionRequest", "CompletionRequest"):
            for ignored in IGNORED_FIELDS:
                fields.setdefault(ignored, {"description": "ignored: no answer depends on it"})
