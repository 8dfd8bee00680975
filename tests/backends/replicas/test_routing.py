"""Which replica takes what. Pure."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tusi.backends.local.prompts import TextPrompt
from tusi.backends.protocol import ChatRequest
from tusi.backends.replicas.routing import CHUNK, Prefix, Router, chat_prefixes, text_prefixes
from tusi.chat.messages import ImagePart, Message, TextPart, VideoPart
from tusi.processing.sources import KeptFile

SYSTEM = Message(role="system", content=(TextPart("Be brief."),))


def user(text: str, *media: object) -> Message:
    return Message(role="user", content=(*(ImagePart(source) for source in media), TextPart(text)))


def request(*messages: Message, **options: object) -> ChatRequest:
    return ChatRequest(messages=messages, **options)  # type: ignore[arg-type]


def test_the_idlest_is_chosen_and_equals_take_turns() -> None:
    router = Router()
    assert router.choose([], {0: 3, 1: 1, 2: 2}, 8) == 1
    assert [router.choose([], {0: 0, 1: 0, 2: 0}, 8) for _ in range(4)] == [2, 0, 1, 2]
    assert router.choose([], {1: 5}, 8) == 1


def test_a_conversation_goes_back_to_its_replica_while_that_is_not_much_busier() -> None:
    router = Router()
    first = chat_prefixes(request(SYSTEM, user("x" * 20_000)))
    home = router.choose(first, {0: 0, 1: 0}, 16)
    answer = Message(role="assistant", content=(TextPart("Yes."),))
    second = chat_prefixes(request(SYSTEM, user("x" * 20_000), answer, user("And?")))
    assert [p.key for p in second[:2]] == [p.key for p in first]
    assert router.choose(second, {home: 5, 1 - home: 0}, 16) == home
    assert router.choose(second, {home: 8, 1 - home: 0}, 16) == 1 - home
    # Now the other one knows it too, and is the last that does.
    assert router.choose(second, {home: 0, 1 - home: 2}, 16) == 1 - home


def test_a_common_opening_does_not_gather_all_requests_in_one_place() -> None:
    router = Router()
    loads = {0: 0, 1: 0, 2: 0}
    for number in range(30):
        loads[router.choose(chat_prefixes(request(SYSTEM, user(f"{number}?"))), loads, 16)] += 1
    assert max(loads.values()) - min(loads.values()) <= 2


def test_what_died_is_forgotten_and_memory_is_bounded() -> None:
    router = Router(max_prefixes=10)
    long = [Prefix(bytes([i]), 40_000) for i in range(5)]
    home = router.choose(long, {0: 0, 1: 0}, 16)
    router.forget(home)
    assert router.choose(long, {home: 1, 1 - home: 0}, 16) == 1 - home
    router.choose(long, {home: 0}, 16)
    for number in range(100):
        router.choose([Prefix(str(number).encode(), 1)], {0: 0, 1: 0}, 16)
    assert len(router._seen) == 10


@pytest.mark.parametrize(
    "other",
    [
        request(SYSTEM, user("Hello!")),
        request(user("Hello?")),
        request(SYSTEM, user("Hello?"), template_kwargs={"enable_thinking": False}),
        request(SYSTEM, user("Hello?"), mm_processor_kwargs={"fps": 1}),
        request(SYSTEM, user("Hello?"), tools=({"function": {"name": "f"}},)),
        request(SYSTEM, user("Hello?", "http://a/b.png")),
        request(SYSTEM, Message(role="user", content=(TextPart("Hello"), TextPart("?")))),
    ],
)
def test_other_prompts_have_other_keys(other: ChatRequest) -> None:
    assert chat_prefixes(request(SYSTEM, user("Hello?")))[-1].key != chat_prefixes(other)[-1].key


def test_media_count_and_what_cannot_be_told_apart_ends_the_chain() -> None:
    image = Image.new("RGB", (4, 4))
    for source in ("data:image/png;base64,AAAA", b"\x89PNG", image, np.zeros((2, 2, 3), np.uint8), KeptFile(Path("x"))):
        prefixes = chat_prefixes(request(user("What?", source), user("And?")))
        assert [prefix.size for prefix in prefixes] == [4005, 4009]
    video = Message(role="user", content=(VideoPart([image, image]),))
    assert len(chat_prefixes(request(SYSTEM, video, user("x")))) == 1


def test_rendered_prompts_are_known_by_chunks() -> None:
    text = "word " * CHUNK
    long = text_prefixes(TextPrompt(text=text))
    assert [p.key for p in text_prefixes(TextPrompt(text=text + "more"))[:5]] == [p.key for p in long[:5]]
    assert text_prefixes(TextPrompt(text="other" + text))[0].key != long[0].key
    assert len(text_prefixes(TextPrompt(token_ids=range(CHUNK)))) == 4
    assert text_prefixes(TextPrompt(text="x", images=[ImagePart("a")])) == []
