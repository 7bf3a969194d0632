"""Distillation against the real memory, on real Postgres and Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from novacore.common.peers import PeerError
from novacore.distillation_worker import now as now_module
from novacore.distillation_worker import repository
from novacore.distillation_worker.tasks import Schedule
from tests.kit.harness import RunningService
from tests.kit.keys import TestUser
from tests.kit.peers import StubPeer


@pytest.fixture
async def memory(client_for: Any) -> AsyncIterator[RunningService]:
    billing = StubPeer("auth-billing").on("POST", "/internal/quota/adjust", (200, {}))
    settings = {"embeddings": {"provider": "hash"}, "sweep_seconds": 3600}
    async with client_for("memory", settings=settings, peers={"auth-billing": billing}, listen=True) as running:
        yield running


@pytest.fixture
async def worker(client_for: Any, memory: RunningService) -> AsyncIterator[RunningService]:
    # 00:00: the slot of today is over, so the schedule does not start a run of its own
    async with client_for(
        "distillation-worker", peers={"memory": memory.internal_url}, settings={"schedule": "00:00"}
    ) as running:
        yield running


async def reflect(memory: RunningService, user: TestUser, improve: str, **changes: Any) -> UUID:
    body = {
        "run_id": str(uuid4()), "self_assessment": "I tried.", "alignment_score": 0.9, "emotional_weight": 0.8,
        "improvement_notes": improve, "metadata": {"answers": {"improve": improve}},
    } | changes  # fmt: skip
    headers = memory.headers(service="reflection-worker", act_for=user.id)
    answer = await memory.internal.post("/internal/memory/reflections", json=body, headers=headers)
    assert answer.status_code == 201, answer.text
    return UUID(answer.json()["id"])


async def principles(memory: RunningService, user: TestUser) -> list[str]:
    context = (await memory.public.get("/memory/context", headers=memory.headers(user))).json()
    return [row["principle"] for row in context["principles"]]


async def test_each_users_reflections_become_his_principle_once(
    worker: RunningService, memory: RunningService, make_user: Any, admin_conn: Any
) -> None:
    """W22: users never mix, a second run adds nothing, the principle is in the next context."""
    anna, bert, carl = [await make_user() for _ in range(3)]
    sources = {await reflect(memory, anna, "Cite sources."), await reflect(memory, anna, "Be brief.")}
    for _ in range(2):
        await reflect(memory, bert, "Ask first.")
    await reflect(memory, carl, "Alone.")
    report = await worker.service.run()
    assert report.result == "ok"
    assert (report.counts.users, report.counts.reflections, report.counts.stored, report.counts.rejected) == (
        3,
        5,
        2,
        1,
    )
    assert await principles(memory, anna) == ["Cite sources. Be brief."]
    assert await principles(memory, bert) == ["Ask first."]
    assert await principles(memory, carl) == []
    row = await admin_conn.fetchrow("SELECT * FROM memory.distilled_knowledge WHERE user_id = $1", anna.id)
    assert set(row["source_reflections"]) == sources
    again = await worker.service.run()
    assert (again.result, again.counts.reflections, again.counts.stored, again.counts.duplicate) == ("ok", 0, 0, 0)
    assert await admin_conn.fetchval("SELECT count(*) FROM memory.distilled_knowledge") == 2
    runs = await admin_conn.fetch("SELECT result, counts, ended_at FROM distill.runs ORDER BY started_at")
    assert [run["result"] for run in runs] == ["ok", "ok"]
    assert runs[0]["counts"]["stored"] == 2
    metrics = worker.platform.metrics
    assert metrics.value("novacore_distillation_runs_total", result="ok") == 2
    assert metrics.value("novacore_principles_total", result="stored") == 2
    assert metrics.value("novacore_distillation_last_success_timestamp_seconds") > 0


async def test_more_than_a_page_is_read_page_by_page(
    worker: RunningService, memory: RunningService, make_user: Any, admin_conn: Any
) -> None:
    user = await make_user()
    for n in range(230):
        await reflect(memory, user, f"Lesson {n % 7}.")
    report = await worker.service.run()
    assert (report.counts.reflections, report.counts.stored) == (230, 3)
    sizes = await admin_conn.fetch(
        "SELECT cardinality(source_reflections) AS n FROM memory.distilled_knowledge ORDER BY created_at"
    )
    assert [row["n"] for row in sizes] == [100, 100, 30]
    mark = await admin_conn.fetchrow("SELECT * FROM distill.watermarks")
    assert mark["page_until_at"] is None
    assert mark["last_id"] == await admin_conn.fetchval(
        "SELECT id FROM memory.reflections ORDER BY created_at DESC LIMIT 1"
    )


@pytest.mark.invariant("DISTIL-5")
async def test_a_run_killed_before_the_watermark_moved_is_taken_over_without_duplicates(
    worker: RunningService, memory: RunningService, make_user: Any, admin_conn: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DISTIL-6: more reflections arrive between the kill and the next run; the page begun keeps its end."""
    user = await make_user()
    for _ in range(2):
        await reflect(memory, user, "Be brief.")

    class Killed(BaseException):
        pass

    async def killed(*_arguments: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(repository, "end_page", killed)
        with pytest.raises(Killed):
            await worker.service.run()
    assert await principles(memory, user) == ["Be brief."]
    for _ in range(2):
        await reflect(memory, user, "Cite sources.")
    report = await worker.service.run()
    assert (report.result, report.counts.duplicate, report.counts.stored) == ("ok", 1, 1)
    assert sorted(await principles(memory, user)) == ["Be brief.", "Cite sources."]
    results = await admin_conn.fetch("SELECT result FROM distill.runs ORDER BY started_at")
    assert [row["result"] for row in results] == ["error", "ok"]


async def test_a_begun_page_whose_reflections_are_gone_is_closed(
    worker: RunningService, make_user: Any, memory: RunningService, admin_conn: Any
) -> None:
    user = await make_user()
    await reflect(memory, user, "a")
    await admin_conn.execute(
        "INSERT INTO distill.watermarks (user_id, page_until_at, page_until_id) VALUES ($1, now() - interval '1 day', $2)",
        user.id, uuid4(),
    )  # fmt: skip
    report = await worker.service.run()
    assert (report.result, report.counts.reflections) == ("ok", 1)


async def test_of_three_runs_at_once_one_works(
    worker: RunningService, memory: RunningService, make_user: Any, admin_conn: Any
) -> None:
    """DISTIL-4."""
    user = await make_user()
    for _ in range(2):
        await reflect(memory, user, "Be brief.")
    reports = await asyncio.gather(*(worker.service.run() for _ in range(3)))
    assert sorted(report.result for report in reports) == ["ok", "skipped", "skipped"]
    assert await admin_conn.fetchval("SELECT count(*) FROM memory.distilled_knowledge") == 1
    assert (await worker.service.run()).result == "ok"  # the lock is free again


async def test_a_contradiction_supersedes(
    worker: RunningService, memory: RunningService, make_user: Any, admin_conn: Any
) -> None:
    user = await make_user()
    for _ in range(2):
        await reflect(memory, user, "Be brief.")
    await worker.service.run()
    for score, emotion in ((0.7, -0.9), (0.7, -0.9)):
        await reflect(memory, user, "Be brief.", alignment_score=score, emotional_weight=emotion)
    report = await worker.service.run()
    assert (report.counts.stored, report.counts.superseded) == (1, 1)
    rows = await admin_conn.fetch(
        "SELECT outcome, valid_to IS NULL AS in_force FROM memory.distilled_knowledge ORDER BY created_at"
    )
    assert [tuple(row) for row in rows] == [("success", False), ("failure", True)]


async def test_promotes_and_purges_on_the_way(
    worker: RunningService, memory: RunningService, make_user: Any, admin_conn: Any
) -> None:
    user = await make_user()
    ids = []
    for n in range(3):
        body = {"type": "lesson", "input_context": f"m{n}", "tier": "itm"}
        ids.append((await memory.public.post("/memory/store", json=body, headers=memory.headers(user))).json()["id"])
    await admin_conn.execute("UPDATE memory.memories SET access_count = 3 WHERE id = $1", ids[0])
    await admin_conn.execute("UPDATE memory.memories SET expires_at = now() WHERE id = $1", ids[1])
    report = await worker.service.run()
    assert (report.counts.promoted, report.counts.purged) == (1, 1)
    rows = await admin_conn.fetch("SELECT id, tier FROM memory.memories")
    assert {str(row["id"]): row["tier"] for row in rows} == {ids[0]: "ltm", ids[2]: "itm"}


async def test_a_failing_user_stops_nobody_else_and_a_silent_memory_is_an_error(
    client_for: Any, memory: RunningService, make_user: Any, monkeypatch: pytest.MonkeyPatch, admin_conn: Any
) -> None:
    users = sorted([await make_user() for _ in range(2)], key=lambda user: user.id)
    for user in users:
        for _ in range(2):
            await reflect(memory, user, "Be brief.")
    async with client_for(
        "distillation-worker", peers={"memory": memory.internal_url}, settings={"schedule": "00:00"}
    ) as worker:
        call = worker.platform.peers.call

        async def failing(peer: str, method: str, path: str, **options: Any) -> Any:
            if path.endswith("/distilled") and options["act_for"] == users[0].id:
                raise PeerError("memory", 503, "not_ready")
            return await call(peer, method, path, **options)

        with monkeypatch.context() as patch:
            patch.setattr(worker.platform.peers, "call", failing)
            report = await worker.service.run()
        assert (report.result, report.counts.users_failed, report.counts.stored) == ("partial", 1, 1)
        assert await principles(memory, users[1]) == ["Be brief."]
        assert (await worker.service.run()).counts.stored == 1  # the one left behind
        assert await principles(memory, users[0]) == ["Be brief."]
    away = StubPeer("memory")
    async with client_for("distillation-worker", peers={"memory": away}, settings={"schedule": "00:00"}) as worker:
        assert (await worker.service.run()).result == "error"
    assert await admin_conn.fetchval("SELECT count(*) FROM distill.runs WHERE result = 'running'") == 0


async def test_the_command_runs_it_at_once(client_for: Any, memory: RunningService, make_user: Any, keys: Any) -> None:
    user = await make_user()
    for _ in range(2):
        await reflect(memory, user, "Be brief.")
    peers = {"memory": memory.internal_url}
    async with client_for("distillation-worker", peers=peers, settings={"schedule": "00:00"}, listen=True) as worker:
        line = await now_module.distill_now(f"{worker.internal_url}/internal/distill/run")
        assert '"result": "ok"' in line
        assert '"stored": 1' in line
        elsewhere = httpx.ASGITransport(app=worker.apps.internal, client=("10.1.2.3", 4444))
        async with httpx.AsyncClient(transport=elsewhere, base_url="http://pod") as client:
            answer = await client.post("/internal/distill/run", headers={"X-Forwarded-For": "127.0.0.1"})
            assert answer.status_code == 403
    with pytest.raises(SystemExit, match="does not answer"):
        await now_module.distill_now("http://127.0.0.1:1/internal/distill/run")


class Wound:
    """A clock the test sets."""

    def __init__(self, at: datetime) -> None:
        self.at = at

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return 0.0


async def test_the_schedule_runs_once_a_day_and_makes_up_for_a_missed_slot(
    worker: RunningService, memory: RunningService, admin_conn: Any
) -> None:
    clock = Wound(datetime(2030, 1, 1, 12, tzinfo=UTC))
    worker.service._clock = clock
    platform = worker.platform

    def schedule() -> Schedule:
        settings = platform.settings.model_copy(update={"schedule": "02:00"})
        return Schedule(
            db=platform.db,
            distiller=worker.service,
            settings=settings,
            metrics=platform.metrics,
            clock=clock,
            draining=platform.draining,
        )

    first = schedule()
    assert await first.tick() is False  # fresh: the first slot is the next one
    clock.at += timedelta(hours=14)  # 02:00
    assert await first.tick() is True
    assert await first.tick() is False
    clock.at += timedelta(days=1, hours=5)  # the pod was away at the slot
    second = schedule()
    assert await second.tick() is True
    assert await second.tick() is False
    assert await admin_conn.fetchval("SELECT count(*) FROM distill.runs") == 2
