"""`knowledge_search`: passages of indexed documents, each with its source."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tusi.agent.index.documents import FoundPassage, count_passages, search_documents
from tusi.agent.tool import ConversationMedia, ToolError, check_arguments
from tusi.chat.messages import Part, TextPart
from tusi.chat.tool_schemas import KNOWLEDGE_SEARCH, ToolSchema
from tusi.core.errors import ConfigError

MAX_PASSAGES = 5
MAX_QUERY_CHARS = 1000


class KnowledgeSearch:
    """Looks up an index that `tusi index docs` made. Raises ConfigError for one without documents."""

    name = "knowledge_search"
    schema: ToolSchema = KNOWLEDGE_SEARCH

    def __init__(self, index: Path, *, max_passages: int = MAX_PASSAGES) -> None:
        if not count_passages(index):
            raise ConfigError(f"the index {index} holds no documents. Add some: tusi index docs FOLDER --index {index}")
        self._index, self._max_passages = index, max_passages

    def call(self, arguments: Mapping[str, Any], media: ConversationMedia) -> tuple[Part, ...]:
        """The best passages as text. Raises ToolError or ConfigError."""
        check_arguments(arguments, required=("query",))
        query = arguments["query"]
        if not isinstance(query, str) or not query.strip():
            raise ToolError(f"query is {str(query)[:40]!r}; it must be text; write the words to be looked up")
        if len(query) > MAX_QUERY_CHARS:
            raise ToolError(f"query has {len(query)} characters, {MAX_QUERY_CHARS} are read; write only the key words")
        found = search_documents(self._index, query, limit=self._max_passages)
        if not found:
            return (TextPart("no entry found; try other words"),)
        return (TextPart("\n\n".join(_shown(number, passage) for number, passage in enumerate(found, start=1))),)


def _shown(number: int, passage: FoundPassage) -> str:
    heading = f" ({passage.heading})" if passage.heading else ""
    return f"[{number}] {passage.source}{heading}\n{passage.text}"
