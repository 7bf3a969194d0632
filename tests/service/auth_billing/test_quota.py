"""The ledger through its internal routes, and what a person may read of it."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from novacore.auth_billing import repository, tasks
from novacore.common.streams import Envelope, PoisonError
from novacore_contracts.identity import SERVICE_TOKEN_HEADER

DAY_LIMIT = 1000  # of free_trial


@pytest.fixture
def ledger(auth, keys, clock):
    """`answer = await ledger("reserve", hold_id=…, …)` as intelligence, whose token is of the moved clock's time."""

    async def call(what, *, service="intelligence", **body):
        json = {key: str(value) if isinstance(value, UUID) else value for key, value in body.items()}
        now = int(clock.now().timestamp())
        token = keys.service_token(service, iat=now, nbf=now, exp=now + 3600)
        return await auth.internal.post(f"/internal/quota/{what}", json=json, headers={SERVICE_TOKEN_HEADER: token})

    return call


@pytest.fixture
def balance(admin_conn):
    async def read(user_id, resource="llm_tokens"):
        row = await admin_conn.fetchrow(
            "SELECT used, reserved FROM auth.quota_balance WHERE user_id = $1 AND resource = $2", user_id, resource
        )
        return (row["used"], row["reserved"]) if row else (0, 0)

    return read


@pytest.fixture
async def consistent(admin_conn):
    """After the test: QUOTA-1, QUOTA-2 and QUOTA-3 hold."""
    yield
    drift = await admin_conn.fetch("SELECT * FROM auth.quota_drift()")
    assert [row for row in drift if row["drift"]] == []
    assert await admin_conn.fetch("SELECT * FROM auth.quota_balance WHERE cap >= 0 AND used + reserved > cap") == []
    wrong = await admin_conn.fetch(
        "SELECT b.user_id FROM auth.quota_balance b LEFT JOIN auth.quota_hold h ON h.user_id = b.user_id"
        " AND h.resource = b.resource AND h.window_start = b.window_start AND h.state = 'held'"
        " GROUP BY b.user_id, b.resource, b.window_start, b.reserved HAVING b.reserved <> coalesce(sum(h.amount), 0)"
    )
    assert wrong == []


pytestmark = pytest.mark.usefixtures("consistent")


def tokens(user, amount, **more):
    return {"hold_id": uuid4(), "user_id": user.id, "resource": "llm_tokens", "amount": amount, **more}


async def test_a_reservation_answers_with_what_is_granted_and_left(ledger, make_user, balance):
    user = await make_user(tier="free_trial")

    answer = await ledger("reserve", **tokens(user, 400))

    body = answer.json()
    assert answer.status_code == 200
    assert body.keys() == {"granted", "remaining", "limit", "resets_at", "expires_at"}
    assert (body["granted"], body["remaining"], body["limit"]) == (400, 600, 1000)
    assert body["resets_at"].endswith("T00:00:00Z")
    assert await balance(user.id) == (0, 400)


async def test_the_same_hold_id_gets_the_same_answer_and_holds_once(ledger, make_user, balance):
    user = await make_user(tier="free_trial")
    body = tokens(user, 400)

    first, second = await ledger("reserve", **body), await ledger("reserve", **body)

    assert first.json() == second.json()
    assert await balance(user.id) == (0, 400)


async def test_twenty_parallel_calls_with_one_hold_id_hold_once(ledger, make_user, balance):
    user = await make_user(tier="free_trial")
    body = tokens(user, 900)

    answers = await asyncio.gather(*(ledger("reserve", **body) for _ in range(20)))

    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.text for answer in answers}) == 1
    assert await balance(user.id) == (0, 900)


async def test_what_is_left_is_granted_down_to_the_minimum(ledger, make_user):
    user = await make_user(tier="free_trial")
    await ledger("reserve", **tokens(user, 900))

    partial = await ledger("reserve", **tokens(user, 500, min_amount=64))
    refused = await ledger("reserve", **tokens(user, 500, min_amount=64))

    assert partial.json()["granted"] == 100
    assert refused.status_code == 429


async def test_beyond_the_limit_is_429_with_everything_a_client_needs(ledger, make_user, auth):
    user = await make_user(tier="free_trial")
    await ledger("reserve", **tokens(user, 1000))

    answer = await ledger("reserve", **tokens(user, 1))

    body = answer.json()
    assert (answer.status_code, body["code"]) == (429, "quota_exceeded")
    assert (body["resource"], body["used"], body["limit"]) == ("llm_tokens", 1000, 1000)
    assert body["resets_at"].endswith("T00:00:00Z")
    assert int(answer.headers["retry-after"]) > 0
    labels = {"resource": "llm_tokens", "tier": "free_trial"}
    assert auth.platform.metrics.value("novacore_quota_reservations_total", **labels, result="denied") == 1


async def test_a_hundred_parallel_reservations_admit_exactly_what_fits(ledger, make_user, balance):
    user = await make_user(tier="free_trial")

    answers = await asyncio.gather(*(ledger("reserve", **tokens(user, 60)) for _ in range(100)))

    assert sum(answer.status_code == 200 for answer in answers) == 16
    assert {answer.status_code for answer in answers} == {200, 429}
    assert await balance(user.id) == (0, 960)


async def test_two_parallel_first_calls_of_a_window_that_both_fit_are_both_granted(ledger, make_user, balance):
    for _ in range(10):
        user = await make_user(tier="free_trial")

        holds = await asyncio.gather(*(ledger("reserve", **tokens(user, 500)) for _ in range(2)))
        storage = await asyncio.gather(
            *(ledger("adjust", idempotency_key=f"{user.id}-{n}", user_id=user.id, delta=500) for n in range(2))
        )

        assert [answer.status_code for answer in holds + storage] == [200] * 4
        assert await balance(user.id) == (0, 1000)
        assert await balance(user.id, "memory_storage") == (1000, 0)


@pytest.mark.parametrize("what", ["reserve", "adjust"])
async def test_a_first_call_that_waited_for_another_ones_window_is_granted(ledger, make_user, admin_conn, what):
    user = await make_user(tier="free_trial")
    body = tokens(user, 500) if what == "reserve" else {"idempotency_key": "k", "user_id": user.id, "delta": 500}
    # The other call's window, as it stands before its commit; 1970 is storage's, the rest is today's.
    resource, start = ("llm_tokens", "date_trunc('day', now(), 'UTC')") if what == "reserve" else (
        "memory_storage", "to_timestamp(0)"
    )  # fmt: skip
    async with admin_conn.transaction():
        await admin_conn.execute(
            "INSERT INTO auth.quota_balance (user_id, resource, window_start, cap)"
            f" VALUES ($1, $2, {start}, 1000)", user.id, resource,
        )  # fmt: skip
        call = asyncio.ensure_future(ledger(what, **body))
        async with asyncio.timeout(10):
            while not await admin_conn.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
                assert not call.done()
                await asyncio.sleep(0.01)

    assert (await call).status_code == 200


async def test_a_day_over_midnight_utc_starts_with_a_full_allowance(ledger, make_user, clock, balance):
    user = await make_user(tier="free_trial")
    await ledger("reserve", **tokens(user, 1000))
    now = clock.now()
    clock.advance(seconds=(now.replace(hour=0, minute=0, second=0) + timedelta(days=1) - now).total_seconds() + 1)

    assert (await ledger("reserve", **tokens(user, 1000))).status_code == 200


async def test_unlimited_grants_anything_and_reports_minus_one(ledger, make_user):
    user = await make_user(tier="pro")

    body = (await ledger("reserve", **tokens(user, 10**9))).json()

    assert (body["granted"], body["remaining"], body["limit"]) == (10**9, -1, -1)


async def test_a_trial_that_is_over_is_402_and_ones_usage_stays_readable(ledger, auth, register, as_user, clock):
    session = await register()
    hold = {"hold_id": uuid4(), "user_id": session["user"]["id"], "resource": "llm_tokens", "amount": 10}
    clock.advance(days=7, seconds=1)

    refused = await ledger("reserve", **hold)
    storage = await ledger("adjust", idempotency_key="k", user_id=session["user"]["id"], delta=1)
    fresh = await auth.public.post(
        "/auth/login", json={"email": "ada@example.org", "password": "correct horse battery"}
    )

    assert (refused.status_code, refused.json()["code"]) == (402, "trial_over")
    assert (storage.status_code, storage.json()["code"]) == (402, "trial_over")
    clock.ahead = timedelta()  # the verifier of this test has the real time
    assert fresh.status_code == 200
    assert (await auth.public.get("/usage/quota", headers=as_user(session))).status_code == 200


async def test_an_unknown_user_is_404(ledger, make_user):
    user = await make_user()

    answer = await ledger("reserve", **{**tokens(user, 1), "user_id": uuid4()})

    assert answer.status_code == 404


async def test_a_hold_id_of_another_user_is_409_and_changes_nothing(ledger, make_user, balance):
    ada, bob = await make_user(tier="free_trial"), await make_user(tier="free_trial")
    hold = tokens(ada, 400)
    await ledger("reserve", **hold)

    answer = await ledger("reserve", **{**hold, "user_id": bob.id})

    assert (answer.status_code, answer.json()["code"]) == (409, "idempotency_conflict")
    assert await balance(bob.id) == (0, 0)


@pytest.mark.parametrize(
    "wrong",
    [{"amount": 0}, {"amount": 10, "min_amount": 11}, {"ttl_s": 901}, {"resource": "messages"}, {"extra": 1}],
)
async def test_a_malformed_reservation_is_400(ledger, make_user, wrong):
    user = await make_user()

    assert (await ledger("reserve", **{**tokens(user, 10), **wrong})).status_code == 400


async def test_settling_bills_what_was_used_and_frees_the_rest(ledger, make_user, balance, admin_conn):
    user = await make_user(tier="free_trial")
    hold = tokens(user, 400)
    await ledger("reserve", **hold)

    answer = await ledger("settle", hold_id=hold["hold_id"], actual=150, metadata={"run_id": "r1"})

    assert answer.json() == {"hold_id": str(hold["hold_id"]), "state": "settled", "billed": 150, "clamped": 0}
    assert await balance(user.id) == (150, 0)
    row = await admin_conn.fetchrow("SELECT * FROM auth.usage_ledger")
    assert (row["amount"], row["metadata"], row["resource_type"]) == (150, {"run_id": "r1"}, "llm_tokens")


async def test_settling_twice_bills_once(ledger, make_user, balance):
    user = await make_user(tier="free_trial")
    hold = tokens(user, 400)
    await ledger("reserve", **hold)

    answers = await asyncio.gather(
        *(ledger("settle", hold_id=hold["hold_id"], actual=150, metadata={}) for _ in range(8))
    )

    assert {answer.text for answer in answers} == {answers[0].text}
    assert await balance(user.id) == (150, 0)


async def test_more_than_granted_is_clamped_and_counted(ledger, make_user, balance, admin_conn):
    user = await make_user(tier="free_trial")
    hold = tokens(user, 400)
    await ledger("reserve", **hold)

    answer = await ledger("settle", hold_id=hold["hold_id"], actual=450, metadata={})

    assert (answer.json()["billed"], answer.json()["clamped"]) == (400, 50)
    assert await balance(user.id) == (400, 0)
    assert await admin_conn.fetchval("SELECT clamped FROM auth.quota_hold") == 50


async def test_releasing_bills_nothing_and_cannot_be_settled_afterwards(ledger, make_user, balance):
    user = await make_user(tier="free_trial")
    hold = tokens(user, 400)
    await ledger("reserve", **hold)

    released = await ledger("release", hold_id=hold["hold_id"])
    settled = await ledger("settle", hold_id=hold["hold_id"], actual=100, metadata={})

    assert released.json()["state"] == settled.json()["state"] == "released"
    assert await balance(user.id) == (0, 0)
    assert (await ledger("reserve", **hold)).status_code == 409  # a closed hold is no hold


async def test_an_abandoned_hold_expires_and_bills_its_checkpoint(ledger, make_user, balance, auth, clock):
    user = await make_user(tier="free_trial")
    hold = tokens(user, 400, ttl_s=60)
    await ledger("reserve", **hold)
    for amount in (32, 96, 64):  # a late report does not take back an earlier one
        assert (await ledger("checkpoint", hold_id=hold["hold_id"], amount=amount)).status_code == 200
    clock.advance(seconds=59)
    assert await auth.service.ledger.sweep() == 0

    clock.advance(seconds=2)
    assert await auth.service.ledger.sweep() == 1

    assert await balance(user.id) == (96, 0)
    late = await ledger("checkpoint", hold_id=hold["hold_id"], amount=128)
    assert late.status_code == 409


async def test_settling_after_expiry_bills_only_the_difference(ledger, make_user, balance, auth, clock):
    user = await make_user(tier="free_trial")
    hold = tokens(user, 400, ttl_s=60)
    await ledger("reserve", **hold)
    await ledger("checkpoint", hold_id=hold["hold_id"], amount=96)
    clock.advance(seconds=61)
    await auth.service.ledger.sweep()

    for _ in range(2):
        answer = await ledger("settle", hold_id=hold["hold_id"], actual=130, metadata={})
        assert answer.json() == {"hold_id": str(hold["hold_id"]), "state": "settled", "billed": 130, "clamped": 0}

    assert await balance(user.id) == (130, 0)


async def test_settling_after_expiry_never_passes_the_limit(ledger, make_user, balance, auth, clock):
    user = await make_user(tier="free_trial")
    hold = tokens(user, 400, ttl_s=60)
    await ledger("reserve", **hold)
    clock.advance(seconds=61)
    await auth.service.ledger.sweep()
    await ledger("reserve", **tokens(user, 900))  # somebody used the room meanwhile

    answer = await ledger("settle", hold_id=hold["hold_id"], actual=400, metadata={})

    assert (answer.json()["billed"], answer.json()["clamped"]) == (100, 300)
    assert await balance(user.id) == (100, 900)


async def test_two_sweepers_at_once_bill_each_hold_once(ledger, make_user, balance, auth, clock):
    users = [await make_user(tier="free_trial") for _ in range(6)]
    for user in users:
        hold = tokens(user, 100, ttl_s=1)
        await ledger("reserve", **hold)
        await ledger("checkpoint", hold_id=hold["hold_id"], amount=7)
    clock.advance(seconds=2)

    swept = await asyncio.gather(*(auth.service.ledger.sweep() for _ in range(3)))

    assert sum(swept) == 6
    assert [await balance(user.id) for user in users] == [(7, 0)] * 6


@pytest.mark.parametrize(
    ("what", "body"),
    [("checkpoint", {"amount": 1}), ("settle", {"actual": 1, "metadata": {}}), ("release", {})],
)
async def test_an_unknown_hold_is_404(ledger, what, body):
    assert (await ledger(what, hold_id=uuid4(), **body)).status_code == 404


async def test_storage_grows_within_its_limit_and_shrinks_freely(ledger, make_user, balance):
    user = await make_user(tier="free_trial")
    gibibyte = 1 << 30

    up = await ledger("adjust", service="memory", idempotency_key="a", user_id=user.id, delta=gibibyte - 10)
    over = await ledger("adjust", service="memory", idempotency_key="b", user_id=user.id, delta=11)
    down = await ledger("adjust", service="memory", idempotency_key="c", user_id=user.id, delta=-100)

    assert up.json() == {"used": gibibyte - 10, "limit": gibibyte, "remaining": 10}
    assert (over.status_code, over.json()["resource"], over.json()["resets_at"]) == (429, "memory_storage", None)
    assert down.json()["used"] == gibibyte - 110
    assert await balance(user.id, "memory_storage") == (gibibyte - 110, 0)


async def test_an_adjustment_counts_once_per_key(ledger, make_user, balance):
    user = await make_user()

    same = await asyncio.gather(
        *(ledger("adjust", idempotency_key="store-1", user_id=user.id, delta=500) for _ in range(8))
    )
    other = await ledger("adjust", idempotency_key="store-1", user_id=user.id, delta=501)

    assert {answer.status_code for answer in same} == {200}
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_conflict")
    assert await balance(user.id, "memory_storage") == (500, 0)


async def test_a_refused_adjustment_may_be_tried_again_under_its_key(ledger, make_user):
    user = await make_user(tier="free_trial")
    await ledger("adjust", idempotency_key="a", user_id=user.id, delta=1 << 30)
    assert (await ledger("adjust", idempotency_key="b", user_id=user.id, delta=1)).status_code == 429
    await ledger("adjust", idempotency_key="c", user_id=user.id, delta=-1)

    assert (await ledger("adjust", idempotency_key="b", user_id=user.id, delta=1)).status_code == 200


async def test_two_users_may_use_the_same_key(ledger, make_user, balance):
    ada, bob = await make_user(), await make_user()
    for user in (ada, bob):
        await ledger("adjust", idempotency_key="same", user_id=user.id, delta=5)

    assert await balance(ada.id, "memory_storage") == await balance(bob.id, "memory_storage") == (5, 0)


async def test_more_refund_than_was_used_ends_at_zero(ledger, make_user, balance):
    user = await make_user()
    await ledger("adjust", idempotency_key="a", user_id=user.id, delta=5)
    await ledger("adjust", idempotency_key="b", user_id=user.id, delta=-50)

    assert await balance(user.id, "memory_storage") == (0, 0)


@pytest.mark.parametrize("what", ["reserve", "checkpoint", "settle", "release", "adjust"])
async def test_the_ledger_is_written_only_by_services_that_may(auth, make_user, what):
    user = await make_user()
    path = f"/internal/quota/{what}"

    codes = [
        (await auth.internal.post(path, json={}, headers=headers)).status_code
        for headers in (
            {},
            user.headers,
            auth.headers(user),  # the gateway's * is no quota:write
            auth.headers(service="ngs-curriculum"),
            auth.headers(service="intelligence"),
        )
    ]

    assert codes == [401, 401, 403, 403, 400]
    assert (await auth.public.post(path, json={}, headers=auth.headers(service="intelligence"))).status_code == 404


async def test_postgres_away_is_503_and_never_a_grant(ledger, make_user, auth):
    user = await make_user()
    await auth.platform.db.close()

    answer = await ledger("reserve", **tokens(user, 1))

    assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")


async def test_usage_shows_like_compared_with_like(ledger, auth, make_user):
    user = await make_user(tier="free_trial")
    hold = tokens(user, 900)
    await ledger("reserve", **hold)
    await ledger("settle", hold_id=hold["hold_id"], actual=850, metadata={})
    await ledger("adjust", idempotency_key="a", user_id=user.id, delta=1 << 29)

    async def get(path):
        answer = await auth.public.get(path, headers=auth.headers(user))
        assert answer.status_code == 200, answer.text
        return answer.json()

    quota = await get("/usage/quota")
    assert quota["tier"] == "free_trial"
    assert quota["tokens"] | {"resets_at": 0} == {"used": 850, "limit": 1000, "percentage": 85.0, "resets_at": 0}
    assert quota["storage"] == {"used": 1 << 29, "limit": 1 << 30, "percentage": 50.0}
    assert quota["agent_minutes"]["limit"] == 0
    assert (await get("/usage/tokens"))["percentage"] == 85.0
    assert (await get("/usage/storage"))["humanReadable"] == "512.0 MiB"
    assert (await get("/usage/tier"))["limits"] == {
        "llmTokensDay": 1000, "memoryStorageBytes": 1 << 30, "agentMinutesMonth": 0
    }  # fmt: skip
    stats = await get("/usage/stats?days=7")
    assert stats.keys() == {"userId", "period", "breakdown", "limits", "warnings", "timestamp"}
    assert [entry["amount"] for entry in stats["breakdown"]] == [850, 1 << 29, 0]
    assert len(stats["warnings"]) == 1
    series = await get("/usage/timeseries/llm_tokens?days=3")
    assert [day["amount"] for day in series] == [0, 0, 850]


async def test_advice_reserves_nothing(auth, ledger, make_user, balance):
    user = await make_user(tier="free_trial")

    async def ask(amount):
        body = {"resourceType": "llm_tokens", "amount": amount}
        return (await auth.public.post("/usage/check-quota", json=body, headers=auth.headers(user))).json()["hasQuota"]

    assert [await ask(1000), await ask(1001)] == [True, False]
    assert await balance(user.id) == (0, 0)


@pytest.mark.parametrize(
    "path",
    [
        "/usage/stats?days=0",
        "/usage/stats?days=91",
        "/usage/timeseries/messages",
        "/usage/timeseries/llm_tokens?days=x",
    ],
)
async def test_usage_questions_out_of_bounds_are_400(auth, make_user, path):
    assert (await auth.public.get(path, headers=auth.headers(await make_user()))).status_code == 400


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/auth/me"), ("POST", "/auth/password"), ("GET", "/usage/quota"), ("GET", "/usage/stats"),
        ("GET", "/usage/tokens"), ("GET", "/usage/storage"), ("GET", "/usage/timeseries/llm_tokens"),
        ("GET", "/usage/tier"), ("POST", "/usage/check-quota"), ("POST", "/billing/create-checkout"),
        ("GET", "/billing/portal"),
    ],
)  # fmt: skip
async def test_every_user_route_wants_both_tokens(auth, make_user, method, path):
    user = await make_user()
    forged = {"X-User-Id": str(user.id), "X-User-Role": "admin", "X-Act-For": str(user.id)}

    for headers in (forged, user.headers | forged, auth.headers() | forged):
        assert (await auth.public.request(method, path, headers=headers)).status_code == 401
    stranger = auth.headers(user, service="noble-spirit")
    assert (await auth.public.request(method, path, headers=stranger)).status_code == 403


async def test_one_sees_ones_own_usage_only(auth, ledger, make_user):
    ada, bob = await make_user(tier="basic"), await make_user(tier="basic")
    await ledger("adjust", idempotency_key="a", user_id=ada.id, delta=77)

    answer = await auth.public.get("/usage/storage", headers=auth.headers(bob) | {"X-User-Id": str(ada.id)})

    assert answer.json()["used"] == 0


async def test_a_new_tier_counts_at_once(ledger, auth, make_user, redis_client, admin_conn):
    user = await make_user(tier="free_trial")
    await ledger("reserve", **tokens(user, 1000))

    await auth.service.accounts.change_tier(user.id, "basic")

    assert (await ledger("reserve", **tokens(user, 49_000))).status_code == 200
    assert redis_client.get(f"tok:tier:{user.id}") == "basic"
    assert await admin_conn.fetchval("SELECT cap FROM auth.quota_balance") == 50_000
    assert await admin_conn.fetchval("SELECT type FROM auth.outbox") == "tier.changed"


async def test_the_stream_settles_a_run_once(auth, ledger, make_user, balance):
    user = await make_user(tier="free_trial")
    hold = tokens(user, 400)
    await ledger("reserve", **hold)
    messages = tasks.Messages(auth.platform, auth.service)
    payload = {"hold_id": str(hold["hold_id"]), "actual": 120, "metadata": {"run_id": "r"}}

    for _ in range(2):
        await messages.usage_settle(Envelope(type="usage.settle", user_id=user.id, payload=payload))

    assert await balance(user.id) == (120, 0)


async def test_a_message_on_the_stream_arrives_without_being_asked_for(auth, ledger, make_user, balance, redis_client):
    user = await make_user(tier="free_trial")
    envelope = Envelope(type="usage.adjust", user_id=user.id, payload={"idempotency_key": "m1", "delta": 42})

    redis_client.xadd("stream:outbox:memory", {"e": envelope.model_dump_json()})

    async with asyncio.timeout(10):
        while await balance(user.id, "memory_storage") != (42, 0):
            await asyncio.sleep(0.05)


async def test_messages_that_can_never_succeed_are_poison(auth, make_user):
    user = await make_user()
    messages = tasks.Messages(auth.platform, auth.service)
    poison = [
        (messages.usage_settle, Envelope(type="usage.other", payload={})),
        (messages.usage_settle, Envelope(type="usage.settle", payload={"hold_id": "x", "actual": 1})),
        (messages.usage_settle, Envelope(type="usage.settle", payload={"hold_id": str(uuid4()), "actual": 1})),
        (messages.usage_adjust, Envelope(type="usage.adjust", payload={"idempotency_key": "k", "delta": 1})),
        (messages.progress_changed, Envelope(type="progress.changed", user_id=user.id, payload={"current_level": 99})),
    ]

    for handler, envelope in poison:
        with pytest.raises(PoisonError):
            await handler(envelope)


async def test_progress_is_copied_and_never_goes_back(auth, make_user, admin_conn):
    user = await make_user()
    messages = tasks.Messages(auth.platform, auth.service)
    for level, xp in ((3, 260), (2, 110)):
        payload = {"current_level": level, "total_xp": xp}
        await messages.progress_changed(Envelope(type="progress.changed", user_id=user.id, payload=payload))

    row = await admin_conn.fetchrow("SELECT ngs_level, ngs_total_xp FROM auth.users WHERE id = $1", user.id)
    assert tuple(row.values()) == (3, 260)


async def test_figures_say_how_many_and_never_who(auth, ledger, make_user, clock):
    users = [await make_user(tier="free_trial"), await make_user(tier="pro")]
    hold = tokens(users[0], 900)
    await ledger("reserve", **hold)
    await ledger("settle", hold_id=hold["hold_id"], actual=850, metadata={})
    await ledger("reserve", **tokens(users[1], 5))

    await tasks.measure(auth.platform)

    value = auth.platform.metrics.value
    assert value("novacore_users", tier="free_trial") == 1
    assert value("novacore_users_active", window="1d") == 2
    assert value("novacore_quota_users", resource="llm_tokens", tier="free_trial", band="80") == 1
    assert value("novacore_quota_users", resource="llm_tokens", tier="pro", band="0") == 1
    assert value("novacore_quota_limit", resource="llm_tokens", tier="pro") == -1
    assert value("novacore_quota_holds_open") == 1
    assert value("novacore_quota_ledger_drift", resource="llm_tokens") == 0
    assert value("novacore_usage_total", resource="llm_tokens", tier="free_trial") == 850


async def test_drift_is_seen(admin_conn, auth, make_user):
    user = await make_user()
    await auth.service.ledger.adjust(key="a", user_id=user.id, delta=10)
    await admin_conn.execute("UPDATE auth.quota_balance SET used = used + 3")

    await tasks.measure(auth.platform)

    assert auth.platform.metrics.value("novacore_quota_ledger_drift", resource="memory_storage") == 3
    await admin_conn.execute("UPDATE auth.quota_balance SET used = used - 3")


async def test_the_ledger_refuses_changes(admin_conn, auth, make_user):
    user = await make_user()
    await auth.service.ledger.adjust(key="a", user_id=user.id, delta=10)

    with pytest.raises(Exception, match="append-only"):
        await admin_conn.execute("UPDATE auth.usage_ledger SET amount = 1")


async def test_old_rows_go_and_next_months_partition_comes(auth, register, clock, admin_conn):
    await register()
    clock.advance(days=40)
    async with auth.platform.db.transaction() as conn:
        counts = await repository.tidy(conn, clock.now())

    assert counts["refresh_tokens"] == 1
    assert counts["partitions"] >= 1
    assert await admin_conn.fetchval("SELECT count(*) FROM auth.usage_ledger_default") == 0
