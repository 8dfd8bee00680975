"""A request's sampling fields to SamplingParams, over the model's own recommendation. Raises RequestError."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tusi.core.errors import RequestError
from tusi.engine.sampling_params import SamplingParams, StructuredOutputsParams
from tusi.server.schema import ChatCompletionRequest, CompletionRequest, GenerationRequest

_SAME_NAME = (
    "n",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "seed",
    "include_stop_str_in_output",
    "ignore_eos",
    "skip_special_tokens",
    "min_tokens",
)


def sampling_params(body: ChatCompletionRequest | CompletionRequest, defaults: SamplingParams) -> SamplingParams:
    """The model's own settings, changed where the request says so."""
    changes: dict[str, Any] = {name: getattr(body, name) for name in _SAME_NAME if getattr(body, name) is not None}
    stop = [body.stop] if isinstance(body.stop, str) else body.stop
    changes["stop"] = tuple(stop or ())
    changes["stop_token_ids"] = tuple(body.stop_token_ids or ())
    changes["max_tokens"] = _same(body, "max_tokens", "max_completion_tokens")
    changes["thinking_budget"] = _same(body, "thinking_budget", "reasoning_max_tokens")
    changes["logit_bias"] = {_token_id(key): bias for key, bias in (body.logit_bias or {}).items()}
    changes["structured_outputs"] = structured_outputs(body)
    changes["logprobs"] = _num_logprobs(body) if isinstance(body, ChatCompletionRequest) else body.logprobs
    return replace(defaults, **changes)


def structured_outputs(body: GenerationRequest) -> StructuredOutputsParams | None:
    """What the answer must look like, in whichever of the ways it was asked for."""
    asked = {
        "response_format": _response_format(body),
        "structured_outputs": _vllm_format(body),
        "guided_json": _json(body.guided_json),
        "guided_regex": None if body.guided_regex is None else StructuredOutputsParams(regex=body.guided_regex),
        "guided_choice": None if body.guided_choice is None else StructuredOutputsParams(choice=(*body.guided_choice,)),
    }
    given = {name: value for name, value in asked.items() if value is not None}
    if len(given) > 1:
        names = " and ".join(given)
        raise RequestError(f"{names} both bind the answer; one of them can. Leave the others out.", param=[*given][1])
    return next(iter(given.values()), None)


def merged_kwargs(server: Mapping[str, Any], request: Mapping[str, Any] | None) -> dict[str, Any]:
    """mm_processor_kwargs of the server under those of a request, which takes back the other way to choose frames."""
    merged = dict(server)
    for name, other in (("fps", "target_frames"), ("target_frames", "fps")):
        if request and request.get(name) is not None:
            merged.pop(other, None)
    return merged | dict(request or {})


def template_kwargs(given: Mapping[str, Any] | None, effort: str | None, param: str) -> dict[str, Any]:
    """chat_template_kwargs of a request and its reasoning effort. Raises RequestError for a grade of effort."""
    if effort not in (None, "none"):
        raise RequestError(
            f"{param}: this model has no grades of effort. Set thinking_budget, or {param} to 'none' for no thoughts.",
            param=param,
            code="unsupported_parameter",
        )
    return ({} if effort is None else {"enable_thinking": False}) | dict(given or {})


def _response_format(body: GenerationRequest) -> StructuredOutputsParams | None:
    wanted = body.response_format
    if wanted is None or wanted.type == "text":
        return None
    if wanted.type == "json_object":
        return StructuredOutputsParams(json="{}")
    if wanted.json_schema is None:
        raise RequestError(
            'response_format has type json_schema and no json_schema. Give it: {"name": "...", "schema": {...}}.',
            param="response_format.json_schema",
        )
    return _json(wanted.json_schema.schema_)


def _vllm_format(body: GenerationRequest) -> StructuredOutputsParams | None:
    wanted = body.structured_outputs
    if wanted is None:
        return None
    json_text = None if wanted.json_ is None else _json_text(wanted.json_)
    choice = None if wanted.choice is None else tuple(wanted.choice)
    return StructuredOutputsParams(json=json_text, regex=wanted.regex, choice=choice)


def _json(schema: str | dict[str, Any] | None) -> StructuredOutputsParams | None:
    return None if schema is None else StructuredOutputsParams(json=_json_text(schema))


def _json_text(schema: str | dict[str, Any]) -> str:
    return schema if isinstance(schema, str) else json.dumps(schema)


def _same(body: GenerationRequest, name: str, other: str) -> int | None:
    """The value of a field that goes by two names."""
    given = {key: value for key in (name, other) if (value := getattr(body, key, None)) is not None}
    if len(set(given.values())) > 1:
        raise RequestError(f"{name} is {given[name]} and {other} is {given[other]}. Give one of them.", param=other)
    return next(iter(given.values()), None)


def _num_logprobs(body: ChatCompletionRequest) -> int | None:
    if body.logprobs:
        return body.top_logprobs or 0
    if body.top_logprobs:
        raise RequestError(
            f"top_logprobs is {body.top_logprobs} and logprobs is not true. Set logprobs to true too.",
            param="top_logprobs",
        )
    return None


def _token_id(key: str) -> int:
    if not (key.isascii() and key.isdecimal() and len(key) <= 10):
        raise RequestError(
            f"logit_bias has the key {key[:40]!r}, which is no token id. /tokenize tells the ids of a text.",
            param="logit_bias",
        )
    return int(key)
