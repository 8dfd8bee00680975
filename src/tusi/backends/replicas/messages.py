"""What the front process and its engine processes say to each other: pickled values over a socket pair.

Both ends are ours, one started the other, and the socket has no name: nobody else can put a pickle into it. Deltas,
which are many, travel without the fields that say nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Literal

from tusi.backends.outbox import Item
from tusi.backends.protocol import Backend, ChatDelta
from tusi.core.types import WeightFormat
from tusi.engine.sampling_params import SamplingParams

PackedItem = dict[str, Any] | BaseException | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Begin:
    """The first message to a process. load: makes its backend. num_workers: prompts that are prepared at once."""

    index: int
    load: Callable[[], Backend]
    num_workers: int
    log_level: int


@dataclass(frozen=True, slots=True)
class Submit:
    """Open a stream: method(*args, **kwargs) of the backend. Answered by a Reply, then Items."""

    number: int
    method: Literal["stream", "stream_text"]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Abort:
    """End a stream; it still says how it ended. is_closed: nobody reads it any more."""

    number: int
    request_id: str
    is_closed: bool


@dataclass(frozen=True, slots=True)
class Call:
    """Call another method of the backend. Answered by a Reply."""

    number: int
    method: Literal["embed_image", "stats"]
    args: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Ping:
    """Are you there?"""


@dataclass(frozen=True, slots=True)
class Stop:
    """End, now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """The backend is loaded. What it tells of itself, None for what it cannot."""

    model: str
    default_sampling_params: SamplingParams
    max_model_len: int | None
    max_num_seqs: int | None
    image_max_pixels: int | None
    precision: WeightFormat | None
    has_text: bool
    has_stats: bool


@dataclass(frozen=True, slots=True)
class NotReady:
    """The backend cannot be loaded."""

    error: BaseException


@dataclass(frozen=True, slots=True)
class Reply:
    """A Submit was taken (value None), or what a Call gave; or the error instead."""

    number: int
    value: Any = None
    error: BaseException | None = None


@dataclass(frozen=True, slots=True)
class Items:
    """What streams said, in order: (their number, an item)."""

    items: list[tuple[int, PackedItem]]


@dataclass(frozen=True, slots=True)
class Pong:
    """Here I am. death: why the engine is dead, if it is."""

    death: str | None = None


@dataclass(frozen=True, slots=True)
class Log:
    """A log line of the process; text has the traceback too."""

    name: str
    level: int
    text: str


class ReplicaFault(Exception):  # never raised on purpose: it stands for an error that nobody expected
    """What an unexpected error of an engine process becomes in the front process; the log has its traceback."""


ToReplica = Submit | Abort | Call | Ping | Stop
FromReplica = Ready | NotReady | Reply | Items | Pong | Log

_DEFAULTS = {field.name: field.default for field in fields(ChatDelta)}


def pack(item: Item) -> PackedItem:
    """A delta as the fields that say something; all else as it is."""
    if not isinstance(item, ChatDelta):
        return item
    return {
        name: value
        for name, default in _DEFAULTS.items()
        if (value := getattr(item, name)) is not default and value != default
    }


def unpack(item: PackedItem) -> Item:
    """Undo pack."""
    return ChatDelta(**item) if isinstance(item, dict) else item
