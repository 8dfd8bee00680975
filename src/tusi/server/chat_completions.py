"""/v1/chat/completions: reads the body into a ChatRequest."""

from __future__ import annotations

import uuid
from typing import Any

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from starlette.responses import Response

from tusi.backends.protocol import ChatRequest
from tusi.chat.openai import parse_messages
from tusi.core.errors import RequestError
from tusi.server.body import JSONRoute
from tusi.server.chat_format import ChatFormat
from tusi.server.generation import Generator, Job
from tusi.server.sampling import merged_kwargs, sampling_params, template_kwargs
from tusi.server.schema import ChatCompletionRequest, GenerationRequest
from tusi.server.steps_format import StepsFormat


def router(generator: Generator) -> APIRouter:
    """The endpoint."""
    routes = APIRouter(route_class=JSONRoute)

    @routes.post("/v1/chat/completions", response_model=None)
    async def create_chat_completion(body: ChatCompletionRequest, http: Request) -> Response:
        """Continue a conversation."""
        return await generator.respond(http, await run_in_threadpool(chat_job, generator, body))

    return routes


def chat_job(generator: Generator, body: ChatCompletionRequest, priority: int = 0) -> Job:
    """What to ask the backend and how to answer. Raises RequestError, or BackendUnavailable."""
    model = generator.check_model(body.model)
    params = sampling_params(body, generator.backend.default_sampling_params)
    offer = generator.tools.offer(body.tools, body.tool_choice)
    request_id = f"chatcmpl-{uuid.uuid4().hex}"
    request = ChatRequest(
        messages=parse_messages(generator.files.resolved(body.messages)),
        tools=offer.schemas,
        tool_choice=offer.choice,
        parallel_tool_calls=body.parallel_tool_calls is not False,
        sampling_params=params,
        template_kwargs=template_kwargs(body.chat_template_kwargs, body.reasoning_effort, "reasoning_effort"),
        mm_processor_kwargs=merged_kwargs(generator.config.mm_processor_kwargs, body.mm_processor_kwargs),
        request_id=request_id,
        priority=priority,
    )
    form: dict[str, Any] = {
        "request_id": request_id,
        "model": model,
        "n": params.n,
        "include_usage": wants_usage(body),
        "tokenizer": generator.facts.require_tokenizer("logprobs") if params.logprobs is not None else None,
        "num_top": params.logprobs or 0,
    }
    if offer.server_tools:
        run = generator.tools.run(generator.backend, request, offer, body.max_turns, body.max_tool_calls)
        return Job(
            endpoint="chat.completions",
            stream=bool(body.stream),
            open_streams=(run.open,),
            abort=run.abort,
            answer=StepsFormat(**form, client_names=offer.client_names),
        )
    refuse_loop_limits(max_turns=body.max_turns, max_tool_calls=body.max_tool_calls)
    return Job(
        endpoint="chat.completions",
        stream=bool(body.stream),
        open_streams=(lambda: generator.backend.stream(request),),
        abort=lambda: generator.backend.abort(request_id),
        answer=ChatFormat(**form),
    )


def refuse_loop_limits(**limits: int | None) -> None:
    """Raise RequestError for limits of a loop that will not run."""
    for name, limit in limits.items():
        if limit is not None:
            raise RequestError(
                f"{name} goes with tools that the server runs, and none is asked for. Leave it out, or add "
                '{"type": "builtin"} to tools.',
                param=name,
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
