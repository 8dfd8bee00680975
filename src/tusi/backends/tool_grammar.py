"""What an answer may be when its tool calls are not left to chance: a grammar for `<tool_call>` blocks.

In: the tools, which of them must be called, and what else the answer may be. Out: the text of a grammar in llguidance's
Lark dialect. Knows no vocabulary but what it is told about the two marks.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tusi.backends.protocol import NamedToolChoice, ToolChoice
from tusi.chat.tags import TOOL_CALL_CLOSE, TOOL_CALL_OPEN
from tusi.core.errors import RequestError
from tusi.engine.sampling_params import StructuredOutputsParams

# A model that is not sure when to stop must not fill its whole answer with calls.
MAX_CALLS = 16

# Any text in which no call is spelt letter by letter, past the mark that is one token.
_TEXT = f"TEXT: /(?s:.+)/ & ~/(?s:.*){TOOL_CALL_OPEN}(?s:.*)/"

TokenOf = Callable[[str], int | None]


def tool_grammar(
    tools: Sequence[Mapping[str, Any]],
    *,
    choice: ToolChoice,
    parallel: bool,
    answer: StructuredOutputsParams | None,
    token_of: TokenOf,
    whitespace: str,
) -> str:
    """An answer of one call or more (one alone unless parallel); of what `answer` says instead, if it is given.

    Where neither a call nor a form of the answer is asked for (choice auto, no answer: a tool is strict), text may
    stand around the calls, or alone. Every call names an offered tool (the chosen one, if one was chosen), and its
    arguments follow the tool's schema.

    token_of: the id of a mark that is one token of the vocabulary, else None. whitespace: what JSON allows as blanks.
    Raises RequestError for a choice without its tool, and for what cannot stand beside tools.
    """
    functions = [tool["function"] for tool in tools]
    if isinstance(choice, NamedToolChoice):
        functions = [function for function in functions if function["name"] == choice.name]
    rules = [
        f"call: {_mark(TOOL_CALL_OPEN, token_of)} body {_mark(TOOL_CALL_CLOSE, token_of)}",
        "body: " + " | ".join(f"body_{number}" for number in range(len(functions))),
    ]
    for number, function in enumerate(functions):
        name = json.dumps(function["name"], ensure_ascii=False)
        lead, tail = _literal(f'\n{{"name": {name}, "arguments": '), _literal("}\n")
        rules.append(f"body_{number}: {lead} args_{number} {tail}")
        rules.append(f"args_{number}: %json {_schema_text(_arguments_schema(function), whitespace)}")
    if choice == "auto" and answer is None:
        if token_of(TOOL_CALL_OPEN) is None:
            raise RequestError(
                "a tool is strict, and this model's vocabulary has no mark for calls by which to tell them from text. "
                "Leave strict out, or set tool_choice to 'required'.",
                param="tools",
            )
        return "\n".join([f"start: TEXT? (call TEXT?){{0,{MAX_CALLS}}}", _TEXT, *rules]) + "\n"
    more = f' ("\\n" call){{0,{MAX_CALLS - 1}}}' if parallel else ""
    # The template ends every call with a line break, and so does the model: it must not promise another call.
    starts = [f'call{more} "\\n"?']
    if answer is not None:
        starts.append("answer")
        rules.append(f"answer: {_answer(answer, whitespace)}")
    return "\n".join(["start: " + " | ".join(starts), *rules]) + "\n"


def is_strict(tools: Sequence[Mapping[str, Any]]) -> bool:
    """Whether calls of a tool must follow its schema to the letter. Then the calls of all do."""
    return any(tool.get("function", {}).get("strict") is True for tool in tools)


def _mark(tag: str, token_of: TokenOf) -> str:
    token_id = token_of(tag)
    return _literal(tag) if token_id is None else f"<[{token_id}]>"


def _literal(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _arguments_schema(function: Mapping[str, Any]) -> Mapping[str, Any]:
    schema = dict(function.get("parameters") or {})
    if schema.setdefault("type", "object") != "object":
        raise RequestError(
            f"the parameters of tool {function['name']!r} have type {schema['type']!r}; arguments are always an "
            "object. Set it to 'object'.",
            param="tools",
        )
    return schema


def _schema_text(schema: Mapping[str, Any], whitespace: str) -> str:
    return json.dumps({**schema, "x-guidance": {"whitespace_pattern": whitespace}}, ensure_ascii=False)


def _answer(answer: StructuredOutputsParams, whitespace: str) -> str:
    if answer.json is not None:
        schema = json.loads(answer.json)
        return f"%json {_schema_text(schema or {'type': 'object'}, whitespace)}"
    if answer.choice is not None:
        return " | ".join(map(_literal, answer.choice))
    raise RequestError(
        "a regular expression cannot bind the answer while tools are offered. Use a JSON schema or a choice, or set "
        "tool_choice to 'none'.",
        param="structured_outputs.regex",
    )
