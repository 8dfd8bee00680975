"""/v1/responses: create, retrieve, delete, list the input; stored so that a later request can go on from one."""

from __future__ import annotations

import time
import uuid
from typing import Any

from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool
from starlette.responses import Response

from tusi.backends.protocol import ChatRequest, TokenLogprobs
from tusi.chat.messages import Message, TextPart
from tusi.core.errors import RequestError
from tusi.server.answer_format import Payload
from tusi.server.body import JSONRoute
from tusi.server.chat_completions import refuse_loop_limits
from tusi.server.chat_format import named_logprobs
from tusi.server.files import page_of
from tusi.server.generation import Generator, Job
from tusi.server.responses.form import ResponseFormat
from tusi.server.responses.items import items_to_messages, read_items
from tusi.server.responses.schema import INCLUDABLE, ResponsesRequest
from tusi.server.sampling import merged_kwargs, sampling_params, template_kwargs
from tusi.server.schema import ChatCompletionRequest, SamplingFields
from tusi.server.server_tools import Offer
from tusi.server.state.responses import ResponseStore, StoredResponse


def router(generator: Generator, store: ResponseStore) -> APIRouter:
    """The endpoints."""
    routes = APIRouter(route_class=JSONRoute)

    @routes.post("/v1/responses", response_model=None)
    async def create_response(body: ResponsesRequest, http: Request) -> Response:
        """Continue a conversation that is given as items."""
        return await generator.respond(http, await run_in_threadpool(response_job, generator, store, body))

    @routes.get("/v1/responses/{response_id}")
    def retrieve_response(response_id: str, stream: bool = False) -> dict[str, Any]:
        """A stored response."""
        if stream:
            raise RequestError(
                "a stored response is whole and cannot be streamed again. Leave stream out.", param="stream"
            )
        return store.get(response_id).body

    @routes.delete("/v1/responses/{response_id}")
    def delete_response(response_id: str) -> dict[str, Any]:
        """Forget a stored response."""
        store.delete(response_id)
        return {"id": response_id, "object": "response", "deleted": True}

    @routes.post("/v1/responses/{response_id}/cancel")
    def cancel_response(response_id: str) -> dict[str, Any]:
        """Only what runs in the background could be cancelled."""
        store.get(response_id)
        raise RequestError(
            "this response does not run in the background, so there is nothing to cancel. Close its connection instead."
        )

    @routes.get("/v1/responses/{response_id}/input_items")
    def list_input_items(
        response_id: str,
        limit: int = Query(20, ge=1, le=100),
        order: str = Query("desc", pattern="^(asc|desc)$"),
        after: str | None = None,
    ) -> dict[str, Any]:
        """What a stored response answered."""
        items = store.get(response_id).input
        if order == "desc":
            items = items[::-1]
        return page_of(items, limit=limit, after=after)

    return routes


def response_job(generator: Generator, store: ResponseStore, body: ResponsesRequest, priority: int = 0) -> Job:
    """What to ask the backend and how to answer. Raises RequestError, or BackendUnavailable."""
    model = generator.check_model(body.model)
    response_id = f"resp_{uuid.uuid4().hex}"
    own = [{"id": f"item_{uuid.uuid4().hex}"} | item for item in read_items(body.input)]
    before = [] if body.previous_response_id is None else store.conversation(body.previous_response_id)
    offer = generator.tools.offer(body.tools, body.tool_choice)
    chat = _as_chat(body)
    request = ChatRequest(
        messages=_messages(generator, body, before, own),
        tools=offer.schemas,
        tool_choice=offer.choice,
        parallel_tool_calls=body.parallel_tool_calls is not False,
        sampling_params=sampling_params(chat, generator.backend.default_sampling_params),
        template_kwargs=template_kwargs(
            body.chat_template_kwargs, body.reasoning.effort if body.reasoning else None, "reasoning.effort"
        ),
        mm_processor_kwargs=merged_kwargs(generator.config.mm_processor_kwargs, body.mm_processor_kwargs),
        request_id=response_id,
        priority=priority,
    )

    def save(finished: Payload) -> None:
        if body.store is not False:
            store.save(StoredResponse(finished, own, finished["output"], body.previous_response_id))

    answer = ResponseFormat(
        body=_head(body, response_id, model, request),
        server_names=frozenset(tool.name for tool in offer.server_tools),
        name_logprobs=_logprobs_writer(generator, chat),
        on_end=save,
    )
    open_stream, abort = _source(generator, request, offer, body)
    return Job(endpoint="responses", stream=bool(body.stream), open_streams=(open_stream,), abort=abort, answer=answer)


def _source(generator: Generator, request: ChatRequest, offer: Offer, body: ResponsesRequest) -> tuple[Any, Any]:
    """Where the answer comes from, and how it is ended: the backend, or the loop with tools that run here."""
    if offer.server_tools:
        run = generator.tools.run(generator.backend, request, offer, body.max_turns, body.max_tool_calls)
        return run.open, run.abort
    refuse_loop_limits(max_turns=body.max_turns)  # max_tool_calls bounds nothing then, and does no harm
    request_id = request.request_id or ""
    return lambda: generator.backend.stream(request), lambda: generator.backend.abort(request_id)


def _messages(
    generator: Generator, body: ResponsesRequest, before: list[dict[str, Any]], own: list[dict[str, Any]]
) -> tuple[Message, ...]:
    """Instructions hold for one request: those of earlier ones are not among the items."""
    fields = ("content", "output")
    items = [
        *generator.files.resolved(before, param="previous_response_id", fields=fields),
        *generator.files.resolved(own, param="input", fields=fields),
    ]
    said = items_to_messages(items, num_before=len(before))
    if body.instructions:
        said = (Message(role="system", content=(TextPart(body.instructions),)), *said)
    if not said:
        raise RequestError(
            "there is nothing to answer: input is empty. Give a text or items, or previous_response_id.", param="input"
        )
    return said


def _as_chat(body: ResponsesRequest) -> ChatCompletionRequest:
    """The fields that mean the same in a chat completion. Raises RequestError."""
    given = {name: getattr(body, name) for name in SamplingFields.model_fields}
    unknown = [name for name in body.include or () if name not in INCLUDABLE]
    if unknown:
        raise RequestError(
            f"include: {unknown[0][:80]!r} is not known here. Known are: {', '.join(INCLUDABLE)}.", param="include"
        )
    wants_logprobs = bool(body.top_logprobs) or "message.output_text.logprobs" in (body.include or ())
    wanted = body.text.format if body.text else None
    response_format: dict[str, Any] | None = None
    if wanted is not None and wanted.type == "json_schema":
        if wanted.schema_ is None:
            raise RequestError("text.format has no schema. Give one.", param="text.format.schema")
        response_format = {"type": "json_schema", "json_schema": {"name": wanted.name, "schema": wanted.schema_}}
    elif wanted is not None:
        response_format = {"type": wanted.type}
    return ChatCompletionRequest.model_validate(
        given
        | {
            "messages": [],
            "max_tokens": body.max_output_tokens,
            "logprobs": wants_logprobs,
            "top_logprobs": body.top_logprobs,
            "response_format": response_format,
        }
    )


def _logprobs_writer(generator: Generator, chat: ChatCompletionRequest) -> Any:
    if not chat.logprobs:
        return None
    tokenizer = generator.facts.require_tokenizer("logprobs")
    num_top = chat.top_logprobs or 0

    def write(entries: tuple[TokenLogprobs, ...]) -> list[Payload]:
        return named_logprobs(tokenizer, entries, num_top)

    return write


def _head(body: ResponsesRequest, response_id: str, model: str, request: ChatRequest) -> Payload:
    params = request.sampling_params
    text_format: Payload = {"type": "text"}
    if body.text and body.text.format:
        text_format = body.text.format.model_dump(by_alias=True, exclude_none=True)
    return {
        "id": response_id,
        "object": "response",
        "created_at": int(time.time()),
        "model": model,
        "error": None,
        "incomplete_details": None,
        "instructions": body.instructions,
        "metadata": body.metadata or {},
        "background": False,
        "max_output_tokens": body.max_output_tokens,
        "max_tool_calls": body.max_tool_calls,
        "parallel_tool_calls": request.parallel_tool_calls,
        "previous_response_id": body.previous_response_id,
        "reasoning": {"effort": body.reasoning.effort if body.reasoning else None, "summary": None},
        "store": body.store is not False,
        "temperature": params.temperature,
        "top_p": params.top_p,
        "top_logprobs": body.top_logprobs or 0,
        "text": {"format": text_format, "verbosity": "medium"},
        "tool_choice": body.tool_choice or "auto",
        "tools": body.tools or [],
        "truncation": "disabled",
        "usage": None,
    }
