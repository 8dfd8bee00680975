"""The lines of a batch's input file: where each one is, whether they make sense, and how one is answered."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from tusi.agent.types import TurnEnd
from tusi.backends.protocol import ChatDelta, Usage
from tusi.core.errors import BackendUnavailable, CapacityError, EngineError
from tusi.server.answer_format import Payload
from tusi.server.body import read_json
from tusi.server.bridge import sum_of
from tusi.server.errors import ErrorReply, describe, describe_validation
from tusi.server.generation import Job

MAX_LINES = 50_000
MAX_LINE_BYTES = 64 * 2**20
_MAX_ERRORS = 100
_FIELDS = ("custom_id", "method", "url", "body")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What a line asks for: the class of its body, and how a body becomes a job."""

    body: type[BaseModel]
    job: Callable[[Any], Job]


@dataclass(frozen=True, slots=True)
class InputFile:
    """An input that was read once. offsets: where each of its lines begins. errors: what is wrong with it."""

    path: Path
    offsets: tuple[int, ...]
    errors: tuple[dict[str, Any], ...]

    def line(self, number: int) -> dict[str, Any]:
        """A line of an input without errors."""
        with self.path.open("rb") as file:
            file.seek(self.offsets[number])
            value: dict[str, Any] = read_json(file.readline())
        return value


def read_input(path: Path, url: str) -> InputFile:
    """Look at every line of an input. Never raises: errors are the batch's to report."""
    offsets: list[int] = []
    errors: list[dict[str, Any]] = []
    ids: dict[str, int] = {}
    number = at = 0
    with path.open("rb") as file:
        while raw := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            if raw.strip():
                offsets.append(at)
                fault = _fault(raw, url, ids, number)
                if fault is not None:
                    errors.append({"code": fault[0], "message": fault[1], "param": fault[2], "line": number})
            at += len(raw)
            if len(errors) >= _MAX_ERRORS or len(offsets) > MAX_LINES or len(raw) > MAX_LINE_BYTES:
                break
    if not offsets:
        errors.append(_whole("empty_file", "the input has no line. Write one request a line."))
    elif len(offsets) > MAX_LINES:
        errors.append(_whole("too_many_tasks", f"the input has more than {MAX_LINES:,} lines. Split it."))
    return InputFile(path, tuple(offsets), tuple(errors))


def _whole(code: str, message: str) -> dict[str, Any]:
    return {"code": code, "message": message, "param": None, "line": None}


def _fault(raw: bytes, url: str, ids: dict[str, int], number: int) -> tuple[str, str, str | None] | None:
    """Code, message and field of what is wrong with a line."""
    if len(raw) > MAX_LINE_BYTES:
        return "line_too_long", f"the line is longer than {MAX_LINE_BYTES:,} bytes. Name files by their id.", None
    try:
        line = read_json(raw)
    except ValueError as error:
        return "invalid_json_line", f"the line is not JSON ({error}). Write one object a line.", None
    if not isinstance(line, dict) or not isinstance(line.get("body"), dict):
        return "invalid_json_line", "the line is not an object with an object `body`. Write one.", "body"
    unknown = [name for name in line if name not in _FIELDS]
    custom_id = line.get("custom_id")
    if unknown:
        return "invalid_json_line", f"{unknown[0][:80]!r} is no field of a line. Leave it out.", unknown[0][:80]
    if not isinstance(custom_id, str) or not custom_id:
        return "missing_required_parameter", "the line has no custom_id. Give it a text of its own.", "custom_id"
    if ids.setdefault(custom_id, number) != number:
        return "duplicate_custom_id", f"custom_id {custom_id[:80]!r} is that of line {ids[custom_id]}.", "custom_id"
    if line.get("method", "POST") != "POST":
        return "invalid_method", "the method is not POST. Write POST.", "method"
    if line.get("url") != url:
        return "mismatched_endpoint", f"the url is not {url}, as the batch says. Write {url}.", "url"
    if line["body"].get("stream"):
        return "unsupported_parameter", "a line cannot be streamed. Leave stream out.", "body.stream"
    return None


@dataclass(frozen=True, slots=True)
class Answer:
    """What a line was answered with."""

    status: int
    body: Payload

    def line(self, custom_id: str) -> dict[str, Any]:
        """As a line of a batch's output."""
        request_id = f"req_{uuid.uuid4().hex}"
        response = {"status_code": self.status, "request_id": request_id, "body": self.body}
        return {"id": f"batch_req_{uuid.uuid4().hex}", "custom_id": custom_id, "response": response, "error": None}


class Interrupted(Exception):
    """The line was not answered and must be run again, if at all."""


def answer_line(
    endpoint: Endpoint,
    body: Mapping[str, Any],
    *,
    started: Callable[[Job], None],
    must_stop: Callable[[], bool],
    is_aborted: Callable[[], bool],
    is_lost: Callable[[], bool],
) -> Answer:
    """Run a line, again if the engine stumbled over it. started is told of every job, so that it can be aborted.

    Raises Interrupted if it was aborted, or failed once must_stop or is_lost (the engine will not come back) says so.
    """
    for attempt in range(_ATTEMPTS):
        try:
            job = endpoint.job(endpoint.body.model_validate(dict(body)))
            started(job)
            answer = Answer(200, _run(job))
        except ValidationError as error:
            return _failure(describe_validation(error.errors()))
        except (CapacityError, EngineError, BackendUnavailable) as error:
            if must_stop() or is_lost():
                raise Interrupted from error
            if attempt == _ATTEMPTS - 1:
                return _failure(describe(error))
            _wait(max(getattr(error, "retry_after", 1.0), 0.5 * 2**attempt), must_stop)
            continue
        except Exception as error:  # noqa: BLE001  # one line's fault must not end the batch
            return _failure(describe(error))
        if is_aborted():  # what it says may be the half of an answer
            raise Interrupted
        return answer
    raise AssertionError


_ATTEMPTS = 6


def _run(job: Job) -> Payload:
    usage = Usage()
    for open_stream in job.open_streams:
        stream = open_stream()
        try:
            while (item := next(stream, None)) is not None:
                job.answer.add(item)
                if isinstance(item, ChatDelta | TurnEnd) and item.usage is not None:
                    usage = sum_of(usage, item.usage)
        finally:
            stream.close()
    return job.answer.whole(usage)


def _failure(reply: ErrorReply) -> Answer:
    return Answer(reply.status, reply.body)


def _wait(seconds: float, must_stop: Callable[[], bool]) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and not must_stop():
        time.sleep(0.05)
