"""Items of the Responses API to messages. Raises only RequestError, with the path of the item at fault.

What one turn of the model made (a thought, a message, calls) arrives as several items and becomes one message again.
Calls of built-in tools (`mcp_call`) hold their result too, pictures included, in our field `content`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tusi.chat.messages import Message, Part, Role, TextPart, ToolCall
from tusi.chat.openai_content import parse_content
from tusi.chat.openai_fields import check_names, object_field, refuse, shown, text_field
from tusi.chat.tool_calls import is_json_object

_ROLES: dict[str, Role] = {"user": "user", "system": "system", "developer": "system", "assistant": "assistant"}
# They come with items that are sent back, and change nothing.
_IGNORED = ("id", "status", "created_by", "caller", "namespace", "phase", "prompt_cache_breakpoint", "parsed")
_CALL_FIELDS = ("type", "call_id", "name", "arguments", "parsed_arguments")
_MCP_FIELDS = ("type", "name", "arguments", "server_label", "output", "error", "approval_request_id", "content")


def read_items(given: str | Sequence[Any], *, param: str = "input") -> list[dict[str, Any]]:
    """`input` as items: a text is one message of the user's. Most is checked in items_to_messages only."""
    if isinstance(given, str):
        return [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": given}]}]
    return [dict(object_field(item, f"{param}[{number}]")) for number, item in enumerate(given)]


def items_to_messages(items: Sequence[Mapping[str, Any]], *, num_before: int = 0) -> tuple[Message, ...]:
    """A conversation. num_before: items that come from stored responses, before those of the request."""
    builder = _Builder()
    for number, item in enumerate(items):
        is_own = number >= num_before
        param = f"input[{number - num_before}]" if is_own else f"previous_response_id (item {number})"
        _READERS[_type_of(item, param)](builder, item, param)
    builder.flush()
    return tuple(builder.messages)


@dataclass
class _Builder:
    """Messages so far, and the assistant's turn that is being put together, with the results of its built-in calls."""

    messages: list[Message] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    content: list[Part] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)
    results: list[Message] = field(default_factory=list)
    turn: object = None

    def flush(self) -> None:
        """The assistant's turn is over."""
        if self.reasoning or self.content or self.calls:
            self.messages.append(
                Message(
                    role="assistant",
                    content=tuple(self.content),
                    reasoning="\n".join(self.reasoning) or None,
                    tool_calls=tuple(self.calls),
                )
            )
            self.messages += self.results
        self.reasoning, self.content, self.calls, self.results, self.turn = [], [], [], [], None

    def add(self, message: Message) -> None:
        """A message of somebody else's."""
        self.flush()
        self.messages.append(message)


def _type_of(item: Mapping[str, Any], param: str) -> str:
    kind = item.get("type") or ("message" if "role" in item else None)
    if not isinstance(kind, str) or kind not in _READERS:
        advice = "Send the item itself." if kind == "item_reference" else ""
        refuse(
            f"type {shown(kind)} is not known here", f"Use {', '.join(_READERS)}. {advice}".rstrip(), f"{param}.type"
        )
    return kind


def _message(builder: _Builder, item: Mapping[str, Any], param: str) -> None:
    check_names(item, ("type", "role", "content"), _IGNORED, param)
    role = item.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        refuse(f"role {shown(role)} is not known", f"Use one of: {', '.join(_ROLES)}.", f"{param}.role")
    content = parse_content(item.get("content"), f"{param}.content")
    if role != "assistant":
        builder.add(Message(role=_ROLES[role], content=content))
        return
    if builder.calls:
        builder.flush()
    builder.content += content


def _reasoning(builder: _Builder, item: Mapping[str, Any], param: str) -> None:
    check_names(item, ("type", "summary", "content", "encrypted_content"), _IGNORED, param)
    if builder.content or builder.calls:
        builder.flush()
    parts = item.get("content") or []
    if not isinstance(parts, list):
        refuse(f"content is {shown(parts)}", "It must be a list of reasoning_text parts.", f"{param}.content")
    for number, part in enumerate(parts):
        where = f"{param}.content[{number}]"
        builder.reasoning.append(text_field(object_field(part, where).get("text"), f"{where}.text"))


def _function_call(builder: _Builder, item: Mapping[str, Any], param: str) -> None:
    check_names(item, _CALL_FIELDS, _IGNORED, param)
    builder.calls.append(_call(item, text_field(item.get("call_id"), f"{param}.call_id"), param))


def _function_call_output(builder: _Builder, item: Mapping[str, Any], param: str) -> None:
    check_names(item, ("type", "call_id", "output", "name"), _IGNORED, param)
    call_id = text_field(item.get("call_id"), f"{param}.call_id")
    builder.add(
        Message(role="tool", content=parse_content(item.get("output"), f"{param}.output"), tool_call_id=call_id)
    )


def _mcp_call(builder: _Builder, item: Mapping[str, Any], param: str) -> None:
    check_names(item, (*_MCP_FIELDS, "turn", "origin"), _IGNORED, param)
    turn = item.get("turn")
    if builder.calls and turn != builder.turn:
        builder.flush()
    builder.turn = turn
    call = _call(item, text_field(item.get("id"), f"{param}.id"), param)
    content = item.get("content")
    if content is None:
        content = item.get("output") or str(item.get("error") or "")
    builder.calls.append(call)
    parts = parse_content(content, f"{param}.content") or (TextPart(""),)
    builder.results.append(Message(role="tool", content=parts, tool_call_id=call.id))


def _mcp_list_tools(builder: _Builder, item: Mapping[str, Any], param: str) -> None:
    """What some clients send back; the tools of a request are those of its own `tools`."""


def _call(item: Mapping[str, Any], call_id: str, param: str) -> ToolCall:
    name = text_field(item.get("name"), f"{param}.name")
    if not name:
        refuse("the name is empty", "Give the name of the function that was called.", f"{param}.name")
    arguments = text_field(item.get("arguments"), f"{param}.arguments") or "{}"
    if not is_json_object(arguments):
        refuse(
            f"arguments {shown(arguments)} are not a JSON object",
            "Send what the model wrote, such as '{}'.",
            f"{param}.arguments",
        )
    return ToolCall(call_id, name, arguments)


_READERS = {
    "message": _message,
    "reasoning": _reasoning,
    "function_call": _function_call,
    "function_call_output": _function_call_output,
    "mcp_call": _mcp_call,
    "mcp_list_tools": _mcp_list_tools,
}
