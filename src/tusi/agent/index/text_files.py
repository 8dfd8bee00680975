"""Reads Markdown, text and PDF files as passages of a size that a model can read, each with its place. No database."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tusi.core.errors import BackendUnavailable, RequestError

MARKDOWN_SUFFIXES = (".md", ".markdown")
TEXT_SUFFIXES = (".txt", ".rst", ".text")
PDF_SUFFIXES = (".pdf",)
SUFFIXES = (*MARKDOWN_SUFFIXES, *TEXT_SUFFIXES, *PDF_SUFFIXES)

PASSAGE_CHARS = 800
MAX_FILE_BYTES = 64 * 2**20
MAX_PDF_PAGES = 5000

_HEADING = re.compile(r"(#{1,6})\s+(.*?)\s*#*\s*")
_FENCE = re.compile(r"\s*(```|~~~)")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？；])")


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of a file. place: `line 12` or `page 3`; heading: the headings it stands under, outermost first."""

    place: str
    heading: str
    text: str


def read_passages(path: Path) -> Iterator[Passage]:
    """The passages of a file. Raises RequestError for one that cannot be read, BackendUnavailable without pypdf."""
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise RequestError(f"{path} has {size} bytes; at most {MAX_FILE_BYTES} are indexed. Split it.")
        if path.suffix.lower() in PDF_SUFFIXES:
            yield from _pdf(path)
            return
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RequestError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}). Convert it.") from error
    except OSError as error:
        raise RequestError(f"{path} cannot be read ({error.strerror}). Check its permissions.") from error
    lines = text.splitlines()
    yield from _markdown(lines) if path.suffix.lower() in MARKDOWN_SUFFIXES else _packed(lines, 0, "")


def _markdown(lines: list[str]) -> Iterator[Passage]:
    headings: list[str] = []
    start, section = 0, list[str]()
    in_fence = False
    for number, line in enumerate(lines):
        in_fence ^= _FENCE.match(line) is not None
        match = None if in_fence else _HEADING.fullmatch(line)
        if match is None:
            section.append(line)
            continue
        yield from _packed(section, start, " > ".join(filter(None, headings)))
        level = len(match[1])
        headings = [*headings[: level - 1], *[""] * (level - 1 - len(headings)), match[2]]
        start, section = number + 1, []
    yield from _packed(section, start, " > ".join(filter(None, headings)))


def _pdf(path: Path) -> Iterator[Passage]:
    try:
        import pypdf
        from pypdf.errors import PyPdfError
    except ImportError as error:
        raise BackendUnavailable(f"{path} is a PDF, and pypdf is not installed. pip install 'tusi[pdf]'.") from error
    try:
        reader = pypdf.PdfReader(path)
        if len(reader.pages) > MAX_PDF_PAGES:
            raise RequestError(f"{path} has {len(reader.pages)} pages; at most {MAX_PDF_PAGES} are read. Split it.")
        for number, page in enumerate(reader.pages, start=1):
            for passage in _packed(page.extract_text().splitlines(), 0, ""):
                yield Passage(f"page {number}", "", passage.text)
    # What pypdf raises on damaged files beside its own error: it indexes and converts unchecked.
    except (PyPdfError, ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise RequestError(f"{path} is not a PDF that can be read ({error}). Save it again, or as text.") from error


def _packed(lines: list[str], first: int, heading: str) -> Iterator[Passage]:
    """Paragraphs joined up to PASSAGE_CHARS, longer ones cut at the ends of sentences. first: lines before these."""
    held: list[str] = []
    place = first
    for start, paragraph in _paragraphs(lines, first):
        for piece in _pieces(paragraph):
            if held and sum(map(len, held)) + len(piece) > PASSAGE_CHARS:
                yield Passage(f"line {place + 1}", heading, "\n".join(held))
                held = []
            if not held:
                place = start
            held.append(piece)
    if held:
        yield Passage(f"line {place + 1}", heading, "\n".join(held))


def _paragraphs(lines: list[str], first: int) -> Iterator[tuple[int, str]]:
    start, held = first, list[str]()
    for number, line in enumerate([*lines, ""], start=first):
        if line.strip():
            if not held:
                start = number
            held.append(line.strip())
        elif held:
            yield start, "\n".join(held)
            held = []


def _pieces(paragraph: str) -> Iterator[str]:
    """The paragraph in pieces of at most PASSAGE_CHARS."""
    if len(paragraph) <= PASSAGE_CHARS:
        yield paragraph
        return
    held = ""
    for sentence in _SENTENCE_END.split(paragraph):
        if held and len(held) + len(sentence) > PASSAGE_CHARS:
            yield held
            held = ""
        held = f"{held} {sentence}" if held and sentence.isascii() else held + sentence
        while len(held) > PASSAGE_CHARS:  # no end in sight: tables, code
            yield held[:PASSAGE_CHARS]
            held = held[PASSAGE_CHARS:]
    if held:
        yield held
