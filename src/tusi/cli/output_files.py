"""The files that `tusi ask` can leave beside its answer: the trace, the boxes in the picture, the story."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tusi.chat.messages import ImagePart
from tusi.cli.answering import Answer, append_trace, check_trace_file
from tusi.cli.drawing import check_drawable, draw_answer
from tusi.cli.story import check_story, write_story
from tusi.core.errors import RequestError
from tusi.processing.limits import MediaLimits


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputFiles:
    """Where each goes; None: it is not wanted. font: for the story."""

    trace: Path | None = None
    draw: Path | None = None
    story: Path | None = None
    font: Path | None = None

    def check(self, images: Sequence[ImagePart]) -> None:
        """Raise, before minutes are spent on an answer, if one of them could not be written."""
        if self.trace is not None:
            check_trace_file(self.trace)
        if self.draw is not None:
            check_drawable(self.draw, images)
        if self.story is not None:
            check_story(self.story, self.font)
        elif self.font is not None:
            raise RequestError(f"--font {self.font} has nothing to act on without --story. Leave it out, or add that.")

    def write(self, result: Answer, images: Sequence[ImagePart], limits: MediaLimits) -> list[str]:
        """Write what is wanted; returns what the user should know."""
        notes = []
        if self.trace is not None:
            append_trace(result.trace, self.trace)
        if self.draw is not None:
            notes += draw_answer(result.choice.content, images, self.draw, limits)[1]
        if self.story is not None:
            notes += write_story(result.trace, self.story, limits, self.font)
        return notes
