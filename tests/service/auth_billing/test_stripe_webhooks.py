"""Stripe's calls: who is believed, what is stored, and that each event has its effect once."""

from __future__ import annotations

import asyncio

import pytest

from novacore.auth_billing.payments.signature import sign
from novacore.common import log
from tests.kit.billing import event_body
from tests.kit.stripecalls import Mishaps

OLD, NEW, JUNK = "whsec_old", "whsec_new", "whsec_junk"


async def _post(billing, body: bytes, header: str | None, *, replica: int = 0):
    headers = {"Content-Type": "application/json"} | ({"Stripe-Signature": header} if header is not None else {})
    return await billing.replicas[replica].public.post("/billing/webhooks", content=body, headers=headers)


async def _bought(billing, chaos, people, *, tier: str = "pro"):
    """A person who bought something, and the event of it."""
    (user,) = await people(1)
    chaos.subscribe(chaos.customer(user)["id"], tier=tier)
    return user, chaos.events[-1]


async def test_r30_any_accepted_secret_passes_and_nothing_else(billing, chaos, people):
    billing.mount("stripeWebhook", {"stripeWebhook-1": ("active", OLD), "stripeWebhook-2": ("pending", NEW)})
    _, event = await _bought(billing, chaos, people)
    body, now = event_body(event), chaos.now()
    v1 = {secret: sign(body, [secret], now_s=now).partition(",")[2] for secret in (OLD, NEW, JUNK)}
    zero = "v0=" + "0" * 64

    accepted = [
        await _post(billing, body, f"t={now},{v1[OLD]},{v1[NEW]},{v1[JUNK]},{zero}"),
        await _post(billing, body, f"{zero},{v1[JUNK]},{v1[NEW]},t={now},{v1[OLD]}"),
        await _post(billing, body, f"t={now},{v1[JUNK]},{v1[NEW]}"),
    ]
    refused = [
        await _post(billing, body, header)
        for header in (
            f"t={now},{v1[JUNK]}," + ",".join(f"v1={number:064x}" for number in range(3)),  # all junk
            sign(body, [OLD, NEW], now_s=now - 400),
            sign(body, [OLD, NEW], now_s=now + 400),
            f"t={now + 1},{v1[OLD]}",  # the time is signed too
            f"t={now},t={now},{v1[OLD]}",
            f"t={now},{v1[OLD].replace('v1', 'v0')}",
            f"{v1[OLD]}",
            "",
            None,
        )
    ]

    assert [answer.status_code for answer in accepted] == [200] * 3, accepted[0].text
    assert [answer.json() for answer in accepted] == [{"received": True}] * 3
    assert [answer.status_code for answer in refused] == [400] * 9
    assert await billing.conn.fetchval("SELECT count(*) FROM auth.stripe_events") == 1
    value = billing.replicas[0].platform.metrics.value
    assert value("novacore_stripe_signature_total", secret="pending", result="ok") == 1  # without the old one's v1
    assert value("novacore_stripe_signature_total", secret="current", result="ok") == 2
    assert value("novacore_stripe_signature_total", secret="current", result="bad") == 2  # the wrong times
    assert value("novacore_stripe_signature_total", secret="none", result="bad") == 7
    assert value("novacore_stripe_webhooks_total", type="unverified", result="bad_signature") == 9
    assert value("novacore_stripe_webhooks_total", type="customer.subscription.created", result="duplicate") == 2


async def test_the_signature_is_over_the_bytes_as_they_came(billing, chaos, people):
    _, event = await _bought(billing, chaos, people)
    body = event_body(event)
    header = sign(body, ["whsec_first"], now_s=chaos.now())

    assert (await _post(billing, body.replace(b"\n", b""), header)).status_code == 400
    assert (await _post(billing, body + b" ", header)).status_code == 400
    assert (await _post(billing, body, header)).status_code == 200
    assert bytes(await billing.conn.fetchval("SELECT raw FROM auth.stripe_events")) == body


async def test_a_body_over_256_kib_is_refused_before_its_signature_is_looked_at(billing, chaos):
    body = b"x" * (256 * 1024 + 1)

    answer = await _post(billing, body, sign(body, ["whsec_first"], now_s=chaos.now()))

    assert answer.status_code == 413
    metrics = billing.replicas[0].platform.metrics
    assert metrics.value("novacore_stripe_signature_total", secret="none", result="bad") == 0
    assert (await _post(billing, b"x" * 200_000, "t=1,v1=x")).status_code == 400  # within the bound: looked at


async def test_without_stripe_it_is_billing_disabled_and_without_a_secret_not_ready(auth, billing_for, chaos):
    answer = await auth.public.post("/billing/webhooks", content=b"{}")
    assert (answer.status_code, answer.json()["code"]) == (503, "billing_disabled")

    billing = await billing_for()
    billing.replicas[0].platform.keyrings._credentials.pop("stripeWebhook")
    answer = await _post(billing, b"{}", sign(b"{}", ["whsec_first"], now_s=chaos.now()))
    assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")  # Stripe repeats it


async def test_a_subscription_gives_tier_and_role_at_once_and_takes_them_back(billing, chaos, people, redis_client):
    user, _ = await _bought(billing, chaos, people)
    endpoint = chaos.hooks.add(billing.url, secret="whsec_first")
    subscription = next(iter(chaos.objects["subscriptions"].values()))
    chaos.change(subscription, tier="basic")

    async def seen() -> tuple[str, str]:
        assert await chaos.hooks.pump() == 1
        await billing.work()
        row = await billing.conn.fetchrow("SELECT subscription_tier, role FROM auth.users WHERE id = $1", user)
        return tuple(row)

    assert await seen() == ("basic", "subscriber")
    assert redis_client.get(f"tok:tier:{user}") == "basic"
    for status, expected in (
        ("past_due", ("basic", "subscriber")),
        ("unpaid", ("free_trial", "student")),
        ("active", ("basic", "subscriber")),
        ("canceled", ("free_trial", "student")),
    ):
        chaos.change(subscription, status=status)
        assert await seen() == expected, status
    assert redis_client.get(f"tok:tier:{user}") == "free_trial"
    told = await billing.conn.fetch(
        "SELECT payload FROM auth.outbox WHERE type = 'tier.changed' ORDER BY created_at, id"
    )
    assert [(row["payload"]["tier"], row["payload"]["role"]) for row in told] == [
        ("basic", "subscriber"), ("free_trial", "student"), ("basic", "subscriber"), ("free_trial", "student"),
    ]  # fmt: skip
    assert endpoint.id in chaos.hooks.endpoints


async def test_a_failed_payment_is_borne_for_seven_days(billing, chaos, people, clock):
    user, _ = await _bought(billing, chaos, people)
    chaos.hooks.add(billing.url, secret="whsec_first")
    chaos.change(next(iter(chaos.objects["subscriptions"].values())), status="past_due")
    await chaos.hooks.pump()
    await billing.work()

    async def tier() -> str:
        await billing.payments.reconciler.turn(at_once=True)
        return await billing.conn.fetchval("SELECT subscription_tier FROM auth.users WHERE id = $1", user)

    clock.advance(days=6, hours=23)
    assert await tier() == "pro"
    clock.advance(hours=2)
    assert await tier() == "free_trial"


async def test_an_administrator_stays_what_he_is(billing, chaos, people):
    user, _ = await _bought(billing, chaos, people, tier="basic")
    await billing.conn.execute("UPDATE auth.users SET role = 'admin', subscription_tier = 'pro' WHERE id = $1", user)
    await billing.payments.reconciler.turn(at_once=True)
    await billing.work()

    row = await billing.conn.fetchrow("SELECT subscription_tier, role FROM auth.users WHERE id = $1", user)
    assert tuple(row) == ("pro", "admin")
    assert await billing.conn.fetchval("SELECT status FROM auth.subscriptions WHERE user_id = $1", user) == "active"


@pytest.mark.invariant("INBOX-1")
@pytest.mark.invariant("INBOX-2")
async def test_r31_one_event_fifty_times_at_once_on_three_receivers_has_one_effect(billing_for, chaos, people):
    billing = await billing_for(replicas=3, workers=2)
    user, _ = await _bought(billing, chaos, people)
    invoice = chaos.bill(next(iter(chaos.objects["subscriptions"].values())))
    body = event_body(chaos.events[-1])
    header = sign(body, ["whsec_first"], now_s=chaos.now())

    answers = await asyncio.gather(*(_post(billing, body, header, replica=number % 3) for number in range(50)))
    await billing.settled()

    assert [answer.status_code for answer in answers] == [200] * 50
    stored = sum(
        service.platform.metrics.value("novacore_stripe_webhooks_total", type="invoice.paid", result="ok")
        for service in billing.replicas
    )
    assert stored == 1
    assert (await billing.done())[chaos.events[-1]["id"]] == 1
    assert await billing.ledger() == {invoice["id"]: (2900, 1)}
    assert await billing.conn.fetchval("SELECT count(*) FROM auth.outbox WHERE type = 'tier.changed'") == 1
    assert await billing.conn.fetchval("SELECT subscription_tier FROM auth.users WHERE id = $1", user) == "pro"


async def test_a_twin_has_no_second_effect(billing, chaos, people):
    """Two endpoints of one account can bring the same news under two ids."""
    await _bought(billing, chaos, people)
    chaos.hooks.add(billing.url, secret="whsec_first")
    invoice = chaos.bill(next(iter(chaos.objects["subscriptions"].values())))
    await chaos.hooks.pump()
    await billing.work()
    chaos.emit("invoice.paid", invoice)
    await chaos.hooks.pump()
    await billing.work()

    assert sorted((await billing.done()).values()) == [1, 1]
    assert await billing.ledger() == {invoice["id"]: (2900, 1)}


async def test_a_stripe_that_is_away_keeps_events_waiting_and_a_sick_object_keeps_nobody(billing, chaos, people):
    await _bought(billing, chaos, people)
    subscription = next(iter(chaos.objects["subscriptions"].values()))
    chaos.hooks.add(billing.url, secret="whsec_first")
    sick, well = chaos.bill(subscription), chaos.bill(subscription)
    del chaos.objects["invoices"][sick["id"]]["currency"]  # not the shape it must have
    await chaos.hooks.pump()
    chaos.fate = lambda _method, path: "status_503" if "/subscriptions/" in path else "served"
    billing.payments.gate._sleep = _no_pause

    with pytest.raises(Exception, match="status_503"):
        await billing.work()
    assert await billing.conn.fetchval("SELECT sum(attempts) FROM auth.stripe_events") <= 1  # of the sick one
    chaos.fate = lambda _method, _path: "served"
    await billing.work()

    assert await billing.ledger() == {well["id"]: (2900, 1)}
    row = await billing.conn.fetchrow("SELECT * FROM auth.stripe_events WHERE object_id = $1", sick["id"])
    assert (row["status"], row["attempts"], row["last_error"]) == ("pending", 1, "KeyError")
    assert row["due_at"] > row["created_at"]
    chaos.objects["invoices"][sick["id"]]["currency"] = "usd"
    chaos.clock.advance(seconds=5)
    await billing.work()
    assert (await billing.ledger()).keys() == {sick["id"], well["id"]}


async def test_events_of_a_leaked_secret_are_asked_for_by_id_before_they_count(billing, chaos, people):
    """Stripe does not know what it did not send; what it sent has its effect all the same."""
    user, event = await _bought(billing, chaos, people)
    forged = {**event, "id": "evt_made_up", "data": {"object": {"id": "sub_made_up"}}}
    for one in (event, forged):
        body = event_body(one)
        assert (await _post(billing, body, sign(body, ["whsec_first"], now_s=chaos.now()))).status_code == 200

    billing.mount("stripeWebhook", {"stripeWebhook-2": ("active", NEW)}, revoked=["stripeWebhook-1"])
    await billing.work()

    rows = await billing.conn.fetch("SELECT event_id, status, via, secret_id FROM auth.stripe_events ORDER BY event_id")
    assert {row["event_id"]: (row["status"], row["via"]) for row in rows} == {
        event["id"]: ("done", "reconcile"), "evt_made_up": ("forged", "webhook"),
    }  # fmt: skip
    assert any(entry["path"] == "/v1/events/evt_made_up" for entry in chaos.journal)
    assert await billing.conn.fetchval("SELECT subscription_tier FROM auth.users WHERE id = $1", user) == "pro"
    body = event_body(event)
    assert (await _post(billing, body, sign(body, ["whsec_first"], now_s=chaos.now()))).status_code == 400


async def test_after_a_leak_all_that_stripe_lists_is_looked_through(billing, chaos, people, clock):
    """Who had the secret may have kept events away; the watermark of a quiet day is not believed."""
    await _bought(billing, chaos, people)
    chaos.hooks.add(billing.url, secret="whsec_first")
    clock.advance(days=3)
    chaos.bill(next(iter(chaos.objects["subscriptions"].values())))
    await chaos.hooks.pump()
    await billing.payments.reconciler.turn()  # the daily one
    await billing.work()
    lost = chaos.events[0]["id"]
    await billing.conn.execute("DELETE FROM auth.stripe_events WHERE event_id = $1", lost)
    clock.advance(minutes=6)
    quiet = await billing.payments.reconciler.turn()
    assert quiet is not None
    assert quiet.stored == 0

    billing.mount("stripeWebhook", {"stripeWebhook-2": ("active", NEW)}, revoked=["stripeWebhook-1"])
    report = await billing.payments.reconciler.turn(at_once=True)

    assert report is not None
    assert (report.listed, report.stored) == (2, 1)
    await billing.work()
    assert await billing.conn.fetchval("SELECT status FROM auth.stripe_events WHERE event_id = $1", lost) == "done"


@pytest.mark.invariant("BILL-1")
async def test_order_does_not_matter(billing, chaos, people):
    """A life cycle in a shuffled order with duplicates, each event worked by itself, ends as it ended at Stripe."""
    users = await people(3)
    chaos.hooks.add(billing.url, secret="whsec_first")
    chaos.live(users, events=40)
    assert {event["type"] for event in chaos.events} >= {"invoice.paid", "customer.subscription.deleted"}

    mishaps = Mishaps(duplicated=0.3, shuffled=True)
    calls = await chaos.hooks.pump(mishaps, at_once=1)
    await billing.work()

    assert calls > 40
    assert await billing.differences() == []
    assert set((await billing.done()).values()) == {1}


async def _no_pause(_seconds: float) -> None:
    await asyncio.sleep(0)


async def test_no_secret_is_shown_anywhere(billing, chaos, people, capsys):
    """Not in a log line, a metric, `/readyz`, or what Stripe's callers are told; not even when everything fails."""
    log._state.repeats.clear()  # a line that was written a moment ago, in another test, is only counted
    await _bought(billing, chaos, people)
    body = event_body(chaos.events[-1])
    for header in (sign(body, ["whsec_first"], now_s=chaos.now()), sign(body, ["whsec_other"], now_s=chaos.now())):
        await _post(billing, body, header)
    chaos.expire("rk_test_first")
    with pytest.raises(Exception, match="key_refused"):
        await billing.work()
    internal = billing.replicas[0].internal
    shown = [(await internal.get(path)).text for path in ("/metrics", "/readyz", "/internal/keyset")]
    shown += [capsys.readouterr().out, repr(billing.payments.receiver.secrets()), repr(billing.payments.gate._clients)]

    assert "stripe_key_refused" in shown[3]
    assert all(len(text) > 40 for text in shown)
    for text in shown:
        assert "whsec_" not in text
        assert "rk_test" not in text
