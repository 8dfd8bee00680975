"""Rendering: equal to transformers on the same template, exact for the built-in ones, and safe with hostile text."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tusi.chat.messages import ImagePart, Message, TextPart, ToolCall, VideoPart
from tusi.chat.openai import parse_messages, parse_tools
from tusi.chat.prompt import MediaSegment, TextSegment
from tusi.chat.template import ChatTemplate
from tusi.core.errors import CheckpointError, RequestError

THINKING = ChatTemplate.built_in("thinking")
DEFAULT_SYSTEM = (
    "You are a multimodal AI assistant called ERNIE developed by Baidu based on the PaddlePaddle framework.\n"
)
IMAGE = "<|IMAGE_START|><|image@placeholder|><|IMAGE_END|>"
VIDEO = "<|VIDEO_START|><|video@placeholder|><|VIDEO_END|>"
TOOLS = parse_tools([{"name": "zoom", "description": "放大", "parameters": {"type": "object", "properties": {}}}])
TOOL_LIST = '[{"type": "function", "function": {"name": "zoom", "description": "放大", "parameters": {"type": "object", "properties": {}}}}]'  # noqa: E501


def user(*parts: Any) -> Message:
    return Message(role="user", content=tuple(TextPart(p) if isinstance(p, str) else p for p in parts))


def agent_turns() -> tuple[Message, ...]:
    call = ToolCall("call_0", "zoom", '{"bbox_2d": [1,2,3,4]}')
    return (
        Message(role="system", content=(TextPart("Be brief."),)),
        user(ImagePart("a.png"), "What?"),
        Message(role="assistant", reasoning="\nLook closer.\n", tool_calls=(call, call)),
        Message(role="tool", content=(ImagePart("b.png"), TextPart("the crop")), tool_call_id="call_0"),
        Message(role="tool", content=(TextPart("nothing"),), tool_call_id="call_1"),
        Message(role="assistant", content=(TextPart("A cat."),), reasoning="I see."),
        user("And this?", VideoPart("c.mp4"), ImagePart("d.png")),
    )


def test_a_plain_question() -> None:
    prompt = THINKING.render([user("What is this?")])
    assert prompt.text == f"<|begin_of_sentence|>{DEFAULT_SYSTEM}User: What is this?\nAssistant: \n<think>\n"
    assert prompt.starts_in_reasoning
    assert prompt.segments == (TextSegment(prompt.text),)


def test_a_whole_agent_conversation() -> None:
    prompt = THINKING.render(agent_turns(), TOOLS)
    call = '<tool_call>\n{"name": "zoom", "arguments": {"bbox_2d": [1,2,3,4]}}\n</tool_call>\n'
    assert prompt.text == (
        f"<|begin_of_sentence|>\n<tool_list>\n{TOOL_LIST}\n</tool_list>\nBe brief.\n"
        f"User: Picture 1:{IMAGE}What?\n"
        f"Assistant: \n<think>\nLook closer.\n</think>\n\n{call}{call}<|end_of_sentence|>"
        f"User: <tool_output>\nPicture 2:{IMAGE}the crop\n</tool_output>\n<tool_output>\nnothing\n</tool_output>\n\n"
        f"Assistant: \n<think>\nI see.\n</think>\n\nA cat.<|end_of_sentence|>"
        f"User: And this?Video 1:{VIDEO}Picture 3:{IMAGE}\n"
        f"Assistant: \n<think>\n"
    )
    assert [part.source for part in prompt.media] == ["a.png", "b.png", "c.mp4", "d.png"]
    assert [type(segment) for segment in prompt.segments] == [TextSegment, MediaSegment] * 4 + [TextSegment]


def test_what_the_model_wrote_comes_back_the_same() -> None:
    answer = Message(role="assistant", content=(TextPart("I think so.\n</think>\n\nYes."),))
    prompt = THINKING.render([user("?"), answer], add_generation_prompt=False)
    assert prompt.text.endswith("Assistant: \n<think>\nI think so.\n</think>\n\nYes.<|end_of_sentence|>")
    assert not prompt.starts_in_reasoning


@pytest.mark.parametrize(
    "kwargs", [{"enable_thinking": False}, {"thinking_mode": "close"}, {"options": {"thinking_mode": "close"}}]
)
def test_thinking_can_be_closed_under_each_of_its_names(kwargs: dict[str, Any]) -> None:
    prompt = THINKING.render([user("?")], template_kwargs=kwargs)
    assert prompt.text.endswith("Assistant: \n<think>\n\n</think>\n\n")
    assert not prompt.starts_in_reasoning
    opened = json.loads(json.dumps(kwargs).replace("close", "open").replace("false", "true"))
    nothing = dict.fromkeys(kwargs)
    for same in (opened, nothing, {}):
        assert THINKING.render([user("?")], template_kwargs=same).starts_in_reasoning


def test_the_switch_is_translated_to_the_name_that_a_template_reads() -> None:
    template = ChatTemplate(
        {"default": "{{ messages[0].content }}{% if options is defined %}{{ options.thinking_mode }}{% endif %}"}
    )
    assert template.render([user("?")], template_kwargs={"enable_thinking": False}).text == "?close"


def test_the_hybrid_template() -> None:
    template = ChatTemplate.built_in("hybrid")
    history = [
        user("Hi"),
        Message(role="assistant", content=(TextPart("Hello."),), reasoning=" hm "),
        user(ImagePart(1)),
    ]
    prompt = template.render(history)
    first = "<|begin_of_sentence|>User: Hi\nAssistant: <think>\nhm\n</think>\nHello.<|end_of_sentence|>"
    head = f"{first}User: Picture 1:{IMAGE}\n"
    assert prompt.text == head + "Assistant: <think>\n\n</think>\n\n"
    assert not prompt.starts_in_reasoning
    thinking = template.render(history, template_kwargs={"enable_thinking": True})
    assert thinking.text == head + "Assistant: <think>"
    assert thinking.starts_in_reasoning
    with pytest.raises(RequestError, match="does not use tools"):
        template.render(history, TOOLS)


# Equal to transformers.

QWEN_LIKE = """{%- for message in messages %}
    {%- if loop.index0 > 5 %}{% break %}{% endif %}
<|im_start|>{{ message.role }}
    {%- if message.content is string %}{{ '\\n' + message.content }}
    {%- else %}
        {%- for item in message['content'] %}
            {%- if item.type == 'image' %}<|IMAGE_PLACEHOLDER|>
            {%- elif item.type == 'video' %}<|VIDEO_PLACEHOLDER|>
            {%- else %}{{ item.text | trim }}{% endif %}
        {%- endfor %}
    {%- endif %}
    {%- for call in message.tool_calls or [] %}{{ call.function.arguments | tojson(indent=1) }}{% endfor %}
    {%- generation %}{{ message.reasoning_content }}{% endgeneration %}
<|im_end|>
{% endfor %}
{{- tools | tojson if tools else eos_token }}{{ bos_token }}{% if add_generation_prompt %}<think>
{% endif %}"""


def as_transformers(source: str, messages: list[dict[str, Any]], **kwargs: Any) -> str:
    from transformers.utils.chat_template_utils import render_jinja_template

    rendered, _ = render_jinja_template([messages], chat_template=source, **kwargs)
    return str(rendered[0])


ZOOM = {"id": "1", "type": "function", "function": {"name": "zoom", "arguments": {"é": [1, 2.5]}}}
OPENAI: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief. 简短"},
    {"role": "user", "content": [{"type": "image", "image": "a"}, {"type": "text", "text": " 'What' <b>? "}]},
    {"role": "assistant", "content": "", "tool_calls": [ZOOM]},
    {"role": "tool", "content": [{"type": "text", "text": "ok"}, {"type": "image", "image": "b"}], "tool_call_id": "1"},
    {"role": "assistant", "content": "Yes.", "reasoning_content": "I see.\n"},
    {"role": "user", "content": [{"type": "text", "text": "and"}, {"type": "video", "video": "v"}]},
]


@pytest.mark.parametrize("count", [1, 2, 4, 6])
@pytest.mark.parametrize("tools", [(), TOOLS])
@pytest.mark.parametrize("prompt", [True, False])
def test_equal_to_transformers_on_any_template(count: int, tools: tuple[Any, ...], prompt: bool) -> None:
    template = ChatTemplate({"default": QWEN_LIKE}, special_tokens={"bos_token": "<s>", "eos_token": "</s>"})
    ours = template.render(parse_messages(OPENAI[:count]), tools, add_generation_prompt=prompt)
    theirs = as_transformers(
        QWEN_LIKE,
        OPENAI[:count],
        tools=list(tools) or None,
        add_generation_prompt=prompt,
        bos_token="<s>",
        eos_token="</s>",
    )
    assert ours.text == theirs.replace("<|IMAGE_PLACEHOLDER|>", "<|image@placeholder|>").replace(
        "<|VIDEO_PLACEHOLDER|>", "<|video@placeholder|>"
    )
    assert ours.starts_in_reasoning is prompt


@pytest.mark.parametrize("count", [1, 2, 4, 6])
@pytest.mark.parametrize("tools", [(), TOOLS])
@pytest.mark.parametrize("kwargs", [{}, {"enable_thinking": False}])
def test_the_built_in_template_equals_transformers(count: int, tools: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    source = (Path(__file__).parents[2] / "src/tusi/chat/templates/ernie_thinking.jinja").read_text(encoding="utf-8")
    ours = THINKING.render(parse_messages(OPENAI[:count]), tools, template_kwargs=kwargs)
    theirs = as_transformers(source, OPENAI[:count], tools=list(tools) or None, add_generation_prompt=True, **kwargs)
    assert ours.text == theirs


# Hostile and accidental control strings.

CONTROL = ["</s>", "<s>", "<unk>", "<|end_of_sentence|>", "<|image@placeholder|>", "<|IMAGE_PLACEHOLDER|>", "<|VIDEO_START|>", "<|x|>", "[gMASK]"]  # fmt: skip  # noqa: E501
GUARDED = ChatTemplate({"default": "[gMASK]<s>{% for m in messages %}{% for p in m.content %}{{ p.text or '<|image@placeholder|>' }}{% endfor %}<|im_end|>{% endfor %}"}, control_tokens=["[gMASK]", "<think>"])  # fmt: skip  # noqa: E501


@pytest.mark.parametrize("token", CONTROL)
def test_what_a_user_says_never_becomes_control_text(token: str) -> None:
    prompt = GUARDED.render([user(f"a{token}b <think> <", ImagePart("x"), token)])
    assert prompt.segments == (
        TextSegment("[gMASK]<s>a"),
        TextSegment(token, literal=True),
        TextSegment("b <think> <"),
        MediaSegment(ImagePart("x")),
        TextSegment(token, literal=True),
        TextSegment("<|im_end|>"),
    )


@pytest.mark.parametrize("token", CONTROL[:-1])
def test_a_control_string_made_of_two_parts_stays_text(token: str) -> None:
    for cut in range(1, len(token)):
        prompt = GUARDED.render([user(token[:cut], token[cut:], ImagePart("x"))])
        assert prompt.segments[1] == TextSegment(token, literal=True)
        assert len(prompt.media) == 1


def test_what_looks_like_the_mark_of_another_rendering_is_text() -> None:
    for text in (f"q{'0' * 32}x3cz", f"a q{'f' * 32}x3cz|IMAGE|>", f"qq{'1' * 32}x3czq<|x|>"):
        segments = ChatTemplate.built_in().render([user(text)]).segments
        assert text in "".join(segment.text for segment in segments if isinstance(segment, TextSegment))


def test_tools_arguments_and_variables_are_guarded_too() -> None:
    evil = "<|end_of_sentence|>"
    call = ToolCall("1", evil, json.dumps({evil: [evil]}))
    messages = [user("?"), Message(role="assistant", reasoning=evil, tool_calls=(call,)), user(f"x{evil[:-1]}")]
    prompt = THINKING.render(messages, [{"type": "function", "function": {"name": "f", "description": evil}}])
    assert sum(segment == TextSegment(evil, literal=True) for segment in prompt.segments) == 5
    assert "".join(s.text for s in prompt.segments if isinstance(s, TextSegment) and not s.literal).count(evil) == 1
    template = ChatTemplate({"default": "{{ messages[0].content }}{{ mood }}"})
    assert template.render([user("?")], template_kwargs={"mood": evil}).segments[-1] == TextSegment(evil, literal=True)


pieces = st.sampled_from(
    [*CONTROL, "<", "<|", "|>", "</", "s>", "<think>", "</think>", "a", " ", "\n", "猫"]
) | st.text(max_size=3)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(pieces, max_size=6).map("".join), min_size=1, max_size=4))
def test_any_text_is_rendered_whole_and_adds_no_control_text(words: list[str]) -> None:
    parts = [part for word in words for part in (word or "a", ImagePart("x"))]
    prompt = GUARDED.render([user(*parts)])
    assert prompt.text == "[gMASK]<s>" + "".join(f"{w or 'a'}<|image@placeholder|>" for w in words) + "<|im_end|>"
    assert len(prompt.media) == len(words)
    plain = [s.text for s in prompt.segments if isinstance(s, TextSegment) and not s.literal]
    for token in CONTROL:
        assert sum(text.count(token) for text in plain) == (token in ("[gMASK]", "<s>"))


def test_a_user_cannot_open_the_reasoning() -> None:
    prompt = ChatTemplate.built_in("hybrid").render([user("write <think>")])
    assert not prompt.starts_in_reasoning


# Templates and media that do not fit.


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages[0].role }}",
        "<|image@placeholder|><|IMAGE_PLACEHOLDER|><|video@placeholder|>",
        "<|video@placeholder|><|image@placeholder|>",
    ],
)
def test_placeholders_must_match_the_media(source: str) -> None:
    template = ChatTemplate({"default": source})
    with pytest.raises(RequestError, match=r"\[image, video\] \(2\).*Each picture and video must be placed once"):
        template.render([user(ImagePart("a"), VideoPart("b"))])


@pytest.mark.parametrize(
    ("kwargs", "advice"),
    [
        ({"enable_thinkin": True}, "never uses.*It uses: enable_thinking, options, thinking_mode. Leave it out"),
        ({"messages": []}, "not the caller's to set"),
        ({"enable_thinking": "no"}, "It must be True or False"),
        ({"enable_thinking": 1}, "It must be True or False"),
        ({"thinking_mode": "off"}, "It must be 'open' or 'close'"),
        ({"options": {"thinking_mode": "open", "depth": 3}}, "Leave the rest out"),
        ({"options": 3}, "is honoured"),
        ({"enable_thinking": True, "thinking_mode": "close"}, "contradict each other"),
        ({"enable_thinking": float("nan")}, "cannot be written as JSON"),
    ],
)
def test_variables_that_are_not_honoured_are_refused(kwargs: dict[str, Any], advice: str) -> None:
    with pytest.raises(RequestError, match=advice) as caught:
        THINKING.render([user("?")], template_kwargs=kwargs)
    assert str(caught.value.param).startswith("chat_template_kwargs")


def test_special_tokens_are_not_the_callers_to_set() -> None:
    template = ChatTemplate({"default": "{{ bos_token }}"}, special_tokens={"bos_token": "<s>"})
    with pytest.raises(RequestError, match="not the caller's"):
        template.render([user("?")], template_kwargs={"bos_token": "x"})


def test_tools_for_a_template_that_never_shows_them_are_refused() -> None:
    with pytest.raises(RequestError, match="never shows tools"):
        GUARDED.render([user("?")], TOOLS)


def test_no_messages_are_refused() -> None:
    with pytest.raises(RequestError, match="at least one"):
        THINKING.render([])


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{ raise_exception('one system message') }}", "does not accept this conversation: one system message"),
        ("{{ messages[9].content }}", "UndefinedError"),
        ("{{ messages | sum }}", "TypeError"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ("{{ messages.append(1) }}", "SecurityError"),
        ("{{ ''.__class__.__mro__ }}", "SecurityError|Undefined|unsafe"),
        ("{{ namespace(__class__=1) }}", "SecurityError"),
        ("{% set ns = namespace() %}{% set ns.__init__ = 1 %}", "SecurityError"),
        ("{% for i in range(10 ** 9) %}x{% endfor %}", "OverflowError"),
        ("{{ 'x' * 10 ** 9 }}", "SecurityError"),
        ("{{ [0] * 10 ** 9 }}", "SecurityError"),
        ("{{ 9 ** 999 }}", "SecurityError"),
        ("{{ '%999999999d' % 1 }}", "SecurityError"),
        ("{% for i in range(99) %}{% for j in range(999) %}{{ 'x' * 999 }}{% endfor %}{% endfor %}", "writes more"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "RecursionError"),
    ],
)  # fmt: skip
def test_templates_that_fail_or_attack_raise_typed_errors(source: str, message: str) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        ChatTemplate({"default": source}).render([user("?")])
    assert caught.value.param == "messages"


def test_a_template_that_does_not_compile_names_the_line() -> None:
    with pytest.raises(CheckpointError, match=r"at line 2: .* Download it again"):
        ChatTemplate({"default": "a\n{% if %}"})


def test_the_clock_can_be_given() -> None:
    template = ChatTemplate({"default": "{{ strftime_now('%Y') }}"}, now=lambda: datetime(1999, 1, 1))
    assert template.render([user("?")]).text == "1999"


# Where templates lie.


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


def test_a_checkpoints_own_template_is_found_in_each_place(tmp_path: Path) -> None:
    config = json.dumps({"chat_template": "config {{ bos_token }}", "bos_token": {"content": "<s>"}})
    write(tmp_path, **{"tokenizer_config.json": config})
    assert ChatTemplate.from_pretrained(tmp_path).render([user("?")]).text == "config <s>"
    named = [{"name": "default", "template": "plain"}, {"name": "tool_use", "template": "{{ 'tools' if tools }}"}]
    write(tmp_path, **{"tokenizer_config.json": json.dumps({"chat_template": named})})
    assert ChatTemplate.from_pretrained(tmp_path).render([user("?")]).text == "plain"
    assert ChatTemplate.from_pretrained(tmp_path).render([user("?")], TOOLS).text == "tools"
    write(tmp_path, **{"chat_template.json": json.dumps({"chat_template": "json"})})
    assert ChatTemplate.from_pretrained(tmp_path).render([user("?")]).text == "json"
    write(
        tmp_path,
        **{"chat_template.jinja": "jinja", "additional_chat_templates__tool_use.jinja": "{{ tools | length }}"},
    )
    assert ChatTemplate.from_pretrained(tmp_path).render([user("?")]).text == "jinja"
    assert ChatTemplate.from_pretrained(tmp_path).render([user("?")], TOOLS).text == "1"


def test_the_checkpoints_special_tokens_are_guarded(tmp_path: Path) -> None:
    added = {"added_tokens": [{"content": "[SEP]", "special": True}, {"content": "word", "special": False}]}
    write(tmp_path, **{"tokenizer.json": json.dumps(added), "chat_template.jinja": "{{ messages[0].content }}"})
    prompt = ChatTemplate.from_pretrained(tmp_path).render([user("a[SEP]word")])
    assert prompt.segments == (TextSegment("a"), TextSegment("[SEP]", literal=True), TextSegment("word"))


@pytest.mark.parametrize(
    ("name", "variant", "ending"),
    [
        ("ERNIE-4.5-VL-28B-A3B-Thinking", None, "\n<think>\n"),
        ("tiny", None, "\n<think>\n"),
        ("ERNIE-4.5-VL-28B-A3B-PT", None, "<think>\n\n</think>\n\n"),
        ("tiny", "hybrid", "<think>\n\n</think>\n\n"),
    ],
)
def test_a_checkpoint_without_template_gets_the_built_in_one(
    tmp_path: Path, name: str, variant: Any, ending: str
) -> None:
    (tmp_path / name).mkdir()
    prompt = ChatTemplate.from_pretrained(tmp_path / name, variant=variant).render([user("?")])
    assert prompt.text.endswith("Assistant: " + ending)


@pytest.mark.parametrize(
    "value", [3, [], [{"name": "a"}], [{"name": "default", "template": 1}], [{"name": "other", "template": "x"}], {}]
)
def test_odd_template_fields_are_refused_with_advice(tmp_path: Path, value: object) -> None:
    write(tmp_path, **{"tokenizer_config.json": json.dumps({"chat_template": value})})
    with pytest.raises(CheckpointError, match=r"Download the file again|Rename one"):
        ChatTemplate.from_pretrained(tmp_path)


def test_a_template_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CheckpointError, match="should be UTF-8"):
        ChatTemplate.from_pretrained(tmp_path)
