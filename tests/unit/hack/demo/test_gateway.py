"""The demo's HTTP client reads event streams as browsers do and waits only for what may come."""

from __future__ import annotations

import pytest

from hack.demo.gateway import Gateway, events, retry_after
from hack.demo.terminal import Deadline, DemoError


def test_an_event_is_yielded_at_its_blank_line() -> None:
    lines = [b"id: 1-0\n", b'data: {"content":"a"}\n', b"\n", b": keep-alive\n", b"\n", b'data: {"done":true}\n', b"\n"]
    assert list(events(lines)) == [{"content": "a"}, {"done": True}]


def test_several_data_lines_are_one_event() -> None:
    assert list(events([b'data: {"content":\r\n', b'data: "a"}\r\n', b"\r\n"])) == [{"content": "a"}]


def test_a_last_event_without_a_blank_line_counts() -> None:
    assert list(events([b'data: {"done":true}\n'])) == [{"done": True}]


def test_text_that_is_no_json_object_is_an_empty_event() -> None:
    assert list(events([b"data: [DONE]\n", b"\n"])) == [{}]


@pytest.mark.parametrize(("header", "expected"), [("3", 3.0), (None, None), ("Wed, 21 Oct 2026 07:28:00 GMT", None)])
def test_retry_after_is_read_in_seconds(header: str | None, expected: float | None) -> None:
    assert retry_after(header) == expected


@pytest.mark.parametrize("url", ["", "127.0.0.1:5000", "ftp://127.0.0.1", "http://"])
def test_what_is_no_url_is_refused_as_bad_input(url: str) -> None:
    with pytest.raises(DemoError) as refused:
        Gateway(url, Deadline(1))
    assert refused.value.exit_code == 64


def test_nobody_listening_is_one_sentence_after_the_deadline() -> None:
    with pytest.raises(DemoError, match=r"no answer at http://127\.0\.0\.1:9 within 0 s"):
        Gateway("http://127.0.0.1:9", Deadline(0)).wait_until_up()
