"""Cuts text into search terms, so that SQLite's full-text index finds Chinese. Pure.

Runs of Chinese, Japanese or Korean become overlapping pairs of characters: 图灵奖 is found by 图灵, by 灵奖 and by
itself. No word can be missed because a dictionary does not know it or cuts it elsewhere, which is what matters for
names; the well-known segmenter (jieba) is a large dictionary that has not been maintained since 2020, and SQLite's own
trigrams cannot find words of two characters, the commonest length. What pairs cost is a larger index.
"""

from __future__ import annotations

import re
import unicodedata

# The marks 々 and 〇, kana, Han, Hangul, Han's compatibility forms and the planes beyond.
_WIDE = "\u3005\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
_RUN = re.compile(f"[{_WIDE}]+")
_TERM = re.compile(f"[{_WIDE}]+|[^\\W{_WIDE}]+")
MAX_QUERY_TERMS = 64


def index_text(text: str) -> str:
    """The text as the index stores it: runs of wide characters as pairs, and the last character alone.

    With the last one every character begins a term, so that a single character is found as a prefix.
    """
    return _RUN.sub(lambda match: f" {' '.join([*_pairs(match[0]), match[0][-1]])} ", normalise(text))


def query_expression(query: str) -> str | None:
    """An FTS5 expression that matches any of the query's terms; None if it has none. Operators in it are just text."""
    terms: list[str] = []
    for term in _TERM.findall(normalise(query)):
        if _RUN.fullmatch(term) is None:
            terms.append(f'"{term}"')
        elif len(term) == 1:
            terms.append(f'"{term}" *')
        else:
            terms += [f'"{pair}"' for pair in _pairs(term)]
    return " OR ".join(dict.fromkeys(terms[:MAX_QUERY_TERMS])) or None


def normalise(text: str) -> str:
    """Full-width letters and digits become plain ones (NFKC), and case is folded."""
    return unicodedata.normalize("NFKC", text).casefold()


def _pairs(run: str) -> list[str]:
    return [run[i : i + 2] for i in range(len(run) - 1)]
