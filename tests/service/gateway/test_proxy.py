"""The gateway against stub upstreams and a real Redis: identity, what is stripped, limits, streams."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from aiohttp import web

from novacore.common.callers import SERVICE_REALM
from novacore.common.tokens import NoTokenError
from novacore.gateway.circuit import Circuit
from tests.kit.keys import put


@pytest.fixture
async def gateway(client_for):
    async with client_for("gateway", settings={"cors_origins": ["https://app.example.org"]}) as running:
        yield running


def ok(asked):
    return 200, {"path": asked.path}


def move_redis(gateway, keys, material):
    """Mount another `redis.jws`, as the operator does when the place changes."""
    put(gateway.platform.paths.creds / "redis.jws", keys.sign(keys.credential("redis", material, generation=2)))
    gateway.platform.keyrings.load()


FORGED = {
    "X-User-Id": "someone", "X-User-Role": "admin", "X-Service-Token": "forged", "X-Act-For": "someone",
    "X-Internal-Secret": "1", "X-Deadline-Ms": "1", "X-Forwarded-For": "10.1.1.1", "X-Real-IP": "10.1.1.1",
    "Forwarded": "for=10.1.1.1", "Cookie": "a=b", "X-Anything": "1",
}  # fmt: skip


async def test_without_a_token_401_and_nothing_reaches_the_upstream(gateway):
    answer = await gateway.public.get("/api/memory", headers=FORGED)

    assert (answer.status_code, answer.json()["code"]) == (401, "token_missing")
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert gateway.stubs["memory"].requests("/memory") == []


async def test_passes_the_users_token_and_its_own_and_strips_what_clients_must_not_say(gateway, make_user):
    user = await make_user()
    memory = gateway.stubs["memory"].on("GET", "/memory", ok)

    answer = await gateway.public.get(
        "/api/memory?limit=3", headers={**FORGED, **user.headers, "X-Request-ID": "request-0001"}
    )

    assert answer.json() == {"path": "/memory"}
    sent = memory.requests("/memory")[-1]
    assert sent.query == {"limit": "3"}
    assert sent.headers["Authorization"] == f"Bearer {user.token}"
    assert sent.headers["X-Service-Token"] not in ("", "forged")
    assert sent.headers["X-Request-ID"] == answer.headers["x-request-id"] == "request-0001"
    assert 20_000 < int(sent.headers["X-Deadline-Ms"]) <= 30_000
    assert sent.headers["X-Forwarded-For"] == "127.0.0.1"
    for name in (
        "X-User-Id",
        "X-User-Role",
        "X-Act-For",
        "X-Internal-Secret",
        "X-Real-IP",
        "Forwarded",
        "Cookie",
        "X-Anything",
    ):
        assert name not in sent.headers


@pytest.mark.parametrize(
    ("path", "upstream", "arrives"),
    [
        ("/api/auth/me", "auth-billing", "/auth/me"),
        ("/api/billing/usage", "auth-billing", "/billing/usage"),
        ("/api/usage/quota", "auth-billing", "/usage/quota"),
        ("/api/chat/sessions", "intelligence", "/chat/sessions"),
        ("/api/memory/stm", "memory", "/memory/stm"),
        ("/api/ngs/progress", "ngs-curriculum", "/ngs/progress"),
        ("/api/mcp", "mcp-server", "/mcp"),
        ("/api/mcp/context", "mcp-server", "/mcp/context"),
        ("/api/policy/current", "noble-spirit", "/policy/current"),
        ("/.well-known/jwks.json", "auth-billing", "/.well-known/jwks.json"),
        (
            "/.well-known/oauth-protected-resource/api/mcp",
            "mcp-server",
            "/.well-known/oauth-protected-resource/api/mcp",
        ),
    ],
)
async def test_every_prefix_goes_to_its_service(gateway, make_user, path, upstream, arrives):
    gateway.stubs[upstream].on("GET", arrives, ok)

    answer = await gateway.public.get(path, headers=(await make_user()).headers)

    assert (answer.status_code, answer.json()) == (200, {"path": arrives})


@pytest.mark.parametrize(
    "path", ["/internal/token", "/api/internal/keyset", "/nothing", "/api", "/apichat", "/readyz", "/metrics"]
)
async def test_anything_else_is_404_and_names_the_path(gateway, make_user, path):
    answer = await gateway.public.get(path, headers=(await make_user()).headers)

    assert answer.status_code == 404
    assert answer.json()["path"] == path
    assert answer.json()["error"]


async def test_a_device_token_reaches_mcp_only(gateway, make_user):
    user = await make_user(scope="mcp")
    gateway.stubs["mcp-server"].on("GET", "/mcp/context", ok)

    assert (await gateway.public.get("/api/mcp/context", headers=user.headers)).status_code == 200
    refused = await gateway.public.get("/api/memory", headers=user.headers)
    assert (refused.status_code, refused.json()["code"]) == (403, "scope_missing")


async def test_a_revoked_token_or_session_is_401_at_once(gateway, make_user, redis_client):
    first, second = await make_user(jti="j-1"), await make_user(sv=3)
    gateway.stubs["memory"].on("GET", "/memory", ok)
    redis_client.set("tok:rev:j-1", "1")
    redis_client.set(f"tok:sv:{second.id}", "4")

    for user in (first, second):
        assert (await gateway.public.get("/api/memory", headers=user.headers)).status_code == 401
    redis_client.set(f"tok:sv:{second.id}", "3")
    assert (await gateway.public.get("/api/memory", headers=second.headers)).status_code == 200


async def test_an_expired_token_says_so(gateway, make_user):
    user = await make_user(ttl=-120)

    answer = await gateway.public.get("/api/auth/me", headers=user.headers)

    assert (answer.status_code, answer.json()["code"]) == (401, "token_expired")


async def test_a_stale_token_does_not_stand_in_the_way_of_logging_in(gateway, make_user):
    user = await make_user(ttl=-120)
    auth = gateway.stubs["auth-billing"].on("POST", "/auth/login", ok)

    answer = await gateway.public.post("/api/auth/login", json={"email": "a@b.c"}, headers=user.headers)

    assert answer.status_code == 200
    assert "Authorization" not in auth.requests("/auth/login")[-1].headers


async def test_costly_requests_are_limited_by_tier_with_a_burst_of_half_a_minute(gateway, make_user):
    user = await make_user(tier="free_trial")
    gateway.stubs["intelligence"].on("POST", "/chat/message", (200, {}))

    codes = [
        (await gateway.public.post("/api/chat/message", json={"message": "x"}, headers=user.headers)).status_code
        for _ in range(6)
    ]

    assert codes == [200] * 5 + [429]
    refused = await gateway.public.post("/api/chat/message", json={}, headers=user.headers)
    assert refused.json()["code"] == "rate_limited"
    assert 1 <= int(refused.headers["retry-after"]) <= 6
    assert refused.headers["ratelimit-limit"] == "10"


async def test_a_tier_change_in_redis_counts_before_the_token_is_renewed(gateway, make_user, redis_client):
    user = await make_user(tier="free_trial")
    redis_client.set(f"tok:tier:{user.id}", "pro")
    gateway.stubs["intelligence"].on("POST", "/chat/message", (200, {}))

    codes = {
        (await gateway.public.post("/api/chat/message", json={}, headers=user.headers)).status_code for _ in range(20)
    }

    assert codes == {200}


async def test_logins_of_one_account_are_limited_across_addresses(client_for):
    settings = {"limits": {"auth_per_minute": 1000}, "trusted_proxy_hops": 1}
    async with client_for("gateway", settings=settings) as gateway:
        gateway.stubs["auth-billing"].on("POST", "/auth/login", (401, {"code": "invalid_credentials"}))

        async def attempt(n, email):
            body = {"email": email, "password": "x" * 8}
            return (
                await gateway.public.post("/api/auth/login", json=body, headers={"X-Forwarded-For": f"10.0.0.{n}"})
            ).status_code

        assert [await attempt(n, " A@Example.org") for n in range(6)] == [401] * 5 + [429]
        assert await attempt(9, "other@example.org") == 401


@pytest.mark.parametrize(
    ("limits", "allowed"),
    [({"auth_per_minute": 10}, 5), ({"auth_per_minute": 1000, "login_per_account_per_minute": 5}, 5)],
    ids=["by_address", "by_account"],
)
async def test_a_revoked_token_on_a_public_path_is_limited_as_if_there_were_none(
    client_for, make_user, redis_client, limits, allowed
):
    user = await make_user(jti="j-1")
    redis_client.set("tok:rev:j-1", "1")
    one_account = limits["auth_per_minute"] == 1000
    async with client_for("gateway", settings={"limits": limits}) as gateway:
        auth = gateway.stubs["auth-billing"].on("POST", "/auth/login", (401, {"code": "invalid_credentials"}))
        codes = [
            (
                await gateway.public.post(
                    "/api/auth/login",
                    json={"email": "a@b.c" if one_account else f"a{n}@b.c", "password": "x" * 8},
                    headers=user.headers,
                )
            ).status_code
            for n in range(allowed + 1)
        ]

    assert codes == [401] * allowed + [429]
    assert all("Authorization" not in asked.headers for asked in auth.requests("/auth/login"))


async def test_without_redis_reading_goes_on_and_logging_in_does_not(client_for, make_user, redis_client, keys):
    async with client_for("gateway", settings={"redis_timeout_s": 0.2}) as gateway:
        user = await make_user()
        gateway.stubs["memory"].on("GET", "/memory", ok)
        nowhere = {"user": "default", "password": "", "host": "127.0.0.1", "port": 1, "tls": False}
        move_redis(gateway, keys, nowhere)
        for redis in (gateway.platform.cache, gateway.platform.redis_blocking):
            await redis.connection_pool.disconnect()

        assert (await gateway.public.get("/api/memory", headers=user.headers)).status_code == 200
        closed = await gateway.public.post("/api/auth/login", json={"email": "a@b.c"})
        assert (closed.status_code, closed.json()["code"]) == (503, "not_ready")


async def test_a_body_over_its_limit_is_413(gateway, make_user):
    user = await make_user()
    large = {"message": "x" * 70_000}

    assert (await gateway.public.post("/api/chat/message", json=large, headers=user.headers)).status_code == 413


async def test_a_large_body_within_its_limit_streams_through(gateway, make_user):
    user = await make_user()
    memory = gateway.stubs["memory"].on("POST", "/memory/store", (201, {"id": 1}))

    answer = await gateway.public.post("/api/memory/store", json={"text": "y" * 200_000}, headers=user.headers)

    assert answer.status_code == 201
    assert len(memory.asked[-1].json["text"]) == 200_000


async def test_webhook_bytes_arrive_unchanged_and_need_no_token(gateway):
    raw = b'{"b": 1,  "a":\t2}'
    got = []

    def take(asked):
        got.append(asked)
        return 200, {"received": True}

    gateway.stubs["auth-billing"].on("POST", "/billing/webhooks", take)

    headers = {"Stripe-Signature": "t=1,v1=x", "Content-Type": "application/json"}
    answer = await gateway.public.post("/api/billing/webhooks", content=raw, headers=headers)

    assert answer.json() == {"received": True}
    assert got[0].headers["Stripe-Signature"] == "t=1,v1=x"
    assert got[0].raw == raw


async def test_events_pass_as_they_come(client_for, make_user):
    go_on = asyncio.Event()
    user = await make_user()

    async with client_for("gateway", listen=True) as gateway:

        async def stream(_request):
            response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
            await response.prepare(_request)
            await response.write(b'data: {"content":"a"}\n\n')
            await go_on.wait()
            await response.write(b'data: {"done":true}\n\n')
            return response

        app = web.Application()
        app.router.add_post("/chat/stream", stream)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        gateway.platform.app.state.proxy.upstreams["intelligence"].url = f"http://127.0.0.1:{runner.addresses[0][1]}"

        async with gateway.public.stream(
            "POST", "/api/chat/stream", json={"message": "x"}, headers=user.headers
        ) as answer:
            assert answer.headers["content-type"] == "text/event-stream"
            chunks = answer.aiter_text()
            assert "content" in await anext(chunks)  # the second event does not exist yet
            go_on.set()
            assert "done" in await anext(chunks)
        await runner.cleanup()


async def test_a_dead_upstream_is_503_and_opens_its_circuit(gateway, make_user):
    user = await make_user()
    await gateway.stubs["memory"].stop()

    answers = [await gateway.public.get("/api/memory", headers=user.headers) for _ in range(8)]

    assert {answer.status_code for answer in answers} == {503}
    assert answers[-1].json()["code"] == "upstream_down"
    assert int(answers[-1].headers["retry-after"]) >= 1
    assert gateway.platform.metrics.value("novacore_circuit_state", peer="memory") == 2


def half_open(gateway, name):
    """Put an upstream's circuit where three probes are let through."""
    now = [0.0]
    circuit = Circuit(lambda: now[0])
    for _ in range(5):
        circuit.failed(connect=True)
    now[0] += 60
    gateway.platform.app.state.proxy.upstreams[name].circuit = circuit
    assert circuit.state == "half_open"
    return circuit


async def test_probes_without_a_service_token_do_not_use_up_a_half_open_circuit(gateway, make_user, monkeypatch):
    user = await make_user()
    gateway.stubs["memory"].on("GET", "/memory", ok)
    circuit = half_open(gateway, "memory")

    async def none():
        raise NoTokenError("none")

    with monkeypatch.context() as patched:
        patched.setattr(gateway.platform.tokens, "get", none)
        for _ in range(4):
            assert (await gateway.public.get("/api/memory", headers=user.headers)).status_code == 503
    assert circuit.state == "half_open"

    codes = [(await gateway.public.get("/api/memory", headers=user.headers)).status_code for _ in range(3)]
    assert codes == [200] * 3
    assert circuit.state == "closed"


async def test_probes_whose_service_token_is_refused_do_not_use_up_a_half_open_circuit(gateway, make_user):
    user = await make_user()
    refusal = {"WWW-Authenticate": f'Bearer realm="{SERVICE_REALM}"'}
    refuse = [True]

    def answer(asked):
        return web.json_response({"code": "denied"}, status=401, headers=refusal) if refuse[0] else ok(asked)

    gateway.stubs["memory"].on("GET", "/memory", answer)
    circuit = half_open(gateway, "memory")
    for _ in range(4):
        assert (await gateway.public.get("/api/memory", headers=user.headers)).status_code == 503

    refuse[0] = False
    codes = [(await gateway.public.get("/api/memory", headers=user.headers)).status_code for _ in range(3)]
    assert codes == [200] * 3
    assert circuit.state == "closed"


async def test_probes_whose_body_is_refused_do_not_use_up_a_half_open_circuit(client_for, make_user):
    user = await make_user()

    async def chunks():
        for _ in range(10):
            yield b"x" * 50_000

    async with client_for("gateway", listen=True) as gateway:
        gateway.stubs["memory"].on("GET", "/memory", ok)
        circuit = half_open(gateway, "memory")
        for _ in range(4):
            answer = await gateway.public.post("/api/memory/store", content=chunks(), headers=user.headers)
            assert answer.status_code == 413
        assert circuit.state == "half_open"

        codes = [(await gateway.public.get("/api/memory", headers=user.headers)).status_code for _ in range(3)]
    assert codes == [200] * 3
    assert circuit.state == "closed"


async def test_a_refusal_of_an_upstream_passes_unchanged(gateway, make_user):
    problem = {"status": 404, "code": "not_found", "detail": "No.", "error": "No."}
    gateway.stubs["memory"].on("GET", "/memory/{}", (404, problem))

    answer = await gateway.public.get("/api/memory/12", headers=(await make_user()).headers)

    assert (answer.status_code, answer.json()) == (404, problem)


async def test_a_browser_gets_permission_only_for_listed_origins(gateway):
    question = {"Access-Control-Request-Method": "POST"}
    listed = await gateway.public.options(
        "/api/chat/message", headers={**question, "Origin": "https://app.example.org"}
    )
    other = await gateway.public.options(
        "/api/chat/message", headers={**question, "Origin": "https://evil.example.org"}
    )

    assert listed.headers["access-control-allow-origin"] == "https://app.example.org"
    assert "access-control-allow-origin" not in other.headers


async def test_status_is_measured_and_health_is_answered_here(gateway, redis_client):
    gateway.stubs["memory"].on("GET", "/health", (200, {"status": "ok"}))
    redis_client.set("hb:reflection-worker:latest", "x")
    await gateway.service.measure()

    body = (await gateway.public.get("/api/status")).json()
    found = {service["name"]: service["status"] for service in body["services"]}

    assert body["status"] == "degraded"
    assert found["memory"] == "up"
    assert found["reflection-worker"] == "up"
    assert found["distillation-worker"] == "down"
    assert (await gateway.public.get("/health")).json()["service"] == "gateway"


async def test_a_body_that_outgrows_its_limit_while_it_streams_is_413(client_for, make_user):
    user = await make_user()

    async def chunks():
        for _ in range(10):
            yield b"x" * 50_000

    async with client_for("gateway", listen=True) as gateway:
        answer = await gateway.public.post("/api/memory/store", content=chunks(), headers=user.headers)

    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


async def test_headers_over_16_kib_are_refused(gateway):
    answer = await gateway.public.get("/api/memory", headers={"X-Long": "x" * 17_000})

    assert answer.status_code == 431


async def test_a_client_that_leaves_ends_the_upstreams_work(client_for, make_user):
    user, started, ended = await make_user(), asyncio.Event(), asyncio.Event()

    async def stream(request):
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        started.set()
        try:
            while True:
                await response.write(b"data: x\n\n")
                await asyncio.sleep(0.02)
        finally:
            ended.set()

    app = web.Application()
    app.router.add_post("/chat/stream", stream)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with client_for("gateway", listen=True) as gateway:
        gateway.platform.app.state.proxy.upstreams["intelligence"].url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        async with gateway.public.stream(
            "POST", "/api/chat/stream", json={"message": "x"}, headers=user.headers
        ) as answer:
            await anext(answer.aiter_text())
        async with asyncio.timeout(10):
            await ended.wait()
            metrics = gateway.platform.metrics
            counted = {
                "method": "POST",
                "route": "/api/chat/stream",
                "code": "other",
            }  # 499 is none of the listed codes
            while not metrics.value("http_requests_total", **counted):
                await asyncio.sleep(0.02)
    await runner.cleanup()


async def test_an_answer_that_breaks_off_is_not_made_to_look_complete(client_for, make_user):
    user = await make_user()

    async def half(request):
        response = web.StreamResponse(headers={"Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b"half")
        request.transport.close()
        return response

    app = web.Application()
    app.router.add_get("/memory", half)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with client_for("gateway", listen=True) as gateway:
        gateway.platform.app.state.proxy.upstreams["memory"].url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        with pytest.raises(httpx.TransportError):
            await gateway.public.get("/api/memory", headers=user.headers)
    await runner.cleanup()
