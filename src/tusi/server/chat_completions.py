"""/v1/chat/completions: reads the body into a ChatRequest."""

from __future__ import annotations

import uuid
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from tusi.backends.protocol import ChatRequest, NamedToolChoice, ToolChoice
from tusi.chat.openai import parse_messages, parse_tools
from tusi.core.errors import RequestError
from tusi.server.chat_format import ChatFormat
from tusi.server.generation import Generator, Job
from tusi.server.sampling import merged_kwargs, sampling_params
from tusi.server.schema import ChatCompletionRequest, GenerationRequest


def router(generator: Generator) -> APIRouter:
    """The endpoint."""
    routes = APIRouter()

    @routes.post("/v1/chat/completions", response_model=None)
    async def create_chat_completion(body: ChatCompletionRequest, http: Request) -> Response:
        """Continue a conversation."""
        return await generator.respond(http, chat_job(generator, body))

    return routes


def chat_job(generator: Generator, body: ChatCompletionRequest) -> Job:
    """What to ask the backend and how to answer. Raises RequestError, or BackendUnavailable."""
    model = generator.check_model(body.model)
    params = sampling_params(body, generator.backend.default_sampling_params)
    tools, choice = offered_tools(body)
    request_id = f"chatcmpl-{uuid.uuid4().hex}"
    request = ChatRequest(
        messages=parse_messages(body.messages),
        tools=tools,
        tool_choice=choice,
        parallel_tool_calls=body.parallel_tool_calls is not False,
        sampling_params=params,
        template_kwargs=body.chat_template_kwargs or {},
        mm_processor_kwargs=merged_kwargs(generator.config.mm_processor_kwargs, body.mm_processor_kwargs),
        request_id=request_id,
    )
    answer = ChatFormat(
        request_id=request_id,
        model=model,
        n=params.n,
        include_usage=wants_usage(body),
        tokenizer=generator.facts.require_tokenizer("logprobs") if params.logprobs is not None else None,
        num_top=params.logprobs or 0,
    )
    return Job(
        endpoint="chat.completions",
        request_id=request_id,
        n=params.n,
        stream=bool(body.stream),
        open_stream=lambda: generator.backend.stream(request),
        answer=answer,
    )


def offered_tools(body: ChatCompletionRequest) -> tuple[tuple[dict[str, Any], ...], ToolChoice]:
    """The tools that the model is shown, and whether it must call them. Raises RequestError."""
    tools = parse_tools(body.tools)
    match body.tool_choice:
        case None | "auto":
            return tools, "auto"
        case "none":
            return (), "auto"
        case "required":
            return tools, "required"
        case {"type": "function", "function": {"name": str(name), **others}} if not others:
            return tools, NamedToolChoice(name)
    raise RequestError(
        f"tool_choice: {str(body.tool_choice)[:80]!r} is not known here. Use 'auto', 'none', 'required', or "
        '{"type": "function", "function": {"name": "..."}}.',
        param="tool_choice",
        code="unsupported_parameter",
    )


def wants_usage(body: GenerationRequest) -> bool:
    """Whether a stream ends with token counts. Raises RequestError for stream_options without a stream."""
    if body.stream_options is None:
        return False
    if not body.stream:
        raise RequestError(
            "stream_options: there is no stream. Set stream to true, or leave it out.", param="stream_options"
        )
    return bool(body.stream_options.include_usage)
