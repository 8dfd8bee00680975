"""The world's own database: a catalogue of invented objects, which the knowledge base and the image search answer from.

An entry's facts are computed from its catalogue number and a small file of syllables and places, so there are thousands
of entries, the same ones everywhere, and too many facts to learn by heart: looking things up stays worth it. A hash of
the number says which half of them belongs to training. (A rule like even and odd would show: no name or number seen in
training would end as those of the evaluation do.)
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from tusi.tasks.world.rng import Rng
from tusi.tasks.world.splits import Split, longtail_concepts
from tusi.tasks.world.wording import Words

_QUERY_WORD = re.compile(r"[A-Za-z]+|\d+")


@dataclass(frozen=True, slots=True)
class Entry:
    """One catalogued object. kind: the long-tail concept it is an example of."""

    number: int
    name: str
    kind: str
    weight: int
    year: int
    price: int
    place: tuple[str, str]

    def facts(self, words: Words) -> str:
        """What the knowledge base says."""
        en = f"{self.name} (no. {self.number}): {self.weight} kg, year {self.year}, {self.price} yuan, {self.place[0]}"
        zh = f"{self.name}（{self.number}号）：{self.weight}千克，{self.year}年，{self.price}元，{self.place[1]}"
        return words(en, zh)

    def caption(self, words: Words) -> str:
        """What the image search says."""
        return words(f"{self.name}, no. {self.number}", f"{self.name}，{self.number}号")


@cache
def _file() -> dict[str, Any]:
    path = files("tusi.tasks.world") / "data" / "knowledge.json"
    loaded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return loaded


@cache
def _names() -> dict[str, int]:
    """Name -> number, for all entries."""
    return {name_of(number): number for number in range(_file()["first_number"], _file()["last_number"] + 1)}


def name_of(number: int) -> str:
    """The name of an entry: its number in base 32, three syllables, so no two entries share one."""
    syllables = _file()["syllables"]
    # Bijections of 15-bit numbers: neighbours get unlike names in every syllable.
    scrambled = number * 20077 & 0x7FFF
    scrambled ^= scrambled >> 8
    scrambled = scrambled * 12589 & 0x7FFF
    return "".join(syllables[scrambled >> shift & 31] for shift in (10, 5, 0)).capitalize()


def entry(number: int) -> Entry | None:
    """The entry with a catalogue number, if there is one."""
    if not _file()["first_number"] <= number <= _file()["last_number"]:
        return None
    digest = hashlib.blake2b(f"catalogue|{number}".encode(), digest_size=8).digest()
    places, kinds = _file()["places"], longtail_concepts()
    en, zh = places[digest[0] % len(places)]
    return Entry(
        number=number,
        name=name_of(number),
        kind=kinds[digest[1] % len(kinds)].id,
        weight=2 + digest[2] % 98,
        year=1700 + (digest[3] << 8 | digest[4]) % 300,
        price=10 + (digest[5] << 8 | digest[6]) % 980,
        place=(en, zh),
    )


def places() -> tuple[tuple[str, str], ...]:
    """All places of origin, in English and Chinese."""
    return tuple((en, zh) for en, zh in _file()["places"])


def is_trained(number: int) -> bool:
    """Whether an entry belongs to training's half of the catalogue."""
    return hashlib.blake2b(f"split|{number}".encode(), digest_size=1).digest()[0] % 2 == 0


@cache
def _half(*, trained: bool) -> tuple[int, ...]:
    numbers = range(_file()["first_number"], _file()["last_number"] + 1)
    return tuple(number for number in numbers if is_trained(number) == trained)


def draw_entry(rng: Rng, split: Split) -> Entry:
    """A random entry of a split's half of the catalogue."""
    found = entry(rng.choice(_half(trained=split == "train")))
    assert found is not None
    return found


def knowledge_search(query: str, words: Words) -> str:
    """The facts of every entry that the query names, by name or number."""
    found: dict[int, Entry] = {}
    for word in _QUERY_WORD.findall(query):
        number = int(word) if word.isdigit() and len(word) <= 9 else _names().get(word.capitalize(), -1)
        match = entry(number)
        if match is not None:
            found[number] = match
    return "\n".join(e.facts(words) for e in found.values()) or words("no entry found", "没有找到条目")


def image_search(record: int | None, words: Words) -> str:
    """What is known of a picture, given the catalogue number of what it shows."""
    match = entry(record) if record is not None else None
    return match.caption(words) if match is not None else words("no similar picture", "没有相似的图片")
