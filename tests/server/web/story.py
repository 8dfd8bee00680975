"""A backend that tells a story: thoughts, a look closer, an answer with boxes. Slowly, so that a page can be watched.

What it does is said by the last message of the person: see STORIES.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Generator

from tusi.backends.fake import FakeBackend, FakeReply
from tusi.backends.protocol import ChatDelta, ChatRequest
from tusi.chat.messages import ToolCall

BOX = (600, 200, 800, 500)
"""What the story zooms into; 0-1000."""
BOXES = [
    {"bbox_2d": [600, 200, 800, 500], "label": "green"},
    {"bbox_2d": [100, 600, 400, 900], "label": "red"},
]
"""What it answers with."""
THOUGHT = "The picture is large, and what is asked for is small. **I look closer** before I answer."


def look(turn: int) -> FakeReply:
    if turn == 0:
        call = ToolCall("x", "image_zoom_in_tool", json.dumps({"bbox_2d": BOX, "label": "the green field"}))
        return FakeReply(reasoning=THOUGHT, tool_calls=(call,))
    boxes = json.dumps(BOXES)
    return FakeReply(
        reasoning="Now I see it.", content=f"There are two fields:\n\n```json\n{boxes}\n```\n\nThat is all."
    )


def one_box(turn: int) -> FakeReply:
    return FakeReply(
        reasoning="One.", content='It is here: {"bbox_2d": [100, 600, 400, 900], "label": "红色"}, at the left.'
    )


def watch(turn: int) -> FakeReply:
    return FakeReply(reasoning="I watch.", content="It starts at 00:01 and ends at 2.5 s.")


def calculate(turn: int) -> FakeReply:
    if turn == 0:
        return FakeReply(reasoning="A sum.", tool_calls=(ToolCall("x", "calculator", '{"expression": "17*23"}'),))
    return FakeReply(reasoning="So.", content="It is **391**.")


def fail(turn: int) -> FakeReply:
    if turn == 0:
        return FakeReply(
            reasoning="Wrong.", tool_calls=(ToolCall("x", "image_zoom_in_tool", '{"bbox_2d": [5, 5, 5, 5]}'),)
        )
    return FakeReply(reasoning="I see.", content="That box was empty.")


def count(turn: int) -> FakeReply:
    return FakeReply(reasoning="I count.", content=" ".join(str(number) for number in range(2000)))


def attack(turn: int) -> FakeReply:
    return FakeReply(
        reasoning="<script>document.title = 'gone'</script>",
        content="<img src=x onerror=\"document.title='gone'\"> [here](javascript:document.title='gone') "
        "![picture](https://example.com/a.png) <b>bold</b>",
    )


STORIES: dict[str, Callable[[int], FakeReply]] = {
    "look": look, "one": one_box, "watch": watch, "sum": calculate, "wrong": fail, "count": count,
    "attack": attack,
}  # fmt: skip


class StoryBackend(FakeBackend):
    """pause: seconds between two deltas. pause_at: words at which it waits until it is told to go_on."""

    def __init__(
        self, pause: float = 0.0, cut: int = 6, more: dict[str, Callable[[int], FakeReply]] | None = None
    ) -> None:
        super().__init__(model="story", cut=cut)
        self.stories = STORIES | (more or {})
        self.pause = pause
        self.pause_at: str | None = None
        self._going = threading.Event()

    def go_on(self) -> None:
        self._going.set()

    def stream(self, request: ChatRequest) -> Generator[ChatDelta, None, None]:
        self.queue(self._tell)
        return self._slowly(super().stream(request), request.request_id)

    def _slowly(
        self, deltas: Generator[ChatDelta, None, None], request_id: str | None
    ) -> Generator[ChatDelta, None, None]:
        said = ""
        for delta in deltas:
            time.sleep(self.pause)
            yield delta
            said += delta.text
            while self.pause_at and self.pause_at in said and not self._going.wait(0.01):
                if request_id in self._aborted:
                    break

    def is_aborted(self) -> bool:
        """Whether any request was."""
        return bool(self._aborted)

    def _tell(self, request: ChatRequest) -> FakeReply:
        said = [at for at, message in enumerate(request.messages) if message.role == "user"]
        words = request.messages[said[-1]].text.split() if said else []
        turn = sum(message.role == "tool" for message in request.messages[said[-1] :])
        story = next((self.stories[word] for word in words if word in self.stories), None)
        if story is None:
            return FakeReply(reasoning="Nothing special.", content=f"You said: {' '.join(words) or 'nothing'}.")
        return story(turn)
