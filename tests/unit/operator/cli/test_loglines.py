"""Log lines: read, followed, printed."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacore_operator.cli.loglines import Line, carries, in_order, parse, readable, record

AT = "2026-03-01T12:00:00.000Z"


def test_a_prefixed_json_line_is_taken_apart() -> None:
    line = parse('[pod/novacore-memory-x/memory] {"ts": "' + AT + '", "event": "stored", "n": 3}')
    assert (line.pod, line.container, line.at) == ("novacore-memory-x", "memory", AT)
    assert line.fields["n"] == 3


@given(st.text(max_size=100))
def test_any_text_is_a_line(text: str) -> None:
    line = parse(f"[pod/a/b] {text}")
    assert (line.pod, line.container, line.text) == ("a", "b", text)
    assert record(line)


def test_an_id_is_followed_in_any_field_but_not_in_part_of_one() -> None:
    for field in ("request_id", "run_id", "trace_id"):
        assert carries(parse(json.dumps({"event": "x", field: "abc"})), "abc")
    assert not carries(parse(json.dumps({"event": "x", "request_id": "abcd"})), "abc")
    assert not carries(parse("plain text with abc"), "abc")


@given(st.lists(st.tuples(st.sampled_from("pq"), st.none() | st.integers(0, 9)), max_size=20))
def test_lines_come_in_order_of_time_and_plain_text_stays_behind_its_line(spoken: list[tuple[str, int | None]]) -> None:
    lines = [
        Line(pod, "c", str(number), {} if second is None else {"ts": f"2026-03-01T12:00:0{second}.000Z"})
        for number, (pod, second) in enumerate(spoken)
    ]
    ordered = in_order(lines)
    assert sorted(line.text for line in ordered) == sorted(line.text for line in lines)
    times = [line.at for line in ordered if line.at]
    assert times == sorted(times)


def test_a_line_is_readable_at_a_glance() -> None:
    fields = {
        "ts": "2026-03-01T12:34:56.789Z", "level": "warning", "service": "memory", "version": "0.1.0", "pod": "p",
        "event": "slow", "request_id": "r-1", "trace_id": "t", "ms": 1200, "route": "/api/x", "user": None,
    }  # fmt: skip
    line = parse(json.dumps(fields))
    head = "12:34:56.789 WARNING memory              slow"
    assert readable(line).plain == f"{head} request_id=r-1 ms=1200 route=/api/x"
    assert readable(line, followed=True).plain == f"{head} ms=1200 route=/api/x"


def test_a_stack_stands_below_its_line() -> None:
    error = {"type": "ValueError", "stack": "Traceback:\n  File x\n"}
    text = readable(parse(json.dumps({"event": "failed", "error": error}))).plain
    assert text.splitlines()[0].endswith("failed ValueError")
    assert text.splitlines()[1:] == ["    Traceback:", "      File x"]


def test_plain_text_keeps_its_words() -> None:
    assert readable(parse("[pod/novacore-postgres-0/postgres] LOG: ready")).plain == f"{'postgres':19} LOG: ready"


@pytest.mark.parametrize("key", ["event", "level", "service", "ts", "other"])
@given(text=st.text(max_size=20))
def test_no_line_drives_the_terminal(key: str, text: str) -> None:
    shown = readable(parse(json.dumps({"event": "e", key: f"{text}\x1b[2J\x07\r"}))).plain
    assert not any((ord(char) < 32 and char not in "\n\t") or 127 <= ord(char) < 160 for char in shown)
