"""Items from threads to the event loop: order, errors, leaving early, and how often the loop is woken."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tusi.backends.outbox import Outbox
from tusi.backends.protocol import ChatDelta, Usage
from tusi.core.errors import EngineError, RequestError
from tusi.server.bridge import AsyncItems, Mailbox


class Pushed:
    """A stream that a test makes speak, as an engine's thread would."""

    def __init__(self) -> None:
        self.outbox = Outbox()

    def __next__(self) -> ChatDelta:
        raise AssertionError("it is pushed")

    def forward(self, sink: Any, wants: Any) -> None:
        self.wants = wants
        self.outbox.forward(sink)

    def close(self) -> None:
        raise AssertionError("it is aborted by its id")


def word(text: str, **fields: Any) -> ChatDelta:
    return ChatDelta(text=text, token_ids=(1,), **fields)


def visit(test: Callable[..., Any], *opens: Callable[[], Any], **options: Any) -> list[str]:
    """Run test(items) on a loop; the calls of abort."""
    aborts: list[str] = []

    async def main() -> None:
        with ThreadPoolExecutor(1) as pool:
            await test(AsyncItems(opens, lambda: aborts.append("abort"), pool, Mailbox(), **options))

    asyncio.run(main())
    return aborts


def test_pushed_items_come_in_order_with_usage_and_without_a_thread() -> None:
    stream, other = Pushed(), Pushed()

    async def test(items: AsyncItems) -> None:
        await items.start()  # both are open, though there is one thread to open them
        other.outbox.put(None)
        seen: list[str] = []
        for text in ("a", "b"):
            await asyncio.to_thread(stream.outbox.put, word(text))
        await asyncio.to_thread(stream.outbox.put, word("c", usage=Usage(completion_tokens=3)))
        await asyncio.to_thread(stream.outbox.put, None)
        async for batch in items.batches():
            seen += [item.text for item in batch]  # type: ignore[union-attr]
        assert seen == ["ab", "c"]
        assert items.usage.completion_tokens == 3
        assert items.ttft is not None

    assert visit(test, lambda: stream, lambda: other) == []


def test_a_refusal_is_raised_by_start_and_an_error_by_the_batches() -> None:
    def refuse() -> Any:
        raise RequestError("no. Ask otherwise.")

    async def refused(items: AsyncItems) -> None:
        with pytest.raises(RequestError):
            await items.start()
        items.close()

    speaking = Pushed()
    # Twice, if the other stream was just being opened.
    assert set(visit(refused, lambda: speaking, refuse)) == {"abort"}
    stream = Pushed()

    async def broken(items: AsyncItems) -> None:
        await items.start()
        stream.outbox.put(word("a"))
        stream.outbox.put(EngineError("dead"))
        batches = items.batches()
        assert await anext(batches) == [word("a")]
        with pytest.raises(EngineError, match="dead"):
            await anext(batches)

    visit(broken, lambda: stream)


def test_who_leaves_while_the_request_is_prepared_aborts_it_once_it_runs() -> None:
    stream, may_open = Pushed(), threading.Event()

    def open_late() -> Pushed:
        assert may_open.wait(30)
        return stream

    async def test(items: AsyncItems) -> None:
        starting = asyncio.ensure_future(items.start())
        await asyncio.sleep(0)
        items.close()
        may_open.set()
        await starting
        stream.outbox.put(None)  # the abort's answer
        assert [batch async for batch in items.batches()] == []

    # The first call found nothing to abort, as the backend did not know of the request yet.
    assert visit(test, open_late) == ["abort", "abort"]


def test_what_comes_soon_after_waits_and_comes_as_one() -> None:
    stream = Pushed()

    async def test(items: AsyncItems) -> None:
        await items.start()
        batches = items.batches()
        assert stream.wants()
        stream.outbox.put(word("a"))
        assert await anext(batches) == [word("a")]  # the first waits for nothing
        waiting = asyncio.ensure_future(anext(batches))
        await asyncio.sleep(0)
        assert not stream.wants()
        for text in ("b", "c"):
            await asyncio.to_thread(stream.outbox.put, word(text))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        await asyncio.to_thread(stream.outbox.put, word("", finish_reason="stop"))
        await asyncio.to_thread(stream.outbox.put, None)
        # The end waits for nothing either.
        expected = [ChatDelta(text="bc", token_ids=(1, 1)), word("", finish_reason="stop")]
        assert await asyncio.wait_for(waiting, 30) == expected
        assert [batch async for batch in batches] == []

    visit(test, lambda: stream, beat=1e9)


def test_a_fast_stream_is_read_at_every_beat_and_a_slow_one_at_once() -> None:
    stream, length = Pushed(), 600

    def talk() -> None:
        for _ in range(length):
            stream.outbox.put(word("a"))
            time.sleep(0.001)
        stream.outbox.put(word("", finish_reason="stop"))

    async def test(items: AsyncItems) -> None:
        await items.start()
        started = time.monotonic()
        talking = asyncio.ensure_future(asyncio.to_thread(talk))
        batches, seen = items.batches(), list[list[Any]]()
        while not seen or seen[-1][-1].finish_reason is None:
            seen.append(await anext(batches))
        await talking
        assert "".join(delta.text for batch in seen for delta in batch) == "a" * length
        # The first at once, and then one a beat.
        assert 1 < len(seen) <= (time.monotonic() - started) / 0.1 + 2
        await asyncio.sleep(0.15)
        waiting = asyncio.ensure_future(anext(batches))
        await asyncio.sleep(0.15)  # the last beat that was to be kept is over
        assert stream.wants()
        stream.outbox.put(word("c"))
        for _ in range(5):  # no timer runs out within a few turns of the loop
            await asyncio.sleep(0)
        assert waiting.done()
        items.close()

    assert visit(test, lambda: stream, beat=0.1) == ["abort"]


def test_a_step_that_speaks_to_many_wakes_the_loop_once() -> None:
    async def main() -> int:
        loop, wakes = asyncio.get_running_loop(), []
        mailbox, seen = Mailbox(), []
        real = loop.call_soon_threadsafe
        loop.call_soon_threadsafe = lambda *args: (wakes.append(1), real(*args))[1]  # type: ignore[method-assign]
        for number in range(100):
            mailbox.post(lambda number=number: seen.append(number))
        await asyncio.sleep(0.01)
        assert seen == list(range(100))
        return len(wakes)

    assert asyncio.run(main()) == 1
