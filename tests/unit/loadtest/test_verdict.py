"""A run passes only when everything was sent, nothing failed and nothing was slow."""

from __future__ import annotations

from dataclasses import replace

from loadtest.verdict import Figures, as_table, faults

GOOD = Figures("chat", requests=100, errors=0, p50_ms=90, p95_ms=400, p99_ms=800, per_second=1.7)


def test_a_clean_run_has_no_fault() -> None:
    assert faults([GOOD], expected=["chat"]) == []


def test_one_error_is_a_fault() -> None:
    assert faults([replace(GOOD, errors=1)], expected=["chat"]) == ["chat: 1 of 100 requests failed"]


def test_a_p95_at_the_limit_is_a_fault() -> None:
    found = faults([replace(GOOD, p95_ms=2000)], expected=["chat"])
    assert found == ["chat: p95 is 2000 ms, the limit is 2000 ms"]


def test_an_operation_that_was_never_sent_is_a_fault() -> None:
    assert faults([GOOD], expected=["chat", "health"]) == ["health: no request was sent"]


def test_the_table_is_aligned() -> None:
    lines = as_table([GOOD, replace(GOOD, name="memory search", p95_ms=12345)]).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[1].split() == ["chat", "100", "0", "90", "400", "800", "1.7"]
