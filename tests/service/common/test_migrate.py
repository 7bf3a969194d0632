"""`novacore migrate` on a real Postgres."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
from dataclasses import replace

import asyncpg
import pytest

from novacore.migrations import runner
from novacore_contracts.paths import Paths
from novacore_contracts.services import SCHEMAS
from tests.kit.keys import put
from tests.service.conftest import ROLES


@pytest.mark.invariant("MIGRATE-3")
async def test_a_second_run_applies_nothing(admin_conn):
    before = await admin_conn.fetch("SELECT * FROM ops.schema_migrations ORDER BY 1, 2")

    assert await runner.apply(admin_conn, roles=ROLES, say=lambda _: None) == 0

    assert await admin_conn.fetch("SELECT * FROM ops.schema_migrations ORDER BY 1, 2") == before


@pytest.mark.invariant("MIGRATE-2")
async def test_refuses_a_file_that_changed_after_it_was_applied(admin_conn):
    steps = [replace(step, sql=step.sql + "\n-- later") if step.version == 1 else step for step in runner.plan()]

    with pytest.raises(runner.MigrationError, match="was changed after it was applied"):
        await runner.apply(admin_conn, roles=ROLES, say=lambda _: None, steps=steps)


async def test_a_failed_file_leaves_nothing_behind(admin_conn):
    bad = runner.Step("auth", 99, "0099_bad.sql", "CREATE TABLE auth.half (id int); SELECT no_such_function();")

    with pytest.raises(runner.MigrationError, match=r"auth/0099_bad\.sql"):
        await runner.apply(admin_conn, roles=ROLES, say=lambda _: None, steps=[bad])

    assert await admin_conn.fetchval("SELECT to_regclass('auth.half')") is None
    assert await admin_conn.fetchval("SELECT count(*) FROM ops.schema_migrations WHERE version = 99") == 0


@pytest.mark.parametrize("schema", SCHEMAS)
async def test_every_schema_has_outbox_and_idempotency_of_the_migrator(admin_conn, schema):
    owners = await admin_conn.fetch("SELECT tablename, tableowner FROM pg_tables WHERE schemaname = $1", schema)

    found = {row["tablename"]: row["tableowner"] for row in owners}
    assert {"outbox", "idempotency"} <= found.keys()
    assert set(found.values()) == {"nova_migrator"}


@pytest.mark.invariant("MIGRATE-4")
@pytest.mark.parametrize("schema", SCHEMAS)
async def test_no_role_reads_another_schema(postgres_server, database, schema):
    conn = await asyncpg.connect(
        host=postgres_server.host, port=postgres_server.port, user=f"nova_{schema}_a", database=database
    )
    try:
        for other in SCHEMAS:
            if other == schema:
                await conn.fetchval(f"SELECT count(*) FROM {other}.outbox")
            else:
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await conn.fetchval(f"SELECT count(*) FROM {other}.outbox")
    finally:
        await conn.close()


async def test_a_role_not_of_this_release_is_refused(admin_conn):
    roles = [{"name": "postgres", "member_of": "nova_auth", "scram": ROLES[0]["scram"]}]

    with pytest.raises(runner.MigrationError, match="not a role this release knows"):
        await runner.apply(admin_conn, roles=roles, say=lambda _: None)


async def test_says_which_pgvector_it_found_when_it_is_too_old(admin_conn):
    with pytest.raises(runner.MigrationError, match=r"pgvector is 0\.8\.\d+, at least 99\.0\.0 is needed"):
        await runner.apply(admin_conn, roles=ROLES, say=lambda _: None, pgvector_min=(99, 0, 0))


@pytest.mark.invariant("MIGRATE-1")
async def test_a_second_runner_waits_for_the_first(admin_conn, postgres_server, database):
    other = await postgres_server.connect(database)
    await other.execute("SELECT pg_advisory_lock($1)", runner.LOCK_KEY)
    said: list[str] = []
    waiting = asyncio.ensure_future(runner.apply(admin_conn, roles=ROLES, say=said.append))
    async with asyncio.timeout(10):
        while not said:
            await asyncio.sleep(0.01)
    assert said == ["another migration is running: waiting for it"]
    assert not waiting.done()

    await other.close()

    async with asyncio.timeout(20):
        assert await waiting == 0


async def test_a_changed_verifier_is_written_and_an_equal_one_is_not(admin_conn):
    changed = [{**ROLES[0], "scram": ROLES[0]["scram"].replace("C" * 43, "D" * 43)}]

    await runner.apply(admin_conn, roles=changed, say=lambda _: None, steps=[])
    try:
        stored = await admin_conn.fetchval("SELECT rolpassword FROM pg_authid WHERE rolname = $1", ROLES[0]["name"])
        assert stored == changed[0]["scram"]
    finally:
        await runner.apply(admin_conn, roles=ROLES, say=lambda _: None, steps=[])


async def test_waits_for_postgres_and_gives_up_with_the_next_step(tmp_path):
    paths = Paths(tmp_path)
    admin = {"host": str(tmp_path), "port": 5432, "database": "x", "user": "postgres", "sslmode": "disable"}
    put(paths.migration / "admin.json", json.dumps(admin))
    put(paths.migration / "roles.json", json.dumps({"roles": ROLES}))
    said: list[str] = []

    with pytest.raises(runner.MigrationError, match=r"did not answer within 0 s .* delete the Job"):
        await runner.migrate(paths, say=said.append, deadline_s=0.4)

    assert said[0].startswith("waiting for Postgres at")


@pytest.mark.parametrize(
    "scram", ["plain password", "SCRAM-SHA-256$4096:AAAA$BBBB:CCCC", "md5abc", "x'; DROP ROLE postgres"]
)
async def test_a_role_without_a_scram_verifier_is_refused(admin_conn, scram):
    with pytest.raises(runner.MigrationError, match="no SCRAM-SHA-256 verifier") as caught:
        await runner.apply(admin_conn, roles=[{**ROLES[0], "scram": scram}], say=lambda _: None)

    assert scram not in str(caught.value)


# --- roles that the user made ---------------------------------------------------------------------------------------

TEAM = {f"nova_{schema}": f"team_{schema}" for schema in SCHEMAS}


@pytest.fixture
async def team(postgres_server, template_database):
    """An empty database and its administrator, and roles made by hand as docs/guides/install.md has it."""
    name = f"team_{secrets.token_hex(4)}"
    admin = await postgres_server.connect()
    await admin.execute(f"CREATE DATABASE {name}")
    conn = await postgres_server.connect(name)
    for login in ("team_migrate", *TEAM.values()):
        await conn.execute(f"CREATE ROLE {login} LOGIN")
    await conn.execute(f"GRANT CREATE ON DATABASE {name} TO nova_migrator")
    await conn.execute("GRANT nova_migrator TO team_migrate")
    for group, login in TEAM.items():
        await conn.execute(f"GRANT {group} TO {login}")
    await conn.execute("CREATE EXTENSION vector SCHEMA public")
    yield name, conn
    await conn.close()
    await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    for login in ("team_migrate", *TEAM.values()):
        await admin.execute(f"DROP ROLE {login}")
    await admin.close()


async def as_user(server, database, user):
    return await asyncpg.connect(host=server.host, port=server.port, user=user, database=database)


async def migrate_as_team(server, database):
    conn = await as_user(server, database, "team_migrate")
    try:
        return await runner.apply(conn, roles=[], given=TEAM, say=lambda _: None)
    finally:
        await conn.close()


@pytest.mark.invariant("MIGRATE-3")
@pytest.mark.invariant("MIGRATE-4")
async def test_migrates_without_the_right_to_make_roles(postgres_server, team):
    name, admin = team
    before = await admin.fetch("SELECT rolname, rolcreaterole FROM pg_roles ORDER BY 1")

    assert await migrate_as_team(postgres_server, name) == len(runner.plan())
    assert await migrate_as_team(postgres_server, name) == 0

    assert await admin.fetch("SELECT rolname, rolcreaterole FROM pg_roles ORDER BY 1") == before
    auth = await as_user(postgres_server, name, "team_auth")
    assert await auth.fetchval("SELECT count(*) FROM auth.users") == 0
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await auth.fetchval("SELECT count(*) FROM chat.sessions")
    await auth.close()
    owners = await admin.fetch("SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = ANY($1)", list(SCHEMAS))
    assert [row["tableowner"] for row in owners] == ["nova_migrator"]


@pytest.mark.parametrize(
    ("undo", "remedy"),
    [
        ("REVOKE nova_auth FROM team_auth", 'GRANT nova_auth TO "team_auth"'),
        ("REVOKE nova_migrator FROM team_migrate", 'GRANT nova_migrator TO "team_migrate"'),
        ("REVOKE CREATE ON DATABASE {name} FROM nova_migrator", 'GRANT CREATE ON DATABASE "{name}" TO nova_migrator'),
        ("GRANT nova_chat TO team_auth", 'REVOKE nova_chat FROM "team_auth"'),
        ("ALTER ROLE team_memory BYPASSRLS", "without SUPERUSER and BYPASSRLS"),
        ("DROP EXTENSION vector", "CREATE EXTENSION vector SCHEMA public"),
    ],
)
async def test_says_which_statement_an_administrator_has_to_run(postgres_server, team, undo, remedy):
    name, admin = team
    await admin.execute(undo.format(name=name))

    with pytest.raises(runner.MigrationError, match=re.escape(remedy.format(name=name))):
        await migrate_as_team(postgres_server, name)
    assert await admin.fetchval("SELECT to_regnamespace('auth')") is None, "nothing is begun"
