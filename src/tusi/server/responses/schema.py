"""Body of /v1/responses. What is known and not honoured is refused with a reason, as everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from tusi.server.schema import Body, SamplingFields, sorted_out

# field -> (the values that ask for nothing, why others are refused and what to do)
_REFUSED: Mapping[str, tuple[tuple[object, ...], str]] = {
    "background": ((False,), "An answer lasts as long as its connection; use /v1/batches for work without one."),
    "context_management": ((), "Nothing is compacted here; send what matters."),
    "conversation": ((), "There are no conversation objects here; use previous_response_id."),
    "moderation": ((), "Nothing is moderated here."),
    "prompt": ((), "There are no stored prompts here; send instructions and input."),
    "truncation": (("disabled",), "Input that is too long is refused, never cut; leave out what matters least."),
}
INCLUDABLE = (
    "code_interpreter_call.outputs",
    "computer_call_output.output.image_url",
    "file_search_call.results",
    "message.input_image.image_url",
    "message.output_text.logprobs",
    "reasoning.encrypted_content",
    "web_search_call.action.sources",
    "web_search_call.results",
)
"""What `include` may name. Only logprobs change anything: reasoning is always sent in plain text, and
items of other kinds do not occur."""


class ReasoningOptions(Body):
    """effort none: no thoughts. Thoughts are sent in full, so that summaries would add nothing."""

    effort: str | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None
    generate_summary: Literal["auto", "concise", "detailed"] | None = None


class TextFormat(Body):
    """text: anything. json_object: any JSON object. json_schema: what the schema says, always to the letter."""

    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    description: str | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = None


class TextOptions(Body):
    """What the answer must look like."""

    format: TextFormat | None = None
    verbosity: Literal["medium"] | None = None


class ResponseStreamOptions(Body):
    """Nothing is obscured."""

    include_obfuscation: bool | None = None


class ResponsesRequest(SamplingFields):
    """Body of POST /v1/responses. input and tools are read by the modules that make messages and tools of them."""

    model: str | None = None
    input: str | list[Any] = Field(default_factory=list)
    instructions: str | None = None
    previous_response_id: str | None = None
    store: bool | None = None
    stream: bool | None = None
    stream_options: ResponseStreamOptions | None = None
    include: list[str] | None = None
    tools: list[Any] | None = None
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None
    max_output_tokens: int | None = Field(None, ge=1)
    max_tool_calls: int | None = Field(None, ge=0)
    max_turns: int | None = Field(None, ge=1)
    reasoning: ReasoningOptions | None = None
    text: TextOptions | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    chat_template_kwargs: dict[str, Any] | None = None
    mm_processor_kwargs: dict[str, Any] | None = None
    metadata: dict[str, str] | None = None

    @model_validator(mode="before")
    @classmethod
    def _sort_out(cls, data: Any) -> Any:
        """Drop what is ignored, and refuse with a reason what is known and not honoured."""
        if not isinstance(data, dict):
            return data
        metadata = data.get("metadata")
        return sorted_out(data, _REFUSED) | ({"metadata": metadata} if metadata is not None else {})
