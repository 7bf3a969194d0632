"""What every service has: probes, identity at the door, problems, request ids."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from aiohttp import web

from novacore.common import outbox
from novacore.common.errors import ServiceError
from novacore.common.idempotency import Idempotency
from novacore.common.peers import PeerError
from novacore.common.redis import Redis, RedisError
from novacore_contracts.identity import SERVICE_TOKEN_HEADER
from novacore_contracts.releases import CURRENT
from tests.kit.keys import SigningKey, put
from tests.kit.peers import token_issuer
from tests.service.common.definitions import PROBE


@pytest.fixture
async def service(client_for):
    async with client_for("memory", definition=PROBE) as running:
        yield running


async def test_is_ready_with_its_stores_migrated_and_its_keyset_seen(service):
    answer = await service.internal.get("/readyz")

    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert set(body["checks"]) == {"database", "redis", "migrations", "draining", "loop", "keyset", "service_token"}
    assert body["rings"]["serviceJwt"]["generation"] == 1


async def test_readyz_tells_the_release_of_the_image_whatever_the_settings_say(client_for):
    async with client_for("memory", definition=PROBE, settings={"version": "9.9.9"}) as running:
        assert (await running.internal.get("/readyz")).json()["version"] == CURRENT


async def test_is_not_ready_while_it_drains(service):
    service.platform.draining.set()
    service.platform.readiness.forget()

    answer = await service.internal.get("/readyz")

    assert answer.status_code == 503
    assert answer.json()["checks"]["draining"] is False
    assert (await service.internal.get("/livez")).status_code == 200


@pytest.mark.parametrize("path", ["/mine", "/read", "/either/3", "/admin", "/mcp"])
async def test_no_token_is_401_with_a_challenge(service, path):
    answer = await service.public.get(path, headers={"X-User-Id": "someone", "X-User-Role": "admin"})

    assert answer.status_code == 401
    assert answer.json()["code"] == "token_missing"
    assert answer.headers["www-authenticate"].startswith("Bearer ")
    assert answer.headers["content-type"] == "application/problem+json"


async def test_a_user_token_alone_is_refused(service, make_user):
    answer = await service.public.get("/read", headers=service.headers(await make_user(), service=None))

    assert answer.status_code == 401


async def test_a_service_token_alone_is_refused_where_a_user_is_needed(service):
    answer = await service.public.get("/read", headers=service.headers(service="gateway"))

    assert answer.status_code == 401


async def test_user_and_permitted_service_are_admitted(service, make_user):
    user = await make_user()

    for caller in ("gateway", "intelligence"):
        answer = await service.public.get("/read", headers=service.headers(user, service=caller))
        assert answer.json() == {"user": str(user.id), "service": caller}


async def test_an_unlisted_service_is_403_even_with_a_user(service, make_user):
    headers = service.headers(await make_user(), service="noble-spirit")

    assert (await service.public.get("/read", headers=headers)).status_code == 403


async def test_a_plain_user_route_admits_the_gateway_only(service, make_user):
    user = await make_user()

    assert (await service.public.get("/mine", headers=service.headers(user))).status_code == 200
    assert (await service.public.get("/mine", headers=service.headers(user, service="intelligence"))).status_code == 403


async def test_the_gateways_wildcard_does_not_open_service_routes(service, make_user):
    user = await make_user()

    assert (await service.public.post("/maintain", headers=service.headers(user))).status_code == 403
    allowed = service.headers(service="distillation-worker")
    assert (await service.public.post("/maintain", headers=allowed)).status_code == 200


async def test_act_for_needs_its_permission_and_not_a_wildcard(service, make_user):
    user = await make_user()

    async def status(caller):
        headers = service.headers(service=caller, act_for=user.id)
        return (await service.public.get("/either/3", headers=headers)).status_code

    assert await status("intelligence") == 200
    assert await status("gateway") == 403
    assert await status("mcp-server") == 403  # may read memory, may not act for a user


async def test_a_device_token_opens_only_routes_that_say_so(service, make_user):
    user = await make_user(scope="mcp")

    assert (await service.public.get("/mcp", headers=service.headers(user))).status_code == 200
    refused = await service.public.get("/mine", headers=service.headers(user))
    assert (refused.status_code, refused.json()["code"]) == (403, "scope_missing")


async def test_admin_needs_the_role(service, make_user):
    assert (await service.public.get("/admin", headers=service.headers(await make_user()))).status_code == 403
    admin = await make_user(role="admin")
    assert (await service.public.get("/admin", headers=service.headers(admin))).status_code == 200


async def test_a_token_of_an_unknown_key_is_401(service, make_user):
    headers = service.headers(await make_user())
    headers[SERVICE_TOKEN_HEADER] = service.keys.service_token("gateway", key=SigningKey("svc-"))

    answer = await service.public.get("/mine", headers=headers)

    assert (answer.status_code, answer.json()["code"]) == (401, "kid_unknown")


async def test_validation_is_400_and_does_not_echo_what_was_sent(service):
    answer = await service.public.post("/open", json={"name": "x", "password": "hunter2"})

    assert answer.status_code == 400
    body = answer.json()
    assert body["code"] == "validation_error"
    assert body["errors"][0]["loc"] == ["body", "password"]
    assert "hunter2" not in answer.text


async def test_a_bug_is_a_500_without_its_detail(service):
    answer = await service.public.get("/bug")

    assert answer.status_code == 500
    assert answer.json()["code"] == "internal"
    assert "secret detail" not in answer.text


async def test_an_unknown_path_is_a_problem_with_the_request_id(service):
    answer = await service.public.get("/nothing", headers={"X-Request-ID": "abcdefgh-1"})

    assert answer.status_code == 404
    assert answer.json()["request_id"] == answer.headers["x-request-id"] == "abcdefgh-1"


async def test_a_malformed_request_id_is_replaced(service):
    answer = await service.public.get("/health", headers={"X-Request-ID": "no spaces allowed"})

    assert answer.headers["x-request-id"] != "no spaces allowed"
    assert answer.json()["service"] == "memory"


async def test_requests_are_counted_by_template_never_by_path(service, make_user):
    user = await make_user()
    for number in range(3):
        await service.public.get(f"/either/{number}", headers=service.headers(user))

    total = service.platform.metrics.value("http_requests_total", method="GET", route="/either/{thing_id}", code="200")
    assert total == 3
    text = (await service.internal.get("/metrics")).text
    assert "/either/1" not in text
    assert 'novacore_db_errors_total{class="timeout"} 0.0' in text


async def test_peers_get_token_user_request_id_and_deadline(service, make_user):
    user = await make_user()
    stub = service.stubs["auth-billing"].on("GET", "/thing", (200, {"a": 1}))

    assert await service.platform.peers.call("auth-billing", "GET", "/thing", act_for=user.id) == {"a": 1}

    sent = stub.requests("/thing")[0].headers
    assert sent["X-Act-For"] == str(user.id)
    assert sent["X-Service-Token"]
    assert sent["X-Request-ID"]
    assert 0 < int(sent["X-Deadline-Ms"]) <= 5000


async def test_a_refusal_of_a_peer_is_a_peer_error_with_its_code(service):
    service.stubs["auth-billing"].on("GET", "/thing", (409, {"code": "conflict"}))

    with pytest.raises(PeerError) as caught:
        await service.platform.peers.call("auth-billing", "GET", "/thing")

    assert (caught.value.status, caught.value.code) == (409, "conflict")


async def test_row_level_security_hides_rows_of_other_users(service, make_user):
    first, second = await make_user(), await make_user()
    db = service.platform.db
    async with db.transaction(first.id) as conn:
        await conn.execute(
            "INSERT INTO memory.idempotency (user_id, route, key, body_sha256) VALUES ($1, 'r', 'k', $2)",
            first.id,
            b"x",
        )

    async def seen(user_id):
        async with db.transaction(user_id) as conn:
            return await conn.fetchval("SELECT count(*) FROM memory.idempotency")

    assert await seen(first.id) == 1
    assert await seen(second.id) == 0
    assert await seen(None) == 0


async def test_the_same_key_and_body_are_done_once(service, make_user):
    user = await make_user()
    done = []

    async def produce(_conn):
        done.append(1)
        return 201, {"n": len(done)}

    async def once(body=b"{}"):
        return await Idempotency("memory").run(
            service.platform.db, user_id=user.id, route="POST /x", key="k1", body=body, produce=produce
        )

    assert await once() == await once() == (201, {"n": 1})
    with pytest.raises(Exception, match="idempotency_conflict"):
        await once(b"other")
    assert done == [1]


@pytest.mark.invariant("OUTBOX-1")
async def test_the_outbox_moves_committed_events_to_their_stream_once(service, make_user, redis_client):
    user, db = await make_user(), service.platform.db
    relay = outbox.Relay(db=db, redis=service.platform.redis, schema="memory", platform=service.platform)
    async with db.transaction() as conn:
        await outbox.add(conn, type="usage.adjust", payload={"delta": 5}, user_id=user.id, schema="memory")
    with contextlib.suppress(RuntimeError):
        async with db.transaction() as conn:
            await outbox.add(conn, type="usage.adjust", payload={"delta": 6}, user_id=user.id, schema="memory")
            raise RuntimeError("rolled back")

    assert await relay.relay_once() == 1
    assert await relay.relay_once() == 0

    entries = redis_client.xrange("stream:outbox:memory")
    assert len(entries) == 1
    assert '"delta":5' in entries[0][1]["e"]


async def test_a_new_password_reaches_the_pool_without_a_restart(service, make_user, keys, database, postgres_server):
    db, platform = service.platform.db, service.platform
    material = {
        "user": "nova_memory_b", "password": "x", "host": postgres_server.host, "port": postgres_server.port,
        "database": database, "sslmode": "verify-full",
    }  # fmt: skip
    put(platform.paths.creds / "postgres.jws", keys.sign(keys.credential("postgres", material, generation=2)))

    async with asyncio.timeout(15):
        while True:
            async with db.connection() as conn:  # never fails meanwhile
                if await conn.fetchval("SELECT current_user") == "nova_memory_b":
                    break
            await asyncio.sleep(0.1)

    async with db.transaction((await make_user()).id) as conn:
        assert await conn.fetchval("SELECT count(*) FROM memory.outbox") == 0


async def test_a_statement_over_its_time_is_504_deadline(client_for):
    async with client_for("memory", definition=PROBE, settings={"postgres_statement_timeout_s": 0.2}) as running:
        with pytest.raises(ServiceError) as caught:
            async with running.platform.db.connection() as conn:
                await conn.execute("SELECT pg_sleep(5)")

    assert (caught.value.status, caught.value.code) == (504, "deadline")
    assert running.platform.metrics.value("novacore_db_errors_total", **{"class": "timeout"}) == 1


async def test_without_postgres_a_service_starts_and_answers_503(client_for, keys):
    async with client_for("memory", definition=PROBE, settings={"postgres_statement_timeout_s": 1}) as running:
        await running.platform.db.close()
        running.platform.readiness.forget()

        assert (await running.internal.get("/livez")).status_code == 200
        answer = await running.internal.get("/readyz")
        assert answer.status_code == 503
        assert answer.json()["checks"]["database"] is False
        with pytest.raises(ServiceError) as caught:
            async with running.platform.db.transaction():
                pass
        assert caught.value.code == "not_ready"


async def test_a_pushed_keyset_is_used_at_once_and_acknowledged(service, keys):
    compact = keys.sign(keys.switched("serviceJwt", generation=2, revoke=True))

    answer = await service.internal.post("/internal/keyset", content=compact)

    assert answer.json()["rings"]["serviceJwt"]["generation"] == 2
    assert answer.json()["rings"]["serviceJwt"]["via"] == "push"
    canary = await service.internal.post("/internal/keyset/canary", json={"token": keys.canary("serviceJwt")})
    assert (canary.status_code, canary.json()["code"]) == (401, "kid_revoked")
    fresh = keys.canary("serviceJwt", key=keys.standby["serviceJwt"])
    accepted = await service.internal.post("/internal/keyset/canary", json={"token": fresh})
    assert accepted.json() == {"kid": keys.standby["serviceJwt"].kid, "generation": 2}


@pytest.mark.parametrize(
    ("path", "sent", "refusal"),
    [
        ("/internal/keyset", {"content": b"garbage"}, 422),
        ("/internal/keyset/canary", {"json": {"token": "garbage"}}, 401),
    ],
)
async def test_a_stranger_at_the_internal_port_is_capped(service, keys, path, sent, refusal):
    statuses = [(await service.internal.post(path, **sent)).status_code for _ in range(400)]

    assert set(statuses) == {refusal, 429}
    assert 100 <= statuses.index(429) < 400
    async with asyncio.timeout(10):  # 400 requests in a row may keep the loop so busy that it tells so for a moment
        while (await service.internal.get("/readyz")).status_code != 200:
            await asyncio.sleep(0.1)


async def test_a_push_of_an_older_document_is_answered_with_the_newer_one(service, keys):
    await service.internal.post("/internal/keyset", content=keys.sign(keys.document("serviceJwt", generation=5)))

    answer = await service.internal.post(
        "/internal/keyset", content=keys.sign(keys.document("serviceJwt", generation=4))
    )

    assert (answer.status_code, answer.json()["rings"]["serviceJwt"]["generation"]) == (200, 5)


async def test_a_push_names_its_ring(service, keys):
    compact = keys.sign(keys.document("userJwt", generation=3))

    wrong = await service.internal.post("/internal/keyset", content=compact)
    right = await service.internal.post("/internal/keyset?ring=userJwt", content=compact)

    assert (wrong.status_code, wrong.json()["code"]) == (422, "keyset_refused")
    assert right.json()["rings"]["userJwt"]["generation"] == 3
    unknown = await service.internal.post("/internal/keyset?ring=postgres", content=compact)
    assert unknown.status_code == 422


async def test_a_forged_keyset_push_is_refused(service, keys):
    forged = keys.sign(keys.document("serviceJwt", generation=9), root=SigningKey("root-"))

    answer = await service.internal.post("/internal/keyset", content=forged)

    assert (answer.status_code, answer.json()["code"]) == (422, "keyset_refused")


async def test_a_refused_service_token_is_renewed_and_the_call_sent_again_once(service, keys):
    stub = service.stubs["auth-billing"]
    challenge = {"WWW-Authenticate": 'Bearer realm="novacore-services", error="kid_revoked"'}

    def answer(_asked):
        if len(stub.requests("/thing")) == 1:
            return web.json_response({"code": "kid_revoked"}, status=401, headers=challenge)
        return 200, {"ok": True}

    stub.on("POST", "/thing", answer)
    await service.platform.tokens.get()
    token_issuer(keys, "memory", stub, key=keys.standby["serviceJwt"])  # the revoked key signs no more

    assert await service.platform.peers.call("auth-billing", "POST", "/thing", json={"a": 1}) == {"ok": True}
    first, second = stub.requests("/thing")
    assert first.headers["X-Service-Token"] != second.headers["X-Service-Token"]
    assert second.json == {"a": 1}


async def test_a_refused_user_token_costs_no_renewal(service, make_user, keys):
    stub = service.stubs["auth-billing"]
    await service.platform.tokens.get()
    asked = len(stub.requests("/internal/token"))
    challenge = {"WWW-Authenticate": 'Bearer realm="novacore-api", error="token_expired"'}
    stub.on("GET", "/thing", lambda _: web.json_response({"code": "token_expired"}, status=401, headers=challenge))

    with pytest.raises(PeerError) as caught:
        await service.platform.peers.call("auth-billing", "GET", "/thing")

    assert (caught.value.status, caught.value.code) == (401, "token_expired")
    assert len(stub.requests("/internal/token")) == asked


@pytest.mark.invariant("OUTBOX-2")
async def test_a_row_is_marked_only_after_the_stream_has_it(service, redis_client):
    db, platform = service.platform.db, service.platform
    async with db.transaction() as conn:
        await outbox.add(conn, type="usage.adjust", payload={}, user_id=None, schema="memory")
    away = Redis(port=1)

    with pytest.raises(RedisError):
        await outbox.Relay(db=db, redis=away, schema="memory", platform=platform).relay_once()
    async with db.connection() as conn:
        assert await conn.fetchval("SELECT count(*) FROM memory.outbox WHERE relayed_at IS NULL") == 1

    assert await outbox.Relay(db=db, redis=platform.redis, schema="memory", platform=platform).relay_once() == 1
    assert redis_client.xlen("stream:outbox:memory") == 1


async def test_replicas_of_the_relay_never_move_a_row_twice(service, redis_client):
    db, platform = service.platform.db, service.platform
    async with db.transaction() as conn:
        for number in range(250):
            await outbox.add(conn, type="usage.adjust", payload={"n": number}, user_id=None, schema="memory")
    relays = [outbox.Relay(db=db, redis=platform.redis, schema="memory", platform=platform) for _ in range(4)]

    moved = await asyncio.gather(*(relay.relay_once() for relay in relays))
    while more := await relays[0].relay_once():
        moved.append(more)

    assert sum(moved) == redis_client.xlen("stream:outbox:memory") == 250
