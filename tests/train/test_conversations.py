"""Files of conversations: what is read, and that everything else is named by its line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tusi.agent.trace import write_traces
from tusi.agent.types import Trace
from tusi.chat.messages import ImagePart, Message, TextPart
from tusi.core.errors import ConfigError
from tusi.train.conversations import read_conversations

SAY = {"role": "user", "content": "Hi"}
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}


def write(path: Path, *lines: object) -> Path:
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + "\n")
    return path


def test_openai_shaped_lines_and_traces(tmp_path: Path) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    path = write(
        tmp_path / "a.jsonl",
        {"messages": [SAY, {"role": "assistant", "content": "Ho", "reasoning": "Hm"}], "tools": [tool]},
        "",
        {"messages": [{"role": "user", "content": [PICTURE, {"type": "text", "text": "What?"}]}]},
    )
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    seen = Message(role="user", content=(ImagePart(pixels), TextPart("Where?")))
    with path.open("a") as file:
        write_traces([Trace(model="m", messages=(seen,), num_prompt_messages=1, turns=(), tools=(tool,))], file)
    first, second, third = read_conversations(path, 10)
    assert [message.role for message in first.messages] == ["user", "assistant"]
    assert first.messages[1].reasoning == "Hm"
    assert first.tools[0]["function"]["name"] == "f"
    assert isinstance(second.messages[0].content[0], ImagePart)
    picture = third.messages[0].content[0]
    assert isinstance(picture, ImagePart)
    assert np.array_equal(np.asarray(picture.source), pixels)
    assert third.tools == (tool,)
    assert len(read_conversations(path, 2)) == 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2 is not JSON .*Correct it or remove it"),
        ([SAY], r'line 2 is no conversation\. Write \{"messages"'),
        ({"prompt": "Hi"}, "line 2 is no conversation"),
        ({"messages": [SAY], "answer": "Ho"}, "line 2 has the field 'answer'"),
        ({"messages": [{"role": "bot", "content": "Hi"}]}, r"line 2: messages\[0\]\.role: "),
        ({"messages": []}, "line 2: messages: there are no messages"),
        ({"messages": [SAY], "tools": 3}, "line 2: tools"),
        ({"version": 99, "turns": [], "messages": []}, "line 2 is not a trace of this version"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: object, message: str) -> None:
    path = write(tmp_path / "a.jsonl", {"messages": [SAY]}, line)
    with pytest.raises(ConfigError, match=message):
        read_conversations(path, 10)
    assert len(read_conversations(path, 1)) == 1  # what is not used is not looked at


def test_files_that_hold_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot be read .*Give a file of JSON lines"):
        read_conversations(tmp_path / "none.jsonl", 1)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_conversations(tmp_path, 1)
    with pytest.raises(ConfigError, match="holds no conversation"):
        read_conversations(write(tmp_path / "b.jsonl", "", ""), 1)
    (tmp_path / "c.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="is not UTF-8"):
        read_conversations(tmp_path / "c.jsonl", 1)
