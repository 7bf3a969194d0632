"""Ids, context, metrics, tasks, errors, stream names, migration plan, command line."""

from __future__ import annotations

import asyncio
import uuid

import pytest
from fastapi import APIRouter, FastAPI
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from novacore.cli import main
from novacore.common import context, errors
from novacore.common.callers import bearer, public, undeclared_routes
from novacore.common.idempotency import checked_key
from novacore.common.ids import REQUEST_ID, TRACEPARENT, continue_trace, uuid7
from novacore.common.metrics import Metrics, UnknownMetricError
from novacore.common.middleware import UNMATCHED, route_template
from novacore.common.streams import Envelope, stream_of
from novacore.common.tasks import Supervisor
from novacore.migrations import runner
from novacore_contracts.releases import CURRENT


def test_uuid7_is_version_7_and_rises_with_time():
    made = [uuid7() for _ in range(100)]

    assert {one.version for one in made} == {7}
    assert {one.variant for one in made} == {uuid.RFC_4122}
    assert [one.int >> 80 for one in made] == sorted(one.int >> 80 for one in made)
    assert REQUEST_ID.fullmatch(str(made[0]))


@given(st.text(max_size=80))
def test_a_trace_is_always_well_formed(given_parent):
    assert TRACEPARENT.fullmatch(continue_trace(given_parent))


def test_a_valid_trace_is_continued_with_a_span_of_our_own():
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    mine = continue_trace(parent)

    assert mine.split("-")[1] == parent.split("-")[1]
    assert mine.split("-")[2] != parent.split("-")[2]


def test_context_ends_with_its_block():
    with context.bind(request_id="request-0001", deadline_s=10):
        assert context.request_id() == "request-0001"
        assert 9 < context.deadline_remaining_s() <= 10
    assert context.current() is None
    assert context.deadline_remaining_s() is None


def test_metrics_come_from_the_registry_alone():
    metrics = Metrics("memory")

    assert metrics.counter("novacore_memory_operations_total")
    for name in ("novacore_made_up_total", "novacore_logins_total"):
        with pytest.raises(UnknownMetricError):
            metrics.counter(name)
    with pytest.raises(UnknownMetricError):
        metrics.gauge("novacore_memory_operations_total")


def test_enumerated_counters_exist_from_the_start_with_zero():
    body = Metrics("auth-billing").expose("")[0].decode()

    assert 'novacore_logins_total{result="ok"} 0.0' in body
    assert "_created" not in body


def test_a_label_over_its_bound_becomes_other():
    metrics = Metrics("memory")
    got = [metrics.bounded("http_requests_total", "route", f"/r{n}") for n in range(40)]

    assert len(set(got)) == 25
    assert got[-1] == "other"
    assert metrics.bounded("http_requests_total", "route", "/r3") == "/r3"


def test_exemplars_travel_in_openmetrics():
    metrics = Metrics("memory")
    metrics.histogram("http_request_duration_seconds").labels("GET", "/x", "interactive").observe(
        0.1, {"trace_id": "a" * 32}
    )

    assert 'trace_id="aaaa' in metrics.expose("application/openmetrics-text")[0].decode()


async def test_a_crashed_loop_starts_again():
    runs, done = [], asyncio.Event()

    async def loop():
        runs.append(1)
        if len(runs) < 3:
            raise RuntimeError("crash")
        done.set()

    async def no_pause(_seconds):
        await asyncio.sleep(0)

    supervisor = Supervisor(sleep=no_pause)
    supervisor.spawn("x", loop)
    async with supervisor, asyncio.timeout(5):
        await done.wait()

    assert supervisor.crashes == {"x": 2}


async def test_loops_end_with_the_supervisor():
    ended = []

    async def loop():
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(1)

    async with Supervisor() as supervisor:
        supervisor.spawn("x", loop)
        await asyncio.sleep(0)

    assert ended == [1]


def test_a_route_without_a_declared_caller_is_found_however_deep():
    app, outer, inner = FastAPI(), APIRouter(prefix="/a"), APIRouter(prefix="/b")

    @inner.get("/open")
    async def open_() -> None: ...

    @inner.get("/closed", dependencies=[public()])
    async def closed() -> None: ...

    outer.include_router(inner)
    app.include_router(outer)

    assert undeclared_routes(app) == ["GET /a/b/open"]


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic abc", "abc"])
def test_only_a_bearer_header_carries_a_token(header):
    assert bearer(header) is None
    assert bearer("bearer abc") == "abc"


def test_the_template_of_nothing_is_not_the_raw_path():
    assert route_template({"path": "/secret/123"}) == UNMATCHED


def test_a_problem_has_every_field_old_and_new_clients_read():
    import json

    with context.bind(request_id="request-0001"):
        body = json.loads(errors.problem(errors.not_found(), instance="/x").body)

    assert {"type", "title", "status", "detail", "instance", "code", "request_id", "error"} <= set(body)
    assert body["error"] == body["detail"]
    assert body["request_id"] == "request-0001"


@pytest.mark.parametrize("key", ["", "x" * 129, "a\nb", "é"])
def test_an_idempotency_key_is_1_to_128_printable_characters(key):
    with pytest.raises(errors.ServiceError):
        checked_key(key)


def test_reflections_have_one_stream_and_all_else_its_schemas():
    assert stream_of("reflection.requested", "chat") == "stream:reflection"
    assert stream_of("usage.settle", "chat") == "stream:outbox:chat"


def test_an_envelope_refuses_unknown_fields():
    with pytest.raises(ValidationError):
        Envelope(type="x", payload={}, surprise=1)


def test_the_plan_numbers_files_without_a_gap_and_auths_common_tables_come_after_its_users():
    steps = runner.plan()
    auth = [step.name for step in steps if step.schema == "auth"]

    assert auth[1] == "common.sql"
    for schema in {step.schema for step in steps} - {"auth"}:
        assert next(step.version for step in steps if step.schema == schema) == 0


def test_a_gap_in_the_numbers_is_refused(tmp_path):
    (tmp_path / "common.sql").write_text("")
    (tmp_path / "auth").mkdir()
    (tmp_path / "auth/0002_later.sql").write_text("")

    with pytest.raises(runner.MigrationError, match="numbers must run"):
        runner.plan(tmp_path)


def test_versions_compare_by_number():
    assert runner.parse_version("0.8.10") > runner.parse_version("0.8.4")


@pytest.mark.parametrize("argv", [[], ["serve"], ["serve", "nope"], ["dance"], ["dead-letters", "show", "nope", "1-0"]])
def test_wrong_arguments_are_one_line_and_exit_64(argv, capsys):
    with pytest.raises(SystemExit) as caught:
        main(argv)

    assert caught.value.code == 64
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("argv", [["serve", "memory"], ["migrate"]])
def test_an_image_of_another_release_ends_at_once_and_says_so(argv, capsys):
    with pytest.raises(SystemExit) as caught:
        main([*argv, "--release=0.1.9"])

    assert caught.value.code == 78
    assert capsys.readouterr().err == (
        f"novacore: the image is release {CURRENT}, not 0.1.9: push the right image under that tag\n"
    )


def test_help_names_every_service(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])

    assert "reflection-worker" in capsys.readouterr().out


async def test_a_loop_that_swallows_one_cancellation_still_ends():
    swallowed = []

    async def stubborn():
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if swallowed:
                    raise
                swallowed.append(1)

    async with asyncio.timeout(10), Supervisor() as supervisor:
        supervisor.spawn("x", stubborn)
        await asyncio.sleep(0)

    assert swallowed == [1]
