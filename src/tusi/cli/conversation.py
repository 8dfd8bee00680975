"""The state of `tusi chat`: what was said, what is attached to the next question. Values and files; no terminal.

In: lines and slash commands. Out: messages for a request, sentences for the user.
"""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from PIL import Image

from tusi.agent.types import Trace
from tusi.chat.messages import ImagePart, Message, Part, TextPart, VideoPart
from tusi.chat.openai import to_openai
from tusi.cli.media import has_media_suffix, media_part
from tusi.core.errors import RequestError

Media = ImagePart | VideoPart

# A word as terminals write a dropped path: in quotes, or with backslashes before what is special.
_PUNCTUATION = ".,;:!?)，。；：！？）"
_WORD = re.compile(r"'([^']+)'|\"([^\"]+)\"|((?:\\.|[^\s\\])+)")


@dataclass
class Conversation:
    """Turns so far, the system prompt, and media waiting for the next question."""

    system: str | None = None
    turns: list[Message] = field(default_factory=list)
    attached: list[Media] = field(default_factory=list)

    def attach(self, source: str, kind: type[ImagePart] | type[VideoPart]) -> None:
        """Attach a picture or video to the next question. Raises UnsupportedMedia if there is no such file."""
        if not source:
            raise RequestError("which file? Write the path after the command: /image photo.jpg")
        part = media_part(source)
        # The command says what it is; the file's name need not.
        self.attached.append(kind(source if part is None else part.source))

    def ask(self, text: str) -> tuple[Message, ...]:
        """Add a question with what is attached; return the messages to be answered."""
        self.turns.append(Message(role="user", content=(*self.attached, TextPart(text))))
        self.attached.clear()
        return self.messages

    def add_answer(self, content: str, reasoning: str | None) -> None:
        """Add what was answered."""
        self.turns.append(Message(role="assistant", content=(TextPart(content),), reasoning=reasoning or None))

    def add_run(self, trace: Trace) -> None:
        """Add what was answered, with the tool calls and their results that led there."""
        self.turns += trace.messages[trace.num_prompt_messages :]

    def take_back(self) -> None:
        """Undo the last ask(): the question is gone, its media are attached again."""
        question = self.turns.pop()
        self.attached[:0] = [part for part in question.content if not isinstance(part, TextPart)]

    def reset(self) -> None:
        """Forget everything but the system prompt."""
        self.turns.clear()
        self.attached.clear()

    @property
    def messages(self) -> tuple[Message, ...]:
        """System prompt and turns."""
        first = () if self.system is None else (Message(role="system", content=(TextPart(self.system),)),)
        return (*first, *self.turns)

    def save(self, path: Path, model: str) -> None:
        """Write the conversation in OpenAI's shape. Raises RequestError if it cannot be written."""
        messages = [replace(message, content=tuple(map(_with_url, message.content))) for message in self.messages]
        value = {"model": model, "messages": to_openai(messages)}
        try:
            path.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise RequestError(f"{path} cannot be written ({error.strerror}). Choose another file.") from error


def split_line(line: str) -> tuple[list[Media], str, list[str]]:
    """Media that stand in a line as paths or URLs, the text without them, and words that look like missing files.

    A path at either end of the line was dropped there; one in the middle of a sentence stays in it as a bare name.
    """
    media: list[Media] = []
    missing: list[str] = []
    kept: list[str] = []
    end = 0
    for match in _WORD.finditer(line):
        word = match[1] or match[2] or re.sub(r"\\(.)", r"\1", match[3]).rstrip(_PUNCTUATION)
        is_url = word.lower().startswith(("http://", "https://"))
        if not is_url and not has_media_suffix(word):
            continue
        if not is_url and not Path(word).expanduser().is_file():
            missing.append(word)
            continue
        part = media_part(word)
        assert part is not None
        media.append(part)
        before, after = line[end : match.start()], line[match.end() :]
        kept.append(before)
        if "".join(kept).strip() and after.strip():
            kept.append(word.rstrip("/").rsplit("/", 1)[-1])
        end = match.start() + len(match[0].rstrip(_PUNCTUATION) if match[3] else match[0])
    kept.append(line[end:])
    text = "".join(kept).strip()
    return media, "" if not text.strip(_PUNCTUATION) else text, missing


def _with_url(part: Part) -> Part:
    """The same part with a source that another program understands: an absolute URL, or a data URL."""
    if isinstance(part, TextPart):
        return part
    if isinstance(part.source, np.ndarray):  # a crop
        buffer = io.BytesIO()
        Image.fromarray(part.source).save(buffer, "PNG")
        return replace(part, source=_data_url("image/png", buffer.getvalue()))
    if isinstance(part.source, bytes):
        return replace(part, source=_data_url("image/png" if isinstance(part, ImagePart) else "video/mp4", part.source))
    text = str(part.source)
    has_scheme = re.match(r"[a-z]+:", text) is not None
    return part if has_scheme else replace(part, source=Path(text).expanduser().resolve().as_uri())


def _data_url(mime: str, data: bytes) -> str:
    return f"data:{mime};base64,{base64.b64encode(data).decode()}"


def describe(media: Sequence[Media]) -> str:
    """What is attached, in words."""
    names = [str(part.source) if not isinstance(part.source, bytes) else "standard input" for part in media]
    return ", ".join(names) or "nothing"
