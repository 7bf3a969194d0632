"""Texts made from what an editor sends."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacore.mcp_server import texts
from novacore.mcp_server.schemas import ContextMemory, MemoryLog


@given(st.text(min_size=1, max_size=1024), st.text(max_size=3000), st.text(max_size=64))
def test_a_query_fits_memorys_search_and_keeps_the_path(path: str, content: str, language: str) -> None:
    query = texts.context_query(path, content, language)
    assert len(query) <= texts.QUERY_MAX
    assert query.startswith(texts.clean(path)[: texts.QUERY_MAX])
    assert "\x00" not in query


@given(st.integers(0, 200_000))
def test_a_file_is_cut_to_what_a_run_takes(length: int) -> None:
    text = "h" * (length // 2) + "t" * (length - length // 2)
    cut = texts.run_context(text)
    if not text:
        assert cut is None
        return
    assert cut is not None
    assert len(cut) <= texts.CONTEXT_MAX
    assert (cut[0], cut[-1]) == (text[0], text[-1])
    assert (cut == text) == (length <= texts.CONTEXT_MAX)


def test_a_log_names_action_and_path_first_and_is_cut_behind() -> None:
    body = MemoryLog(file_path="a/b.py", action="save", content="x" * 16_000)
    text = texts.log_text(body)
    assert text.startswith("save a/b.py\nxxx")
    assert len(text) == texts.INPUT_MAX
    assert texts.log_text(MemoryLog(file_path="a", action="run")) == "run a"


def test_tags_say_what_and_from_where() -> None:
    assert texts.log_tags("debug") == ["debug", "vscode", "mcp"]


def test_metadata_is_one_line_of_json_and_not_endless() -> None:
    assert texts.metadata_text({"a": 1, "b": "ü\x00"}) == '{"a":1,"b":"ü\\u0000"}'
    with pytest.raises(ValueError, match="at most 8000"):
        texts.metadata_text({"a": "x" * 9000})


def test_a_summary_has_a_line_for_each_memory() -> None:
    memory = ContextMemory(
        id=uuid4(), content="first\n\nline " * 40, tier="ltm", confidence_score=None, created_at=datetime.now(UTC)
    )
    assert texts.context_summary("a.py", []) == "Nothing is remembered about a.py yet."
    lines = texts.context_summary("a.py", [memory, memory]).splitlines()
    assert lines[0] == "2 memories about a.py:"
    assert len(lines) == 3
    assert len(lines[1]) <= texts.SUMMARY_LINE + 2
