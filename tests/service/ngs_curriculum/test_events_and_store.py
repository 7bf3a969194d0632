"""The stream of user events, the seed, row-level security, and who may call."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from novacore.common.streams import Envelope
from novacore.ngs_curriculum.seed import seed
from tests.service.ngs_curriculum.conftest import Ngs, until

STREAM = "stream:outbox:auth"


def envelope(type_: str, payload: dict[str, Any]) -> dict[str, str]:
    return {"e": Envelope(type=type_, payload=payload).model_dump_json()}


async def test_a_registered_user_gets_a_progress_row(
    ngs: Ngs, make_user: Any, admin_conn: Any, redis_client: Any
) -> None:
    user = await make_user()
    for _ in range(2):  # delivered twice is made once
        redis_client.xadd(
            STREAM, envelope("user.registered", {"user_id": str(user.id), "tier": "pro", "role": "student"})
        )
    query = "SELECT count(*) FROM ngs.user_progress WHERE user_id = $1"
    await until(lambda: admin_conn.fetchval(query, user.id), "a progress row")
    await until(
        lambda: ngs.running.platform.metrics.value("novacore_jobs_total", job="user_events", result="ok") == 2,
        "both done",
    )
    assert await admin_conn.fetchval(query, user.id) == 1
    path = await admin_conn.fetchval(
        "SELECT p.name FROM ngs.user_learning_paths u JOIN ngs.learning_paths p ON p.id = u.learning_path_id"
        " WHERE u.user_id = $1",
        user.id,
    )
    assert path == "The way of the twenty-four"


async def test_what_cannot_be_handled_goes_to_the_dead_letters(ngs: Ngs, redis_client: Any) -> None:
    redis_client.xadd(STREAM, envelope("user.registered", {"tier": "pro"}))
    redis_client.xadd(STREAM, envelope("user.vanished", {}))
    redis_client.xadd(STREAM, envelope("tier.changed", {"user_id": str(uuid4()), "tier": "pro"}))
    redis_client.xadd(STREAM, envelope("user.registered", {"user_id": str(uuid4())}))  # gone since: no error
    done = ngs.running.platform.metrics.value
    await until(lambda: redis_client.xlen(f"{STREAM}:dead") == 2, "two dead letters")
    await until(lambda: done("novacore_jobs_total", job="user_events", result="ok") == 2, "two done")


async def test_a_second_seed_changes_nothing(admin_conn: asyncpg.Connection[Any]) -> None:
    async def rows() -> list[Any]:
        found: list[Any] = []
        for table in ("curriculum_levels", "lessons", "challenges", "learning_paths"):
            found += await admin_conn.fetch(f"SELECT id::text, xmin::text FROM ngs.{table} ORDER BY id")
        return found

    before = await rows()
    await seed(admin_conn)
    assert await rows() == before
    counts = await admin_conn.fetchrow(
        "SELECT (SELECT count(*) FROM ngs.curriculum_levels) AS levels, (SELECT count(*) FROM ngs.lessons) AS lessons,"
        " (SELECT count(*) FROM ngs.challenges) AS challenges,"
        " (SELECT count(*) FROM ngs.learning_paths WHERE is_default) AS paths"
    )
    assert dict(counts) == {"levels": 24, "lessons": 24, "challenges": 24, "paths": 1}


async def test_a_seed_mends_what_differs_and_keeps_ids(admin_conn: asyncpg.Connection[Any]) -> None:
    before = await admin_conn.fetchval("SELECT id FROM ngs.lessons WHERE slug = 'mirror-mechanics'")
    await admin_conn.execute("UPDATE ngs.lessons SET title = 'old', quiz = '[]' WHERE slug = 'mirror-mechanics'")
    await seed(admin_conn)
    row = await admin_conn.fetchrow(
        "SELECT id, title, jsonb_array_length(quiz) AS n FROM ngs.lessons WHERE slug = 'mirror-mechanics'"
    )
    assert (row["id"], row["title"], row["n"]) == (before, "Mirror Mechanics", 5)


async def test_rows_of_others_are_out_of_sight_and_reach(
    ngs: Ngs, make_user: Any, postgres_server: Any, database: str
) -> None:
    one, other = await make_user(), await make_user()
    await ngs.complete(one, 1)
    await ngs.progress(other)
    conn = await asyncpg.connect(
        host=postgres_server.host, port=postgres_server.port, user="nova_ngs_a", database=database
    )
    try:
        tables = [
            row["relname"]
            for row in await conn.fetch(
                "SELECT c.relname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid WHERE a.attname = 'user_id'"
                " AND c.relkind = 'r' AND c.relnamespace = 'ngs'::regnamespace"
            )
        ]
        assert len(tables) == 9
        for table in tables:
            assert await conn.fetchval(f"SELECT count(*) FROM ngs.{table}") == 0, table
        async with conn.transaction():
            await conn.execute("SELECT set_config('app.user_id', $1, true)", str(other.id))
            assert await conn.fetchval("SELECT count(*) FROM ngs.lesson_completions") == 0
            changed = await conn.execute("UPDATE ngs.user_progress SET total_xp = 1 WHERE user_id = $1", one.id)
            assert changed == "UPDATE 0"
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await conn.execute(
                    "INSERT INTO ngs.xp_events (user_id, source, source_id, xp_awarded, created_at)"
                    " VALUES ($1, 'unknown', 'x', 10, now())",
                    one.id,
                )
    finally:
        await conn.close()


async def test_only_the_named_functions_look_across_users(admin_conn: asyncpg.Connection[Any]) -> None:
    rows = await admin_conn.fetch(
        "SELECT proname, proconfig FROM pg_proc WHERE pronamespace = 'ngs'::regnamespace AND prosecdef ORDER BY proname"
    )
    assert [row["proname"] for row in rows] == ["leaderboard", "sweep_common"]
    assert all(any(option.startswith("search_path=") for option in row["proconfig"]) for row in rows)


async def test_every_route_needs_both_tokens(ngs: Ngs, make_user: Any) -> None:
    """W1: forged headers, no token, a user token alone, another service: 401 or 403."""
    user = await make_user()
    forged = {"X-User-Id": str(user.id), "X-User-Role": "admin", "X-Act-For": str(user.id)}
    routes = [
        (method.upper(), path.format(number=1, lesson_id=uuid4(), challenge_id=uuid4()))
        for path, methods in ngs.running.apps.public.openapi()["paths"].items()
        for method in methods
        if path not in ("/", "/health")
    ]
    assert len(routes) == 17
    for method, path in routes:
        for headers in (forged, user.headers | forged, ngs.headers() | forged, ngs.headers(user, service="memory")):
            answer = await ngs.running.public.request(method, path, headers=headers, json={})
            assert answer.status_code in (401, 403), (method, path, answer.status_code)


async def test_someone_elses_rows_never_appear_in_lists(ngs: Ngs, make_user: Any) -> None:
    one, other = await make_user(), await make_user()
    await ngs.complete(one, 1)
    task = await ngs.challenge_of(one)
    await ngs.post(one, f"/ngs/challenges/{task['id']}/submit", {"submission_code": "nothing"})
    for path in ("/ngs/achievements", "/ngs/challenges/submissions", "/ngs/reflections"):
        assert (await ngs.get(other, path)).json() == []
    assert (await ngs.lesson_of(other))["completed"] is False


async def test_readiness_and_health_tell_of_the_stores(ngs: Ngs) -> None:
    ready = await ngs.running.internal.get("/readyz")
    assert ready.status_code == 200, ready.text
    assert (await ngs.running.public.get("/health")).json()["service"] == "ngs-curriculum"
