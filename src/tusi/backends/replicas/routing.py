"""Which replica takes a request: the one that owes least, or the one that has seen the conversation's beginning.

A conversation goes back to where its prefix lies in the cache as long as that replica is not much busier than the
idlest; the more of it is known there, the more busier it may be. Pure: no processes, no clock.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tusi.backends.local.prompts import TextPrompt
from tusi.backends.protocol import ChatRequest
from tusi.chat.messages import Message, TextPart
from tusi.processing.sources import KeptFile

CHUNK = 2048
MEDIUM_SIZE = 4000
"""What a picture counts for, in characters: its tokens cost about as much as those of so much text."""
SIZE_PER_PLACE = 4000
"""For so many characters that are known, a replica may owe one completion more than the idlest."""


@dataclass(frozen=True, slots=True)
class Prefix:
    """A beginning of a prompt. key: the same for the same beginning. size: about how many characters it is worth."""

    key: bytes
    size: int


class Router:
    """Remembers which replica has seen what; `max_prefixes` of it. Not thread-safe."""

    def __init__(self, max_prefixes: int = 16384) -> None:
        self._seen: OrderedDict[bytes, int] = OrderedDict()
        self._max_prefixes = max_prefixes
        self._last = 0

    def choose(self, prefixes: Sequence[Prefix], loads: Mapping[int, int], capacity: int) -> int:
        """The replica for a prompt with these beginnings, the shortest first.

        loads: completions that each living replica owes; not empty. capacity: how many one computes at once.
        """
        chosen = self._preferred(prefixes, loads, capacity)
        if chosen is None:
            # Among equals in turns, so that the first one does not get every lone request.
            chosen = min(loads, key=lambda index: (loads[index], (index - self._last - 1) % (max(loads) + 1)))
        self._last = chosen
        for prefix in prefixes:
            self._seen[prefix.key] = chosen
            self._seen.move_to_end(prefix.key)
        while len(self._seen) > self._max_prefixes:
            self._seen.popitem(last=False)
        return chosen

    def forget(self, index: int) -> None:
        """The replica has lost its cache."""
        for key in [key for key, where in self._seen.items() if where == index]:
            del self._seen[key]

    def _preferred(self, prefixes: Sequence[Prefix], loads: Mapping[int, int], capacity: int) -> int | None:
        least = min(loads.values())
        for prefix in reversed(prefixes):
            index = self._seen.get(prefix.key)
            if index is not None and index in loads:
                extra = min(1 + prefix.size // SIZE_PER_PLACE, max(1, capacity // 2))
                return index if loads[index] <= least + extra else None
        return None


def chat_prefixes(request: ChatRequest) -> list[Prefix]:
    """The beginnings of a conversation, one a message. They end before what has no bytes to tell it by."""
    digest = hashlib.blake2b(repr((request.tools, sorted(request.template_kwargs.items()))).encode(), digest_size=16)
    digest.update(repr(sorted(request.mm_processor_kwargs.items())).encode())
    size = 0
    prefixes = []
    for message in request.messages:
        pieces = list(_pieces(message))
        if None in pieces:
            break
        for piece in pieces:
            assert piece is not None
            digest.update(len(piece).to_bytes(8, "little"))
            digest.update(piece)
        size += sum(len(p.text) if isinstance(p, TextPart) else MEDIUM_SIZE for p in message.content)
        prefixes.append(Prefix(digest.copy().digest(), size))
    return prefixes


def text_prefixes(prompt: TextPrompt) -> list[Prefix]:
    """The beginnings of a rendered prompt, in steps of CHUNK characters (token ids: CHUNK / 4). Media are not seen."""
    if prompt.images or prompt.videos:
        return []
    if prompt.text is not None:
        chunks: Iterable[bytes] = (prompt.text[at : at + CHUNK].encode("utf-8", "surrogatepass")
                                   for at in range(0, len(prompt.text), CHUNK))  # fmt: skip
    else:
        ids = prompt.token_ids or ()
        chunks = (repr(tuple(ids[at : at + CHUNK // 4])).encode() for at in range(0, len(ids), CHUNK // 4))
    digest = hashlib.blake2b(digest_size=16)
    prefixes = []
    for number, chunk in enumerate(chunks):
        digest.update(chunk)
        prefixes.append(Prefix(digest.copy().digest(), (number + 1) * CHUNK))
    return prefixes


def _pieces(message: Message) -> Iterator[bytes | None]:
    yield repr((message.role, message.tool_calls, message.tool_call_id)).encode("utf-8", "surrogatepass")
    yield (message.reasoning or "").encode("utf-8", "surrogatepass")
    for part in message.content:
        if isinstance(part, TextPart):
            yield part.text.encode("utf-8", "surrogatepass")
        else:
            yield repr(sorted(part.options.items())).encode()
            yield _source_bytes(part.source)


def _source_bytes(source: object) -> bytes | None:
    if isinstance(source, str):
        return source.encode("utf-8", "surrogatepass")
    if isinstance(source, bytes | bytearray):
        return bytes(source)
    if isinstance(source, KeptFile):
        return str(source.path).encode("utf-8", "surrogatepass")
    to_bytes = getattr(source, "tobytes", None)  # PIL images, arrays
    return to_bytes() if callable(to_bytes) else None
