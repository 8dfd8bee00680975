"""Items on their way to one reader: waited for, or pushed, and none lost in between."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from tusi.backends.outbox import Item, Outbox, PushedStream, pump
from tusi.backends.protocol import ChatDelta
from tusi.core.errors import EngineError


def word(text: str) -> ChatDelta:
    return ChatDelta(text=text)


def test_what_waits_is_read_in_order_and_the_rest_is_pushed() -> None:
    outbox, seen = Outbox(), []
    outbox.put(word("a"))
    outbox.put(word("b"))
    assert outbox.get() == word("a")
    outbox.forward(seen.append)
    assert seen == [word("b")]
    outbox.put(word("c"))
    outbox.put(None)
    assert seen == [word("b"), word("c"), None]


def test_nothing_is_lost_or_turned_round_while_the_sink_is_set() -> None:
    for _ in range(50):
        outbox, seen = Outbox(), list[Item]()
        producer = threading.Thread(target=lambda box=outbox: [box.put(word(str(n))) for n in range(200)])
        producer.start()
        outbox.forward(seen.append)
        producer.join()
        assert [item.text for item in seen if isinstance(item, ChatDelta)] == [str(n) for n in range(200)]


class Pulled:
    """A stream that is read; closed: how often it was told that nobody reads on."""

    def __init__(self, *items: ChatDelta | Exception) -> None:
        self._items = iter(items)
        self.closed = 0

    def __iter__(self) -> Iterator[ChatDelta]:
        return self

    def __next__(self) -> ChatDelta:
        item = next(self._items)
        if isinstance(item, Exception):
            raise item
        return item

    def close(self) -> None:
        self.closed += 1


def test_streams_that_do_not_push_are_read_to_their_end() -> None:
    stream, seen = Pulled(word("a"), word("b")), list[Item]()
    assert not isinstance(stream, PushedStream)
    pump(stream, seen.append, lambda: False)
    assert (seen, stream.closed) == ([word("a"), word("b"), None], 1)


def test_an_error_is_the_last_item() -> None:
    error, seen = EngineError("dead"), list[Item]()
    stream = Pulled(word("a"), error)
    pump(stream, seen.append, lambda: False)
    assert (seen, stream.closed) == ([word("a"), error], 1)


@pytest.mark.parametrize("after", [0, 1])
def test_who_is_told_to_stop_stops_between_two_items(after: int) -> None:
    stream, seen = Pulled(word("a"), word("b"), word("c")), list[Item]()
    pump(stream, seen.append, lambda: len(seen) >= after)
    assert (len(seen), seen[-1], stream.closed) == (after + 1, None, 1)
