"""What requests may hold. An unknown field is an error; fields that change nothing about an answer are listed as such.

Fields of OpenAI and vLLM that are known and not honoured stand here too, so that their refusal can say why and what to
do instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tusi.core.errors import RequestError

# They are labels for the service's own bookkeeping; no answer depends on them.
IGNORED_FIELDS = (
    "metadata",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "safety_identifier",
    "service_tier",
    "user",
)

# field -> (the values that ask for nothing, why others are refused and what to do)
RefusedFields = Mapping[str, tuple[tuple[object, ...], str]]
REFUSED_FIELDS: RefusedFields = {
    "audio": ((), "This model writes text; leave it out."),
    "best_of": ((1,), "Ask for n completions and choose among them."),
    "echo": ((False,), "The prompt is not repeated; put it before the answer yourself."),
    "function_call": ((), "It is retired; use tool_choice."),
    "functions": (([],), "They are retired; use tools."),
    "guided_decoding_backend": ((), "There is one; leave it out."),
    "guided_grammar": ((), "Use guided_json, guided_regex or guided_choice."),
    "modalities": ((["text"],), 'This model writes text; use ["text"] or leave it out.'),
    "prediction": ((), "Predicted outputs are not used; leave it out."),
    "prompt_logprobs": ((0,), "Log-probabilities of prompts are not reported; leave it out."),
    "store": ((False,), "Nothing is stored here; keep the answer yourself."),
    "suffix": (("",), "This model cannot fill in a middle; leave it out."),
    "verbosity": (("medium",), "This model has no such setting; say it in the prompt."),
    "web_search_options": ((), "There is no web search here; offer it as a tool and run it yourself."),
}


def sorted_out(data: dict[str, Any], refused: RefusedFields) -> dict[str, Any]:
    """A body without what is ignored. Raises RequestError for what is known and not honoured."""
    kept = {name: value for name, value in data.items() if name not in IGNORED_FIELDS}
    for name, (harmless, advice) in refused.items():
        value = kept.pop(name, None)
        if value is not None and not any(value == v and type(value) is type(v) for v in harmless):
            raise RequestError(f"{name}: this is not honoured here. {advice}", param=name, code="unsupported_parameter")
    return kept


class Body(BaseModel):
    """What every body has in common: an unknown field or a value of another type is an error."""

    model_config = ConfigDict(extra="forbid", strict=True, protected_namespaces=())


class StreamOptions(Body):
    """include_usage: send a last chunk with the token counts."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = Field(None, description="ignored: nothing is obscured")


class StructuredOutputs(Body):
    """vLLM's way to bind an answer: one of the three."""

    json_: str | dict[str, Any] | None = Field(None, alias="json")
    regex: str | None = None
    choice: list[str] | None = None


class JsonSchemaFormat(Body):
    """The json_schema of a response_format. strict: it is always followed."""

    name: str | None = None
    description: str | None = None
    schema_: dict[str, Any] = Field(alias="schema")
    strict: bool | None = None


class ResponseFormat(Body):
    """text: anything. json_object: any JSON object. json_schema: what the schema says."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchemaFormat | None = None


class SamplingFields(Body):
    """What means the same in every request that asks for words. Null means not given, as with OpenAI."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stop: str | list[str] | None = None
    ignore_eos: bool | None = None
    thinking_budget: int | None = None


class GenerationRequest(SamplingFields):
    """What chat and text completions have in common."""

    refused: ClassVar[RefusedFields] = REFUSED_FIELDS

    model: str | None = None
    n: int | None = Field(None, ge=1, le=128)
    stop_token_ids: list[int] | None = None
    include_stop_str_in_output: bool | None = None
    skip_special_tokens: bool | None = None
    max_tokens: int | None = None
    min_tokens: int | None = None
    logit_bias: dict[str, float] | None = None
    reasoning_max_tokens: int | None = Field(None, description="another name of thinking_budget")
    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    guided_json: str | dict[str, Any] | None = None
    guided_regex: str | None = None
    guided_choice: list[str] | None = None
    mm_processor_kwargs: dict[str, Any] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    @model_validator(mode="before")
    @classmethod
    def _sort_out(cls, data: Any) -> Any:
        """Drop what is ignored, and refuse with a reason what is known and not honoured."""
        return sorted_out(data, cls.refused) if isinstance(data, dict) else data


class ChatCompletionRequest(GenerationRequest):
    """Body of /v1/chat/completions. messages and tools are read by tusi.chat.openai."""

    messages: list[Any]
    max_completion_tokens: int | None = None
    tools: list[Any] | None = None
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    reasoning_effort: str | None = Field(None, description="none: no thoughts; other grades are refused")
    chat_template_kwargs: dict[str, Any] | None = None
    max_turns: int | None = Field(None, ge=1, description="goes with built-in tools: answers of the model")
    max_tool_calls: int | None = Field(None, ge=0, description="goes with built-in tools: calls in all")


class CompletionRequest(GenerationRequest):
    """Body of /v1/completions: prompts as text or as token ids.

    logprobs: how many alternatives to report. echo: whether a completion begins with its prompt.
    """

    refused: ClassVar[RefusedFields] = {name: why for name, why in REFUSED_FIELDS.items() if name != "echo"}

    prompt: str | list[str] | list[int] | list[list[int]]
    logprobs: int | None = Field(None, ge=0, le=20)
    echo: bool | None = None


class TokenizeRequest(Body):
    """Body of /tokenize: a text, or a conversation as /v1/chat/completions reads it.

    add_special_tokens: there are none to add. add_generation_prompt: it is always counted, as it is always sent.
    """

    model: str | None = None
    prompt: str | None = None
    messages: list[Any] | None = None
    tools: list[Any] | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    mm_processor_kwargs: dict[str, Any] | None = None
    add_special_tokens: Literal[False] | None = None
    add_generation_prompt: Literal[True] | None = None


class DetokenizeRequest(Body):
    """Body of /detokenize."""

    model: str | None = None
    tokens: list[int]
