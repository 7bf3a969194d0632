"""Log lines: their fields, and what never gets in."""

from __future__ import annotations

import io
import json
from uuid import UUID

import pytest

from novacore.common import context
from novacore.common import log as log_

USER = UUID(int=7)


@pytest.fixture
def lines():
    out = io.StringIO()
    log_._state.out = out
    log_._state.repeats.clear()
    log_.configure(service="memory", version="1", level="info", key=b"k" * 32)
    yield lambda: [json.loads(line) for line in out.getvalue().splitlines()]
    log_._state.out = None


def test_a_line_has_the_fixed_fields_and_the_requests_ids(lines):
    with context.bind(request_id="request-0001", user_id=USER):
        log_.get_logger().info("thing_done", ms=3)

    line = lines()[0]
    assert {
        "ts",
        "level",
        "service",
        "version",
        "pod",
        "event",
        "request_id",
        "trace_id",
        "span_id",
        "user",
        "ms",
    } == set(line)
    assert line["request_id"] == "request-0001"


@pytest.mark.invariant("LOG-1")
@pytest.mark.parametrize(
    "name", ["email", "password", "token", "prompt", "body", "reply", "query", "sql", "authorization"]
)
def test_values_of_forbidden_fields_are_refused(lines, name):
    log_.get_logger().info("oops", **{name: "canary-4711"})

    assert lines()[0][name] == "[refused]"
    assert "canary-4711" not in json.dumps(lines())


@pytest.mark.invariant("LOG-1")
def test_a_person_appears_only_as_a_keyed_hash(lines):
    with context.bind(user_id=USER):
        log_.get_logger().info("x")

    assert lines()[0]["user"] == log_.user_hash(USER)
    assert len(lines()[0]["user"]) == 16
    assert str(USER) not in json.dumps(lines())


def test_a_repeated_error_is_written_once_a_minute(lines):
    for _ in range(100):
        log_.get_logger().error("store_down", reason="ConnectionError")

    assert len(lines()) == 1


def test_levels_below_the_threshold_are_not_written(lines):
    log_.get_logger().debug("x")

    assert lines() == []


def test_libraries_speak_through_our_lines_without_their_values(lines):
    import logging

    logging.getLogger("some.library").warning("cannot reach %s", "canary-4711")

    assert lines()[0]["event"] == "library"
    assert "canary-4711" not in json.dumps(lines())
