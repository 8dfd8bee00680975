"""Calls that must come: which texts the grammar lets a model write."""

from __future__ import annotations

from typing import Any

import pytest

from tests.backends.byte_tokenizer import ByteTokenizer
from tests.backends.test_structured_outputs import COMPILER, EOS, TOKENIZER, VOCAB_SIZE, allowed
from tusi.backends.protocol import ChatRequest, NamedToolChoice
from tusi.backends.structured_outputs import GrammarCompiler
from tusi.core.errors import RequestError
from tusi.engine.sampling_params import StructuredOutputsParams

NUMBER = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False}
TOOLS = [
    {"type": "function", "function": {"name": "zoom", "parameters": NUMBER}},
    {"type": "function", "function": {"name": '猫"x'}},
]
ZOOM = '<tool_call>\n{"name": "zoom", "arguments": {"a": 1}}\n</tool_call>'
CAT = '<tool_call>\n{"name": "猫\\"x", "arguments": {"q": [1]}}\n</tool_call>'


def accepts(text: str, *, compiler: GrammarCompiler = COMPILER, special: bool = True, **options: Any) -> bool:
    asked = {"choice": "required", "parallel": True, "answer": None, **options}
    [grammar] = compiler.compile_tools(TOOLS, **asked)
    for token_id in (*TOKENIZER.encode(text, allow_special=special), EOS):
        if token_id not in allowed(grammar):
            return False
        assert grammar.accept(token_id)
    return True


@pytest.mark.parametrize(
    ("text", "options", "fits"),
    [
        (ZOOM, {}, True),
        (CAT, {}, True),
        (f"{ZOOM}\n", {}, True),
        (f"{ZOOM}\n{CAT}", {}, True),
        (f"{ZOOM}\n{CAT}\n", {}, True),
        (f"{ZOOM}\n\n", {}, False),
        ("\n".join([ZOOM] * 16), {}, True),
        ("\n".join([ZOOM] * 17), {}, False),
        (f"{ZOOM}\n{CAT}", {"parallel": False}, False),
        (ZOOM, {"parallel": False}, True),
        (ZOOM, {"choice": NamedToolChoice("zoom")}, True),
        (CAT, {"choice": NamedToolChoice("zoom")}, False),
        (ZOOM.replace("1", '"x"'), {}, False),
        (ZOOM.replace("zoom", "zoo"), {}, False),
        ("hi", {}, False),
        ("", {}, False),
        ("hi", {"answer": StructuredOutputsParams(choice=("hi", "ho"))}, True),
        ("hu", {"answer": StructuredOutputsParams(choice=("hi", "ho"))}, False),
        (ZOOM, {"answer": StructuredOutputsParams(choice=("hi",))}, True),
        ('{"z": 1}', {"answer": StructuredOutputsParams(json="{}")}, True),
        ("3", {"answer": StructuredOutputsParams(json="{}")}, False),
        ("Two\ncats <b>.", {"choice": "auto"}, True),
        ("", {"choice": "auto"}, True),
        (ZOOM, {"choice": "auto"}, True),
        (f"I look: \n{ZOOM}\n{CAT}\n", {"choice": "auto"}, True),
        (f"I look: \n{ZOOM} and say {{}}", {"choice": "auto"}, True),
        (f"I look: \n{ZOOM.replace('1', 'null')}", {"choice": "auto"}, False),
        ("<tool_call>\n{broken", {"choice": "auto"}, False),
    ],
)
def test_what_may_be_written(text: str, options: dict[str, Any], fits: bool) -> None:
    assert accepts(text, **options) is fits


def test_marks_that_are_no_tokens_are_spelt() -> None:
    class Plain(ByteTokenizer):
        def token_to_id(self, token: str) -> int | None:
            return None if "tool_call" in token else super().token_to_id(token)

    compiler = GrammarCompiler(Plain(), vocab_size=VOCAB_SIZE, eos_token_ids=(EOS,))
    assert accepts(ZOOM, compiler=compiler, special=False)
    with pytest.raises(RequestError, match="Leave strict out"):
        accepts(ZOOM, compiler=compiler, special=False, choice="auto")


def test_a_strict_call_cannot_be_spelt_past_its_mark() -> None:
    assert not accepts("Look: <tool_call>\n{", choice="auto", special=False)
    assert accepts("Look: <tool_cell>\n{", choice="auto", special=False)


@pytest.mark.parametrize(
    ("parameters", "answer", "advice"),
    [
        ({"type": "array"}, None, "Set it to 'object'"),
        ({"type": "object", "not": {}}, None, "set tool_choice to 'auto'"),
        ({}, StructuredOutputsParams(regex="a"), "Use a JSON schema or a choice"),
        ({}, StructuredOutputsParams(json="{"), "is not JSON"),
    ],
)
def test_what_cannot_be_enforced_is_refused(parameters: Any, answer: Any, advice: str) -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": parameters}}]
    with pytest.raises(RequestError, match=advice):
        COMPILER.compile_tools(tools, choice="required", parallel=True, answer=answer)


@pytest.mark.parametrize(
    ("choice", "advice"), [("required", "Give tools"), (NamedToolChoice("zoom"), "Choose one of them")]
)
def test_a_choice_needs_its_tool(choice: Any, advice: str) -> None:
    with pytest.raises(RequestError, match=advice) as caught:
        ChatRequest(messages=(), tool_choice=choice)
    assert caught.value.param == "tool_choice"
