"""Rows belong to their user, whatever the code says; and no query walks a whole table of users."""

from __future__ import annotations

import re
from pathlib import Path

import asyncpg
import pytest

TABLES = ("sessions", "runs", "prompts")
USER, OTHER = "00000000-0000-0000-0000-00000000000a", "00000000-0000-0000-0000-00000000000b"


@pytest.fixture
async def filled(admin_conn):
    """Two users with rows enough for the planner to prefer an index."""
    for number, user_id in enumerate((USER, OTHER)):
        await admin_conn.execute(
            "INSERT INTO auth.users (id, email, password_hash, role, subscription_tier)"
            " VALUES ($1, $2, 'x', 'student', 'pro')", user_id, f"u{number}@example.org",
        )  # fmt: skip
        await admin_conn.execute(
            "INSERT INTO chat.sessions (user_id, model_name) SELECT $1, 'm' FROM generate_series(1, 500)", user_id
        )
        await admin_conn.execute(
            "INSERT INTO chat.runs (session_id, user_id, provider, model, hold_id, reserved_tokens, remember, replica, request_id,"
            " status, ended_at) SELECT id, user_id, 'echo', 'm', gen_random_uuid(), 1, true, 'r', 'q', 'done', now()"
            " FROM chat.sessions WHERE user_id = $1", user_id,
        )  # fmt: skip
        await admin_conn.execute(
            "INSERT INTO chat.prompts (run_id, session_id, user_id, input_text)"
            " SELECT id, session_id, user_id, 'hi' FROM chat.runs WHERE user_id = $1", user_id,
        )  # fmt: skip
    await admin_conn.execute("ANALYZE chat.sessions, chat.runs, chat.prompts")
    return admin_conn


@pytest.fixture
async def as_service(filled, postgres_server, database):
    conn = await asyncpg.connect(
        host=postgres_server.host, port=postgres_server.port, user="nova_chat_a", database=database
    )
    yield conn
    await conn.close()


@pytest.mark.parametrize("table", TABLES)
async def test_no_user_set_means_no_rows(as_service, table):
    assert await as_service.fetchval(f"SELECT count(*) FROM chat.{table}") == 0


@pytest.mark.parametrize("table", TABLES)
async def test_a_user_sees_and_changes_his_own_rows_alone(as_service, table):
    async with as_service.transaction():
        await as_service.execute("SELECT set_config('app.user_id', $1, true)", USER)
        assert await as_service.fetchval(f"SELECT count(*) FROM chat.{table}") == 500
        assert await as_service.fetchval(f"SELECT count(*) FROM chat.{table} WHERE user_id = $1", OTHER) == 0
        assert await as_service.execute(f"DELETE FROM chat.{table} WHERE user_id = $1", OTHER) == "DELETE 0"
    assert await as_service.fetchval(f"SELECT count(*) FROM chat.{table}") == 0, "the setting ends with its transaction"


async def test_a_row_cannot_be_written_for_another(as_service):
    await as_service.execute("SELECT set_config('app.user_id', $1, false)", USER)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await as_service.execute("INSERT INTO chat.sessions (user_id, model_name) VALUES ($1, 'm')", OTHER)


async def test_work_across_users_goes_through_the_named_functions_alone(admin_conn):
    rows = await admin_conn.fetch(
        "SELECT proname, proconfig, has_function_privilege('public', p.oid, 'EXECUTE') AS open FROM pg_proc AS p"
        " JOIN pg_namespace AS n ON n.oid = p.pronamespace WHERE nspname = 'chat' AND prosecdef"
    )
    names = {row["proname"] for row in rows}
    assert names - {"sweep_common"} == {"beat", "stale_runs", "claim_owing", "abandon_idle_sessions"}
    for row in rows:
        assert any(setting.startswith("search_path=pg_catalog") for setting in row["proconfig"]), row["proname"]
        if row["proname"] != "sweep_common":
            assert not row["open"], row["proname"]


STATEMENTS = [
    "SELECT status FROM chat.sessions WHERE id = $1 AND user_id = $1",
    "SELECT id FROM chat.sessions WHERE user_id = $1 ORDER BY created_at DESC, id LIMIT 50",
    "SELECT id FROM chat.prompts WHERE session_id = $1 AND user_id = $1 ORDER BY created_at DESC, id DESC LIMIT 100",
    "SELECT id FROM chat.runs WHERE id = $1 AND user_id = $1",
    "UPDATE chat.prompts SET output_text = '' WHERE run_id = $1 AND user_id = $1",
    "SELECT id FROM chat.runs WHERE status IN ('queued', 'running') AND heartbeat_at < now() AND $1::uuid IS NOT NULL"
    " ORDER BY heartbeat_at LIMIT 20",
    "SELECT id FROM chat.runs WHERE follow_up_at <= now() AND $1::uuid IS NOT NULL ORDER BY follow_up_at LIMIT 20",
]


@pytest.mark.parametrize("statement", STATEMENTS)
async def test_no_query_walks_a_whole_table(filled, statement):
    plan = await filled.fetch(f"EXPLAIN {statement.replace('$1', repr(USER) + '::uuid')}")
    text = "\n".join(row[0] for row in plan)
    assert "Seq Scan" not in text, text


def test_every_statement_on_a_user_table_names_the_user():
    source = Path("workloads/src/novacore/intelligence/repository.py").read_text()
    statements = re.findall(r"\(\s*((?:\"[^\"]*\"\s*)+),", source)
    on_tables = [text for text in statements if re.search(r"(FROM|UPDATE|INTO) chat\.(sessions|runs|prompts)\b", text)]
    assert len(on_tables) >= 12
    assert [text for text in on_tables if "user_id" not in text] == []
