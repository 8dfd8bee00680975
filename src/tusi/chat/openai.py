"""OpenAI-shaped dictionaries to messages and tools, and back. Never changes what it is given; raises only RequestError.

Roles: `developer` is read as `system`. The roles and fields of OpenAI's retired function calling (`function`,
`function_call`) are refused with the way to say it now. Fields that change nothing about the answer are listed in
IGNORED_FIELDS here and in `chat.openai_content`; every other unknown field is an error.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tusi.chat.messages import ImagePart, Message, Part, Role, TextPart, ToolCall, VideoPart
from tusi.chat.openai_content import parse_content
from tusi.chat.openai_fields import check_names, object_field, refuse, shown, text_field
from tusi.chat.tool_calls import is_json_object

# name: of a participant or a tool, which this model's prompts do not show. The others come with answers sent back.
IGNORED_FIELDS = frozenset({"annotations", "cache_control", "id", "metadata", "name", "status"})

_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}
_ASSISTANT_FIELDS = ("reasoning", "reasoning_content", "refusal", "tool_calls")
_FIELDS = ("role", "content", "tool_call_id", *_ASSISTANT_FIELDS)
_CALL_FIELDS = ("id", "type", "function", "index")
_ROLE_ADVICE = {
    "function": "Send role 'tool' with tool_call_id, in answer to an assistant message with tool_calls.",
    "observation": "Send role 'tool'.",
    "human": "Send role 'user'.",
    "gpt": "Send role 'assistant'.",
}


def parse_messages(messages: object, *, param: str = "messages") -> tuple[Message, ...]:
    """Read a conversation. Raises RequestError whose param is the path of the field at fault."""
    if not isinstance(messages, list | tuple):
        refuse(f"this is {shown(messages)}", "It must be a list of messages.", param)
    if not messages:
        refuse("there are no messages", "Send at least one, such as {'role': 'user', 'content': '...'}.", param)
    return tuple(_message(message, f"{param}[{i}]") for i, message in enumerate(messages))


def _message(value: object, param: str) -> Message:
    fields = object_field(value, param)
    role = _role(fields, param)
    _check_fields(fields, role, param)
    content = fields.get("content")
    if content is None and role in ("system", "user"):
        refuse(f"a {role} message has no content", "Give content: a string or a list of parts.", f"{param}.content")
    parts = () if content is None else parse_content(content, f"{param}.content")
    if not parts and fields.get("refusal"):
        parts = (TextPart(text_field(fields["refusal"], f"{param}.refusal")),)
    call_id = fields.get("tool_call_id")
    return Message(
        role=role,
        content=parts,
        reasoning=_reasoning(fields, param),
        tool_calls=_tool_calls(fields.get("tool_calls"), f"{param}.tool_calls"),
        tool_call_id=None if call_id is None else text_field(call_id, f"{param}.tool_call_id") or None,
    )


def _role(fields: Mapping[str, Any], param: str) -> Role:
    role = fields.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        advice = _ROLE_ADVICE.get(role, "") if isinstance(role, str) else ""
        what = "the message has no role" if role is None else f"role {shown(role)} is not known"
        refuse(what, f"Use one of: {', '.join(_ROLES)}. {advice}".rstrip(), f"{param}.role")
    return _ROLES[role]


def _check_fields(fields: Mapping[str, Any], role: Role, param: str) -> None:
    if fields.get("function_call") is not None:
        refuse("function_call is retired", "Send tool_calls instead.", f"{param}.function_call")
    check_names(fields, _FIELDS, IGNORED_FIELDS, param)
    owners = dict.fromkeys(_ASSISTANT_FIELDS, "assistant") | {"tool_call_id": "tool"}
    for name, owner in owners.items():
        value = fields.get(name)
        says_nothing = value is None or (isinstance(value, str | list | tuple) and not value)
        if role != owner and not says_nothing:
            refuse(f"a {role} message has {name}", f"Only {owner} messages may.", f"{param}.{name}")


def _reasoning(fields: Mapping[str, Any], param: str) -> str | None:
    """`reasoning` or `reasoning_content`; both may be sent if they are equal, as our own answers do."""
    given = {
        name: text_field(fields[name], f"{param}.{name}")
        for name in ("reasoning", "reasoning_content")
        if fields.get(name) is not None
    }
    if len(set(given.values())) > 1:
        refuse("reasoning and reasoning_content differ", "Send one of them.", f"{param}.reasoning_content")
    return next(iter(given.values()), None) or None


def _tool_calls(value: object, param: str) -> tuple[ToolCall, ...]:
    if value is None:
        return ()
    if not isinstance(value, list | tuple):
        refuse(f"this is {shown(value)}", "It must be a list of calls.", param)
    return tuple(_tool_call(call, i, f"{param}[{i}]") for i, call in enumerate(value))


def _tool_call(value: object, index: int, param: str) -> ToolCall:
    call = object_field(value, param)
    function, where = call, param
    if call.get("function") is not None:
        check_names(call, _CALL_FIELDS, (), param)
        function, where = object_field(call["function"], f"{param}.function"), f"{param}.function"
        check_names(function, ("name", "arguments"), (), where)
    else:
        check_names(call, (*_CALL_FIELDS, "name", "arguments"), (), param)
    if call.get("type", "function") != "function":
        refuse(f"type {shown(call['type'])} is not supported", "Only function calls are.", f"{param}.type")
    name = text_field(function.get("name"), f"{where}.name")
    if not name:
        refuse("the name is empty", "Give the name of the function that was called.", f"{where}.name")
    call_id = call.get("id")
    return ToolCall(
        id=f"call_{index}" if call_id is None else text_field(call_id, f"{param}.id"),
        name=name,
        arguments=_arguments(function.get("arguments"), f"{where}.arguments"),
    )


def _arguments(value: object, param: str) -> str:
    if value is None or value == "":
        return "{}"
    if isinstance(value, Mapping):
        return json_text(value, param)
    text = text_field(value, param)
    if not is_json_object(text):
        refuse(f"arguments {shown(text)} are not a JSON object", "Send what the model wrote, such as '{}'.", param)
    return text


def json_text(value: object, param: str) -> str:
    """JSON text of a value. Raises RequestError for what JSON cannot say."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        refuse(f"this cannot be written as JSON ({error})", "Use objects, lists, text, numbers and booleans.", param)
    return text_field(text, param)


def parse_tools(tools: object, *, param: str = "tools") -> tuple[dict[str, Any], ...]:
    """Read tool definitions into {"type": "function", "function": {...}}, copied.

    Bare functions and the Responses API's flat form are wrapped. Fields inside the function are shown to the model as
    they are, but for `strict`: that is for whoever makes its calls follow the schema.
    """
    if tools is None:
        return ()
    if not isinstance(tools, list | tuple):
        refuse(f"this is {shown(tools)}", "It must be a list of tools.", param)
    parsed = tuple(_tool(tool, f"{param}[{i}]") for i, tool in enumerate(tools))
    names = [tool["function"]["name"] for tool in parsed]
    for i, name in enumerate(names):
        if name in names[:i]:
            refuse(f"two tools are called {shown(name)}", "Give each tool a name of its own.", f"{param}[{i}]")
    return parsed


def _tool(value: object, param: str) -> dict[str, Any]:
    tool = json.loads(json_text(object_field(value, param), param))
    kind = tool.get("type", "function")
    if kind != "function":
        refuse(f"type {shown(kind)} is not supported", "Only functions are; run other tools yourself.", f"{param}.type")
    if tool.get("function") is None:
        tool = {"type": "function", "function": {k: v for k, v in tool.items() if k not in ("type", "function")}}
    check_names(tool, ("type", "function"), (), param)
    function = object_field(tool["function"], f"{param}.function")
    name = text_field(function.get("name"), f"{param}.function.name")
    if not name or len(name) > 128 or not name.isprintable():
        refuse(f"the name is {shown(name)}", "Give a name of 1 to 128 visible characters.", f"{param}.function.name")
    if not isinstance(function.get("strict"), bool | None):
        refuse(f"strict is {shown(function['strict'])}", "It must be true or false.", f"{param}.function.strict")
    if function.get("parameters") is not None:
        object_field(function["parameters"], f"{param}.function.parameters")
    return {"type": "function", "function": dict(function)}


def to_openai(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Messages as OpenAI-shaped dictionaries: what parse_messages reads back as the same messages."""
    return [_to_dict(message) for message in messages]


def _to_dict(message: Message) -> dict[str, Any]:
    result: dict[str, Any] = {"role": message.role, "content": _content_to_json(message.content)}
    if message.reasoning is not None:
        result |= {"reasoning": message.reasoning, "reasoning_content": message.reasoning}
    if message.tool_calls:
        result["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        result["tool_call_id"] = message.tool_call_id
    return result


def _content_to_json(parts: Sequence[Part]) -> str | list[dict[str, Any]]:
    if not parts:
        return ""
    if len(parts) == 1 and isinstance(parts[0], TextPart) and parts[0].text:
        return parts[0].text
    return [_part_to_dict(part) for part in parts]


def _part_to_dict(part: Part) -> dict[str, Any]:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text}
    kind = "image" if isinstance(part, ImagePart) else "video"
    options = {name: list(value) if isinstance(value, tuple) else value for name, value in part.options.items()}
    if isinstance(part.source, str):
        return {"type": f"{kind}_url", f"{kind}_url": {"url": part.source}, **options}
    frames = isinstance(part, VideoPart) and isinstance(part.source, tuple | list)
    source = list(part.source) if frames else part.source  # type: ignore[call-overload]
    return {"type": kind, kind: source, **options}
