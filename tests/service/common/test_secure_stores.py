"""The stores as the operator configures them take verified TLS and their users only; clients verify whom they talk to.

What the operator mints is what is mounted here, byte for byte, wherever the place may be this machine's.
"""

from __future__ import annotations

import asyncio
import secrets
import shutil
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from redis.asyncio import Redis as PlainRedis

from novacore.common.clock import SystemClock
from novacore.common.database import Database
from novacore.common.keyring import KeyRings
from novacore.common.metrics import Metrics
from novacore.common.redis import RedisError, build_redis
from novacore.common.settings import CommonSettings
from novacore.migrations.runner import MigrationError, try_redis
from novacore_contracts.paths import Paths
from novacore_contracts.services import DATABASE
from novacore_operator.rotation import mint
from novacore_operator.state import Material, PostgresAdmin, RedisLogin, names, stores
from tests.kit.keys import put
from tests.kit.securestores import HOST, Secure, minted, secure_postgres, secure_redis

SHOP = "shop"
WORD = "a-password-that-somebody-chose"
WHOLE = "~* &* +@all -@admin -@dangerous +info"


@pytest.fixture(scope="module")
def material() -> Material:
    """Keys and passwords of an installation with every store of its own."""
    return minted()


@contextmanager
def folder() -> Iterator[Path]:
    """A folder that a server under another user can reach."""
    made = Path(tempfile.mkdtemp(prefix="nova-secure-"))
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def redis(material: Material) -> Iterator[Secure]:
    with folder() as made:
        users = {SHOP: f">{WORD} {WHOLE}", "narrow": f">{WORD} ~shop:* +@all -@admin -@dangerous +info"}
        with secure_redis(made, material=material, more_users=users) as running:
            yield running


@pytest.fixture(scope="module")
def cache(material: Material) -> Iterator[Secure]:
    with folder() as made:
        users = {SHOP: f">{WORD} {WHOLE}"}
        with secure_redis(made, material=material, store=stores.CACHE, more_users=users) as running:
            yield running


@pytest.fixture(scope="module")
def postgres(material: Material) -> Iterator[Secure]:
    with folder() as made, secure_postgres(made, material=material) as running:
        yield running


def login(redis: Secure, *, user: str = SHOP, password: str = WORD, host: str = HOST, ca: str = "") -> RedisLogin:
    return RedisLogin(host, redis.port, user, password, ca or redis.ca)


def mounted(root: Path, setting: mint.Setting, service: str) -> tuple[Paths, Material]:
    """Mount what the operator mints for one service and for the migration."""
    made = mint.complete({}, setting, now=datetime.now(UTC), entropy=secrets.token_bytes)
    paths = Paths(root)
    put(paths.keyset_root / "root.jwks", mint.root_jwks(made, setting.namespace))
    put(paths.ca / "ca.crt", mint.ca_bundle(made, setting))
    for name, content in made[names.creds(service)].items():
        put(paths.creds / name, content)
    for name, content in made[names.MIGRATE_CREDS].items():
        put(paths.migration / name, content)
    return paths, made


def client_of(paths: Paths, **options: Any) -> Any:
    metrics = Metrics("memory")
    keyrings = KeyRings(paths, SystemClock(), metrics)
    keyrings.load()
    return build_redis(paths=paths, keyrings=keyrings, settings=CommonSettings(), metrics=metrics, **options)


@asynccontextmanager
async def plain(redis: Secure, **options: Any) -> Any:
    client = PlainRedis(host=HOST, port=redis.port, socket_timeout=3, decode_responses=True, **options)
    yield client
    await client.aclose()


def verified(redis: Secure, tmp_path: Path) -> dict[str, Any]:
    put(tmp_path / "ca.crt", redis.ca)
    return {"ssl": True, "ssl_cert_reqs": "required", "ssl_ca_certs": str(tmp_path / "ca.crt")}


# --- Redis ----------------------------------------------------------------------------------------------------------


async def test_a_service_uses_a_redis_that_the_user_runs_with_what_the_operator_minted(redis, tmp_path):
    paths, _ = mounted(tmp_path, mint.Setting("test", redis=login(redis)), "memory")
    client = client_of(paths)

    assert await client.set("stm:x", "1", ex=60)
    assert (await client.acl_whoami()) == SHOP
    await client.aclose()


async def test_caches_go_to_the_redis_of_their_own(redis, cache, tmp_path):
    setting = mint.Setting("test", redis=login(redis), redis_cache=login(cache))
    paths, _ = mounted(tmp_path, setting, "memory")
    lasting, caching = client_of(paths), client_of(paths, cache=True)

    await lasting.set("where", "lasting")
    await caching.set("where", "caching")

    async with plain(redis, username=SHOP, password=WORD, **verified(redis, tmp_path)) as look:
        assert await look.get("where") == "lasting"
        assert (await look.info("memory"))["maxmemory_policy"] == "noeviction"
        assert (await look.info("persistence"))["aof_enabled"] == 1
    async with plain(cache, username=SHOP, password=WORD, **verified(cache, tmp_path)) as look:
        assert await look.get("where") == "caching"
        assert (await look.info("memory"))["maxmemory_policy"] == "allkeys-lru"
        assert (await look.info("persistence"))["aof_enabled"] == 0
    for client in (lasting, caching):
        await client.aclose()


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        ({"host": "127.0.0.1"}, "the certificate is for another name"),
        ({"ca": "another"}, "another authority signed it"),
        ({"password": "not-the-password"}, "the password is wrong"),
    ],
    ids=["name", "authority", "password"],
)
async def test_a_service_does_not_talk_to_a_redis_that_cannot_prove_itself(redis, tmp_path, wrong, what):
    if "ca" in wrong:
        wrong = {"ca": minted()[names.CA_PRIVATE]["tls.crt"].decode()}
    paths, _ = mounted(tmp_path, mint.Setting("test", redis=login(redis, **wrong)), "memory")
    client = client_of(paths)

    with pytest.raises(RedisError):
        await client.ping()
    await client.aclose()


async def test_redis_takes_no_connection_without_tls(redis):
    async with plain(redis, username=SHOP, password=WORD) as client:
        with pytest.raises((RedisError, OSError)):
            await client.ping()


async def test_a_service_of_the_installation_may_what_it_needs_and_no_more(redis, material, tmp_path):
    password = mint.forms.payload_unverified(material[names.creds("memory")]["redis.jws"]).active.material["password"]
    async with plain(redis, username="memory", password=password, **verified(redis, tmp_path)) as client:
        assert await client.set("itm:x", "1", ex=60)
        for forbidden in (("KEYS", "*"), ("FLUSHALL",), ("CONFIG", "GET", "*"), ("ACL", "LIST")):
            with pytest.raises(RedisError, match="permissions"):
                await client.execute_command(*forbidden)
    async with plain(redis, username="noble-spirit", password=password, **verified(redis, tmp_path)) as client:
        with pytest.raises(RedisError):  # it has no use for Redis, so it is no user of it
            await client.ping()


async def test_who_has_no_use_for_caches_is_no_user_of_their_redis(cache, material, tmp_path):
    password = mint.forms.payload_unverified(material[names.creds("memory")]["redis.jws"]).active.material["password"]
    async with plain(cache, username="memory", password=password, **verified(cache, tmp_path)) as client:
        assert await client.ping()
    other = mint.forms.payload_unverified(material[names.creds("intelligence")]["redis.jws"]).active.material
    assert "cache" not in other
    async with plain(cache, username="intelligence", password=other["password"], **verified(cache, tmp_path)) as client:
        with pytest.raises(RedisError):
            await client.ping()


# --- the migration tries what the user runs -------------------------------------------------------------------------


async def test_the_migration_tries_every_redis_that_the_user_runs(redis, cache, tmp_path):
    setting = mint.Setting("test", redis=login(redis), redis_cache=login(cache))
    paths, _ = mounted(tmp_path, setting, "memory")
    said: list[str] = []

    await try_redis(paths, say=said.append)

    assert [line.split(" ")[0] for line in said] == ["redis", "redis-cache"]
    assert "eviction noeviction" in said[0]
    assert "eviction allkeys-lru" in said[1]
    async with plain(redis, username=SHOP, password=WORD, **verified(redis, tmp_path)) as look:
        assert not [key async for key in look.scan_iter("nova:try:*")], "it leaves nothing behind"


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"password": "not-the-password"}, "mend the Secret"),
        ({"user": "narrow"}, "ACL"),
        ({"host": "127.0.0.1"}, "certificate"),
    ],
    ids=["password", "rules", "name"],
)
async def test_the_migration_says_what_is_wrong_with_a_redis(redis, tmp_path, wrong, says):
    paths, _ = mounted(tmp_path, mint.Setting("test", redis=login(redis, **wrong)), "memory")

    with pytest.raises(MigrationError, match=says) as caught:
        await try_redis(paths, say=lambda _line: None)
    assert WORD not in str(caught.value)


async def test_a_redis_that_evicts_is_refused_for_what_must_last(cache, tmp_path):
    paths, _ = mounted(tmp_path, mint.Setting("test", redis=login(cache)), "memory")

    with pytest.raises(MigrationError, match="noeviction"):
        await try_redis(paths, say=lambda _line: None)


async def test_without_a_redis_of_the_users_nothing_is_tried(tmp_path):
    paths, _ = mounted(tmp_path, mint.Setting("test"), "memory")

    await try_redis(paths, say=pytest.fail)


# --- Postgres -------------------------------------------------------------------------------------------------------


def admin_of(postgres: Secure, *, host: str = HOST, ca: str = "") -> PostgresAdmin:
    word = postgres.material[names.POSTGRES_ADMIN]["password"].decode()
    return PostgresAdmin(host, postgres.port, "postgres", word, DATABASE, ca or postgres.ca)


@asynccontextmanager
async def database_of(root: Path, admin: PostgresAdmin) -> Any:
    """The database of a service, with a login that the operator minted and that exists on the server."""
    paths, made = mounted(root, mint.Setting("test", postgres=admin), "memory")
    roles = mint.json_object(made[names.MIGRATE_CREDS]["roles.json"])["roles"]
    scram = next(role["scram"] for role in roles if role["name"] == "nova_memory_a")
    trusted = ssl.create_default_context(cadata=minted_or(admin))
    conn = await asyncpg.connect(
        host=HOST, port=admin.port, user=admin.user, password=admin.password, database=DATABASE, ssl=trusted
    )
    await conn.execute("DROP ROLE IF EXISTS nova_memory_a")
    await conn.execute(f"CREATE ROLE nova_memory_a LOGIN PASSWORD '{scram}'")
    await conn.close()
    metrics = Metrics("memory")
    keyrings = KeyRings(paths, SystemClock(), metrics)
    keyrings.load()
    database = Database(paths=paths, keyrings=keyrings, settings=CommonSettings(), metrics=metrics, name="memory")
    yield database
    await database.close()


def minted_or(admin: PostgresAdmin) -> str:
    """The authority of the server under test, whatever the service is made to believe."""
    return TRUTH.get(admin.port, admin.ca or "")


TRUTH: dict[int, str] = {}


async def test_a_service_logs_in_to_postgres_with_what_the_operator_minted(postgres, tmp_path):
    async with database_of(tmp_path, admin_of(postgres)) as database:
        await database.connect()
        async with database.connection() as conn:
            row = await conn.fetchrow(
                "SELECT current_user, (SELECT ssl AND version = 'TLSv1.3' FROM pg_stat_ssl WHERE pid = pg_backend_pid())"
            )
    assert tuple(row) == ("nova_memory_a", True)


@pytest.mark.parametrize("wrong", ["name", "authority"])
async def test_a_service_does_not_talk_to_a_postgres_that_cannot_prove_itself(postgres, tmp_path, wrong):
    TRUTH[postgres.port] = postgres.ca
    other = minted()[names.CA_PRIVATE]["tls.crt"].decode()
    admin = admin_of(postgres, host="127.0.0.1") if wrong == "name" else admin_of(postgres, ca=other)
    async with database_of(tmp_path, admin) as database:
        with pytest.raises(ssl.SSLCertVerificationError):
            await database.connect()


async def test_postgres_takes_no_connection_without_tls(postgres):
    admin = admin_of(postgres)
    with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError, match="no encryption"):
        await asyncpg.connect(
            host=HOST, port=admin.port, user=admin.user, password=admin.password, database=DATABASE, ssl=False
        )


async def test_a_server_that_does_not_speak_tls_gets_no_password(tmp_path):
    """A client that fell back to plain text would hand the login to whoever answers."""
    heard: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read(8))  # SSLRequest
        writer.write(b"N")
        await writer.drain()
        heard.append(await reader.read(100))
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    ca = minted()[names.CA_PRIVATE]["tls.crt"].decode()
    paths, _ = mounted(tmp_path, mint.Setting("test", postgres=PostgresAdmin(HOST, port, "u", "w", "d", ca)), "memory")
    metrics = Metrics("memory")
    keyrings = KeyRings(paths, SystemClock(), metrics)
    keyrings.load()
    database = Database(paths=paths, keyrings=keyrings, settings=CommonSettings(), metrics=metrics, name="memory")
    with pytest.raises((OSError, asyncpg.PostgresError, asyncpg.InterfaceError)):
        await database.connect()
    server.close()
    assert heard[1:] in ([], [b""])
