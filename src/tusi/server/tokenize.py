"""/tokenize and /detokenize: text to token ids and back, vLLM's shapes. Texts that spell control tokens become them.

A conversation is counted as it would be sent, pictures and videos included.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from tusi.backends.protocol import ChatRequest
from tusi.chat.openai import parse_messages, parse_tools
from tusi.core.errors import RequestError
from tusi.server.body import JSONRoute
from tusi.server.generation import Generator
from tusi.server.sampling import merged_kwargs
from tusi.server.schema import DetokenizeRequest, TokenizeRequest


def router(generator: Generator) -> APIRouter:
    """The endpoints."""
    routes = APIRouter(route_class=JSONRoute)

    @routes.post("/tokenize")
    def tokenize(body: TokenizeRequest) -> dict[str, Any]:
        """Token ids of a text or of a conversation."""
        generator.check_model(body.model)
        ids = _ids(generator, body)
        return {"tokens": ids, "count": len(ids), "max_model_len": generator.facts.max_model_len}

    @routes.post("/detokenize")
    def detokenize(body: DetokenizeRequest) -> dict[str, Any]:
        """Text of token ids."""
        generator.check_model(body.model)
        tokenizer = generator.facts.require_tokenizer("/detokenize")
        for position, token_id in enumerate(body.tokens):
            if not 0 <= token_id < tokenizer.vocab_size:
                raise RequestError(
                    f"tokens[{position}] is {str(token_id)[:20]}; ids run from 0 to {tokenizer.vocab_size - 1}. "
                    "Correct it.",
                    param=f"tokens[{position}]",
                )
        return {"prompt": tokenizer.decode(body.tokens)}

    return routes


def _ids(generator: Generator, body: TokenizeRequest) -> list[int]:
    tokenizer = generator.facts.require_tokenizer("/tokenize")
    if (body.prompt is None) == (body.messages is None):
        raise RequestError("give either prompt or messages: one of the two, not both.", param="prompt")
    if body.prompt is not None:
        for name in ("tools", "chat_template_kwargs", "mm_processor_kwargs"):
            if getattr(body, name) is not None:
                raise RequestError(f"{name} goes with messages. Leave it out, or give messages.", param=name)
        return tokenizer.encode(body.prompt)
    assert generator.facts.prompt_ids is not None  # whoever has a tokenizer has these
    request = ChatRequest(
        messages=parse_messages(generator.files.resolved(body.messages)),
        tools=parse_tools(body.tools),
        template_kwargs=body.chat_template_kwargs or {},
        mm_processor_kwargs=merged_kwargs(generator.config.mm_processor_kwargs, body.mm_processor_kwargs),
    )
    return [*generator.facts.prompt_ids(request)]
