from __future__ import annotations

import sqlite3

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tusi.agent.index.segment import MAX_QUERY_TERMS, index_text, query_expression


def matches(text: str, query: str) -> bool:
    """Whether SQLite finds the text by the query."""
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE VIRTUAL TABLE t USING fts5 (x, tokenize = 'porter unicode61 remove_diacritics 2')")
    connection.execute("INSERT INTO t VALUES (?)", (index_text(text),))
    expression = query_expression(query)
    if expression is None:
        return False
    found = connection.execute("SELECT count(*) FROM t WHERE t MATCH ?", (expression,)).fetchone()[0]
    connection.close()
    return bool(found)


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("他在1966年获得图灵奖。", "图灵奖"),
        ("他在1966年获得图灵奖。", "图灵"),
        ("他在1966年获得图灵奖。", "灵奖"),
        ("他在1966年获得图灵奖。", "奖"),  # a single character, the last of its run
        ("他在1966年获得图灵奖。", "获"),
        ("他在1966年获得图灵奖。", "1966"),
        ("型号ＡＢＣ１２３", "abc123"),  # full width
        ("Two Apples lay there", "apple"),
        ("the café", "CAFE"),
        ("ひらがなとカタカナ", "カタカナ"),
        ("한국어 문장", "국어"),
        ("数据库ERNIE模型", "ernie"),
        ("snake_case_name here", "snake_case_name"),
        ("𠮷野家", "𠮷野"),
    ],
)
def test_what_is_there_is_found(text: str, query: str) -> None:
    assert matches(text, query)


@pytest.mark.parametrize(
    ("text", "query"),
    [("图书和神灵", "图灵"), ("apple", "pear"), ("获得", "得获"), ("12345", "234"), ("words", "?!")],
)
def test_what_is_not_there_is_not(text: str, query: str) -> None:
    assert not matches(text, query)


@given(st.lists(st.text(max_size=40), min_size=20, max_size=20))
@settings(max_examples=5, deadline=None)
def test_no_query_is_a_syntax_error(queries: list[str]) -> None:
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE VIRTUAL TABLE t USING fts5 (x)")
    for query in queries:
        expression = query_expression(query)
        if expression is not None:
            connection.execute("SELECT * FROM t WHERE t MATCH ?", (expression,)).fetchall()
    connection.close()


@pytest.mark.parametrize("query", ['" OR x', "NEAR(a b)", "a AND NOT", "x:y", "*", "^a", "{a b}: c", "a-b"])
def test_operators_are_just_text(query: str) -> None:
    matches("some text", query)


def test_long_queries_are_cut() -> None:
    expression = query_expression(" ".join(f"w{i}" for i in range(500)))
    assert expression is not None
    assert expression.count(" OR ") == MAX_QUERY_TERMS - 1
