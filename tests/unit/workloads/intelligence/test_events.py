"""Stream entries and server-sent events."""

from __future__ import annotations

import asyncio
import json

import pytest

from novacore.intelligence.endpoints import frames
from novacore.intelligence.events import COMMENT, RunEvent, from_entry, sse, stream_order, valid_stream_id


def data_of(frame: bytes) -> dict:
    line = next(line for line in frame.decode().splitlines() if line.startswith("data: "))
    return json.loads(line[6:])


def test_a_chunk_is_content_not_yet_done():
    frame = sse(RunEvent("chunk", {"i": 0, "text": "Hello\nyou", "tokens": 3}, "17-1"))
    assert frame is not None
    assert frame.startswith(b"id: 17-1\ndata: ")
    assert frame.endswith(b"\n\n")
    assert data_of(frame) == {"content": "Hello\nyou", "done": False}


@pytest.mark.parametrize(
    "event",
    [
        RunEvent("start", {"run_id": "r", "session_id": "s", "model": "m"}, "1-1"),
        RunEvent("policy", {"action": "warn", "rule_ids": ["x"]}, "1-2"),
        RunEvent("usage", {"prompt": 1, "completion": 2, "reserved": 9, "settled": 3}, "1-3"),
    ],
)
def test_extra_events_do_not_disturb_a_naive_reader(event):
    data = data_of(sse(event) or b"")
    assert data["content"] == ""
    assert data["done"] is False
    assert event.data.items() <= data.items()


def test_the_end_says_all_there_is_to_know():
    end = {"status": "done", "session_id": "s", "run_id": "r", "tokens_used": 7, "latency_ms": 12}
    assert data_of(sse(RunEvent("end", end, "1-9")) or b"") == {"content": "", "done": True, **end}


def test_a_failed_end_is_an_error_and_the_end_in_one():
    end = {"status": "failed", "run_id": "r", "code": "provider_error", "detail": "The model provider failed."}
    data = data_of(sse(RunEvent("end", end, "1-9")) or b"")
    assert data["done"] is True
    assert data["code"] == "provider_error"
    assert data["error"] == "The model provider failed."
    assert sse(RunEvent("error", {"code": "provider_error"}, "1-8")) is None, "it would end the stream twice"


def test_an_entry_comes_back_as_it_went():
    event = RunEvent("chunk", {"i": 1, "text": "zwölf 🎉"}, "5-1")
    assert from_entry("5-1", event.fields()) == event
    assert from_entry(b"5-1", {k.encode(): v.encode() for k, v in event.fields().items()}) == event


@pytest.mark.parametrize(
    "fields", [{}, {"event": "chunk"}, {"event": "odd", "data": "{}"}, {"event": "end", "data": "["}]
)
def test_a_foreign_entry_is_passed_over(fields):
    assert from_entry("1-1", fields) is None


def test_stream_ids_sort_as_numbers():
    assert stream_order("9-2") < stream_order("10-1") < stream_order("10-12")


@pytest.mark.parametrize(("value", "valid"), [("17-3", True), ("", False), ("$", False), ("1-1 OR 1", False)])
def test_only_ids_of_ours_are_taken_as_last_event_id(value, valid):
    assert valid_stream_id(value) is valid


async def test_a_comment_is_sent_while_nothing_comes():
    go = asyncio.Event()

    async def events():
        await go.wait()
        yield RunEvent("end", {"status": "done"}, "1-1")

    stream = frames(events(), comment_every_s=0.02)
    assert await anext(stream) == COMMENT
    go.set()
    rest = [frame async for frame in stream]
    assert data_of(rest[-1])["done"] is True


async def test_a_reader_that_leaves_closes_the_events():
    closed = asyncio.Event()

    async def events():
        try:
            yield RunEvent("chunk", {"i": 0, "text": "a"}, "1-1")
            await asyncio.Event().wait()
        finally:
            closed.set()

    stream = frames(events(), comment_every_s=0.01)
    await anext(stream)
    await anext(stream)  # a comment: the generator is waiting inside now
    await stream.aclose()
    await asyncio.wait_for(closed.wait(), 2)
