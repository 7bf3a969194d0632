"""`novacore migrate`: roles, schemas, tables and seeds, by one Job before a roll-out.

Invariants: MIGRATE-1 one runner at a time (advisory lock); MIGRATE-2 a file that was applied never changes (checksum);
MIGRATE-3 a second run changes nothing; MIGRATE-4 no role reads another role's schema.
Objects belong to `nova_migrator`. Passwords are not here: `roles.json` carries SCRAM verifiers made by the operator, or
names the logins that the user made; then no role is made or changed, and what is missing is told as statements.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib
import importlib.util
import json
import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

import asyncpg

from novacore.common.database import init_connection, verified_tls
from novacore.common.migrations import FILE_NAME
from novacore.common.redis import Redis, RedisError, verified_redis
from novacore_contracts.paths import Paths
from novacore_contracts.releases import PGVECTOR_MIN, POSTGRES_MIN
from novacore_contracts.services import DATABASE, MIGRATOR_ROLE, SCHEMAS, SERVICES

LOCK_KEY = 0x6E6F7661  # "nova"
LOCK_RETRIES = 20
CONNECT_DEADLINE_S = 300.0
REDIS_TIMEOUT_S = 5.0
REDIS_MIN = 7
COMMON_VERSION = 0
NO_TRANSACTION = "-- novacore: no transaction"
"""First line of a file with CREATE INDEX CONCURRENTLY: one statement, outside of a transaction."""
SEED_ORDER = tuple(
    next(service.module for service in SERVICES if service.schema == schema)
    for schema in ("auth", "chat", "memory", "policy", "ngs", "distill")
)

VERIFIER = re.compile(r"SCRAM-SHA-256\$[0-9]+:[A-Za-z0-9+/]+={0,2}\$[A-Za-z0-9+/]{43}=:[A-Za-z0-9+/]{43}=")

Say = Callable[[str], None]


class MigrationError(Exception):
    """Migration cannot go on. The message says what was found, what was expected, and what to do."""


@dataclass(frozen=True, slots=True)
class Step:
    """One SQL file of one schema."""

    schema: str
    version: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the text."""
        return hashlib.sha256(self.sql.encode()).hexdigest()

    @property
    def transactional(self) -> bool:
        """Whether it may run inside a transaction."""
        return not self.sql.startswith(NO_TRANSACTION)


def plan(root: Traversable | None = None) -> tuple[Step, ...]:
    """Return all steps in order. MigrationError when a number is missing or taken twice."""
    root = root or files("novacore.migrations")
    common = root.joinpath("common.sql").read_text()
    steps: list[Step] = []
    for schema in SCHEMAS:
        own = _files_of(root, schema)
        shared = Step(schema, COMMON_VERSION, "common.sql", common.replace(":schema", schema))
        at = 1 if schema == "auth" else 0  # its foreign key needs auth.users
        steps += [*own[:at], shared, *own[at:]]
    return tuple(steps)


def _files_of(root: Traversable, schema: str) -> list[Step]:
    folder = root.joinpath(schema)
    if not folder.is_dir():
        return []
    found: list[Step] = []
    for entry in folder.iterdir():
        if entry.name.endswith(".sql"):
            match = FILE_NAME.fullmatch(entry.name)
            if match is None:
                raise MigrationError(f"{schema}/{entry.name}: expected a name like 0001_what.sql")
            found.append(Step(schema, int(match[1]), entry.name, entry.read_text()))
    found.sort(key=lambda step: step.version)
    if [step.version for step in found] != list(range(1, len(found) + 1)):
        raise MigrationError(f"{schema}: numbers must run 1, 2, 3 …; found {[step.version for step in found]}")
    return found


async def migrate(paths: Paths, *, say: Say, deadline_s: float = CONNECT_DEADLINE_S) -> int:
    """Bring the database to this release's level and return how many steps that took.

    A Redis that somebody else runs is tried first: nothing else would, before the services need it.
    """
    await try_redis(paths, say=say)
    admin = json.loads((paths.migration / "admin.json").read_text())
    document = json.loads((paths.migration / "roles.json").read_text())
    insecure = admin.get("sslmode") == "disable"
    conn = await _connect(
        {
            "host": admin["host"], "port": int(admin["port"]), "user": admin["user"], "password": admin.get("password"),
            "database": admin.get("database", DATABASE), "ssl": False if insecure else verified_tls(paths),
        },
        say=say, deadline_s=deadline_s,
    )  # fmt: skip
    try:
        return await apply(conn, roles=document["roles"], given=document.get("given"), say=say)
    finally:
        await conn.close()


async def try_redis(paths: Paths, *, say: Say) -> None:
    """Use each Redis of `redis.json` as the services will. MigrationError when one would not do."""
    file = paths.migration / "redis.json"
    for login in json.loads(file.read_text())["logins"] if file.exists() else ():
        where = f"{login['name']} at {login['host']}:{login['port']}"
        redis = verified_redis(paths, login, timeout_s=REDIS_TIMEOUT_S)
        try:
            say(f"{where}: {await _try(redis, login['name'])}")
        except (RedisError, OSError, TimeoutError) as error:
            raise MigrationError(
                f"{where} cannot be used by {login['user']!r} ({type(error).__name__}: {error}):"
                " mend the Secret, the user's ACL rules or the certificate"
            ) from None
        finally:
            await redis.aclose()


async def _try(redis: Redis, name: str) -> str:
    """Return version and way of eviction, having run one command of each sort that the services use."""
    key = f"nova:try:{secrets.token_hex(8)}"
    async with redis.pipeline(transaction=True) as pipe:
        pipe.xadd(key, {"e": "{}"})
        pipe.expire(key, 60)
        pipe.publish("auth:revoked", "{}")
        await pipe.execute()
    await redis.eval("return redis.call('DEL', KEYS[1])", 1, key)
    info: dict[str, Any] = await redis.info("everything")
    version = parse_version(str(info.get("redis_version", "0")))
    if version[:1] < (REDIS_MIN,):
        raise MigrationError(f"{name} is Redis {info.get('redis_version')}, at least {REDIS_MIN} is needed: upgrade it")
    eviction = str(info.get("maxmemory_policy", "unknown"))
    if name == "redis" and eviction.startswith("allkeys"):
        raise MigrationError(
            f"{name} evicts by {eviction}, streams would be lost: set its maxmemory-policy to noeviction"
        )
    return f"version {info['redis_version']}, eviction {eviction}"


async def apply(
    conn: asyncpg.Connection[Any],
    *,
    roles: Sequence[dict[str, str]],
    given: Mapping[str, str] | None = None,
    say: Say,
    steps: Sequence[Step] | None = None,
    pgvector_min: tuple[int, ...] = PGVECTOR_MIN,
) -> int:
    """Apply what is missing over an administrator's connection; return how many steps were applied.

    `given`: schema's role -> login role, all of which somebody else made. The connection is then the migrator's, who
    may make schemas and no roles.
    """
    await init_connection(conn)
    await conn.execute("SET client_min_messages = warning")
    if not await conn.fetchval("SELECT pg_try_advisory_lock($1)", LOCK_KEY):
        say("another migration is running: waiting for it")
        await conn.execute("SELECT pg_advisory_lock($1)", LOCK_KEY)
    try:
        await conn.execute("SET lock_timeout = '3s'")
        await _check_server(conn, pgvector_min, say=say)
        await _foundation(conn, roles, given)
        await init_connection(conn)  # the vector codecs exist only now
        applied = 0
        known = await _known(conn)
        for step in steps if steps is not None else plan():
            applied += await _apply_step(conn, step, known, say=say)
        await _seed(conn, say=say)
        say(f"done: {applied} applied, {len(known)} were there")
        return applied
    finally:
        await conn.execute("RESET ROLE")
        await conn.execute("SELECT pg_advisory_unlock($1)", LOCK_KEY)


async def _connect(target: dict[str, Any], *, say: Say, deadline_s: float) -> asyncpg.Connection[Any]:
    started = time.monotonic()
    while True:
        try:
            conn: asyncpg.Connection[Any] = await asyncpg.connect(**target, timeout=5)
            return conn
        except (OSError, TimeoutError, asyncpg.CannotConnectNowError, asyncpg.InvalidCatalogNameError) as error:
            waited = time.monotonic() - started
            if waited > deadline_s:
                raise MigrationError(
                    f"Postgres at {target['host']}:{target['port']} did not answer within {deadline_s:.0f} s"
                    f" ({type(error).__name__}). Look at its pod, then delete the Job: the operator makes it again."
                ) from None
            say(f"waiting for Postgres at {target['host']}:{target['port']}: {type(error).__name__}, {waited:.0f} s")
            await asyncio.sleep(min(5.0, 0.5 + waited / 10))


async def _check_server(conn: asyncpg.Connection[Any], pgvector_min: tuple[int, ...], *, say: Say) -> None:
    version = int(await conn.fetchval("SHOW server_version_num")) // 10_000
    if version < POSTGRES_MIN:
        raise MigrationError(f"Postgres is version {version}, at least {POSTGRES_MIN} is needed: upgrade the server")
    try:
        await conn.execute("CREATE EXTENSION IF NOT EXISTS vector SCHEMA public")
    except asyncpg.InsufficientPrivilegeError:
        raise MigrationError(
            "the extension vector is missing and this user may not make it:"
            " run as an administrator of this database: CREATE EXTENSION vector SCHEMA public; then delete the Job"
        ) from None
    found = str(await conn.fetchval("SELECT extversion FROM pg_extension WHERE extname = 'vector'"))
    wanted = ".".join(map(str, pgvector_min))
    if parse_version(found) < pgvector_min:
        # The library on disk may be newer than the extension in this database.
        await conn.execute("ALTER EXTENSION vector UPDATE")
        found = str(await conn.fetchval("SELECT extversion FROM pg_extension WHERE extname = 'vector'"))
    if parse_version(found) < pgvector_min:
        raise MigrationError(
            f"pgvector is {found}, at least {wanted} is needed: install it on the server and run again"
        )
    say(f"Postgres {version}, pgvector {found}")


def parse_version(text: str) -> tuple[int, ...]:
    """Return a version's numbers: "0.8.4" is (0, 8, 4)."""
    return tuple(int(part) for part in re.findall(r"\d+", text))


async def _foundation(
    conn: asyncpg.Connection[Any], roles: Sequence[dict[str, str]], given: Mapping[str, str] | None
) -> None:
    """Make roles, schemas and the table of applied files. Every statement is harmless the second time."""
    async with conn.transaction():
        if given is None:
            await _make_roles(conn, roles)
        else:
            await _check_roles(conn, given)
        for schema in ("ops", *SCHEMAS):
            await conn.execute(f"CREATE SCHEMA IF NOT EXISTS {schema} AUTHORIZATION {MIGRATOR_ROLE}")
        await conn.execute(f"SET LOCAL ROLE {MIGRATOR_ROLE}")
        await conn.execute(
            "CREATE TABLE IF NOT EXISTS ops.schema_migrations (schema text NOT NULL, version int NOT NULL,"
            " name text NOT NULL, checksum text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now(),"
            " ms int NOT NULL, PRIMARY KEY (schema, version))"
        )
        # By default privileges, not by a grant at the end: a file may take back what a table must not allow
        # (UPDATE on an append-only ledger), and the next run would give it again.
        await conn.execute("ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC")
        for schema in SCHEMAS:
            await _defaults(conn, schema)


async def _make_roles(conn: asyncpg.Connection[Any], roles: Sequence[dict[str, str]]) -> None:
    admin = str(await conn.fetchval("SELECT current_user"))
    await _role(conn, MIGRATOR_ROLE)
    await conn.execute(f"GRANT {MIGRATOR_ROLE} TO {_quoted(admin)}")
    for schema in SCHEMAS:
        await _role(conn, f"nova_{schema}")
    for role in roles:
        await _login_role(conn, role)
    database = _quoted(str(await conn.fetchval("SELECT current_database()")))
    await conn.execute(f"GRANT CREATE ON DATABASE {database} TO {MIGRATOR_ROLE}")
    await conn.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")


async def _check_roles(conn: asyncpg.Connection[Any], given: Mapping[str, str]) -> None:
    """Find what an administrator has not made yet, or made too large. MigrationError with the statements to run."""
    database = str(await conn.fetchval("SELECT current_database()"))
    unmade = await _unmade(conn, given, database)
    if unmade:
        raise MigrationError(
            f"roles are missing in {database}: run as its administrator: {'; '.join(unmade)};"
            " then delete the Job: the operator makes it again"
        )
    for group, login in given.items():
        if await conn.fetchval("SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = $1", login):
            raise MigrationError(f"{login} sees the rows of every user: make it a role without SUPERUSER and BYPASSRLS")
        for other in sorted(set(given) - {group}):
            if await _is_member(conn, login, other):
                raise MigrationError(
                    f"{login} may use {other} besides {group}: one service could read what another owns;"
                    f" run as the administrator: REVOKE {other} FROM {_quoted(login)}"
                )


async def _unmade(conn: asyncpg.Connection[Any], given: Mapping[str, str], database: str) -> list[str]:
    """Return the statements that make what is missing."""
    groups = (MIGRATOR_ROLE, *(f"nova_{schema}" for schema in SCHEMAS))
    rows = await conn.fetch("SELECT rolname FROM pg_roles WHERE rolname = ANY($1)", list(groups))
    known = {row["rolname"] for row in rows}
    unmade = [f"CREATE ROLE {group} NOLOGIN" for group in groups if group not in known]
    members = {MIGRATOR_ROLE: str(await conn.fetchval("SELECT current_user")), **given}
    for group, login in members.items():
        if not await _is_member(conn, login, group):
            unmade.append(f"GRANT {group} TO {_quoted(login)}")
    may_create = "SELECT has_database_privilege(rolname, $2, 'CREATE') FROM pg_roles WHERE rolname = $1"
    if not await conn.fetchval(may_create, MIGRATOR_ROLE, database):
        unmade.append(f"GRANT CREATE ON DATABASE {_quoted(database)} TO {MIGRATOR_ROLE}")
    return unmade


async def _is_member(conn: asyncpg.Connection[Any], login: str, group: str) -> bool:
    """Return whether a role has another one's rights. False while one of the two does not exist."""
    found = await conn.fetchval(
        "SELECT pg_has_role(a.oid, b.oid, 'USAGE') FROM pg_roles a, pg_roles b WHERE a.rolname = $1 AND b.rolname = $2",
        login,
        group,
    )
    return bool(found)


async def _defaults(conn: asyncpg.Connection[Any], schema: str) -> None:
    """What the migrator will make in a schema is usable by that schema's role, and by no other."""
    role, default = f"nova_{schema}", f"ALTER DEFAULT PRIVILEGES IN SCHEMA {schema} GRANT"
    await conn.execute(f"{default} SELECT, INSERT, UPDATE, DELETE ON TABLES TO {role}")
    await conn.execute(f"{default} USAGE, SELECT ON SEQUENCES TO {role}")
    await conn.execute(f"{default} EXECUTE ON FUNCTIONS TO {role}")
    await conn.execute(f"GRANT USAGE ON SCHEMA ops, {schema} TO {role}")
    await conn.execute(f"GRANT SELECT ON ops.schema_migrations TO {role}")


async def _role(conn: asyncpg.Connection[Any], name: str) -> None:
    if not await conn.fetchval("SELECT true FROM pg_roles WHERE rolname = $1", name):
        await conn.execute(f"CREATE ROLE {_quoted(name)} NOLOGIN")


async def _login_role(conn: asyncpg.Connection[Any], role: dict[str, str]) -> None:
    """Make a login role with its SCRAM verifier, a member of its schema's role. Only what differs is written."""
    name, group, verifier = role["name"], role["member_of"], role["scram"]
    if group not in {f"nova_{schema}" for schema in SCHEMAS} or not re.fullmatch(r"nova_[a-z]+_[ab]", name):
        raise MigrationError(f"roles.json: {name!r} as a member of {group!r} is not a role this release knows")
    if VERIFIER.fullmatch(verifier) is None:  # Postgres would take anything else for a password and hash it
        raise MigrationError(f"roles.json: the entry of {name} carries no SCRAM-SHA-256 verifier")
    if not await conn.fetchval("SELECT true FROM pg_roles WHERE rolname = $1", name):
        await conn.execute(f"CREATE ROLE {_quoted(name)} LOGIN INHERIT PASSWORD '{verifier}'")
    elif await _verifier_of(conn, name) != verifier:
        await conn.execute(f"ALTER ROLE {_quoted(name)} LOGIN INHERIT PASSWORD '{verifier}'")
    if not await conn.fetchval("SELECT pg_has_role($1, $2, 'MEMBER')", name, group):
        await conn.execute(f"GRANT {_quoted(group)} TO {_quoted(name)}")


async def _verifier_of(conn: asyncpg.Connection[Any], name: str) -> str | None:
    try:
        async with conn.transaction():
            value = await conn.fetchval("SELECT rolpassword FROM pg_authid WHERE rolname = $1", name)
    except asyncpg.InsufficientPrivilegeError:
        return None  # a managed Postgres hides it: write it again, with the same value
    return str(value) if value is not None else None


async def _known(conn: asyncpg.Connection[Any]) -> dict[tuple[str, int], str]:
    rows = await conn.fetch("SELECT schema, version, checksum FROM ops.schema_migrations")
    return {(row["schema"], row["version"]): row["checksum"] for row in rows}


async def _apply_step(
    conn: asyncpg.Connection[Any], step: Step, known: dict[tuple[str, int], str], *, say: Say
) -> bool:
    checksum = known.get((step.schema, step.version))
    if checksum is not None:
        if checksum != step.checksum:
            raise MigrationError(
                f"{step.schema}/{step.name} was changed after it was applied (checksum differs):"
                " restore the file and put the change into a new one"
            )
        return False
    for attempt in range(1, LOCK_RETRIES + 1):
        try:
            milliseconds = await _run(conn, step)
        except asyncpg.LockNotAvailableError:
            say(f"{step.schema}/{step.name}: waiting for a lock, attempt {attempt} of {LOCK_RETRIES}")
            await asyncio.sleep(min(5.0, 0.2 * attempt))
        except asyncpg.PostgresError as error:
            raise MigrationError(f"{step.schema}/{step.name}: {type(error).__name__}: {error}") from error
        else:
            say(f"{step.schema}/{step.name}: applied in {milliseconds} ms")
            return True
    raise MigrationError(f"{step.schema}/{step.name}: a table stayed locked; end the long transaction and run again")


async def _run(conn: asyncpg.Connection[Any], step: Step) -> int:
    """Run one file and note it, in one transaction where the file allows it; return the milliseconds."""
    started = time.monotonic()
    if not step.transactional:
        await conn.execute(f"SET ROLE {MIGRATOR_ROLE}")
        try:
            await conn.execute(step.sql)
            return await _note(conn, step, started)
        finally:
            await conn.execute("RESET ROLE")
    async with conn.transaction():
        await conn.execute(f"SET LOCAL ROLE {MIGRATOR_ROLE}")
        await conn.execute(step.sql)
        return await _note(conn, step, started)


async def _note(conn: asyncpg.Connection[Any], step: Step, started: float) -> int:
    milliseconds = round((time.monotonic() - started) * 1000)
    await conn.execute(
        "INSERT INTO ops.schema_migrations (schema, version, name, checksum, ms) VALUES ($1, $2, $3, $4, $5)",
        step.schema, step.version, step.name, step.checksum, milliseconds,
    )  # fmt: skip
    return milliseconds


async def _seed(conn: asyncpg.Connection[Any], *, say: Say) -> None:
    """Run `async def seed(conn)` of each service that has one; they go by natural key, so again is harmless."""
    for module in SEED_ORDER:
        if importlib.util.find_spec(f"novacore.{module}") is None:
            continue
        if importlib.util.find_spec(f"novacore.{module}.seed") is None:
            continue
        seed = importlib.import_module(f"novacore.{module}.seed").seed
        async with conn.transaction():
            await conn.execute(f"SET LOCAL ROLE {MIGRATOR_ROLE}")
            await seed(conn)
        say(f"{module}: seeds are in place")


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
