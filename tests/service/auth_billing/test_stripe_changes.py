"""Stripe through every change: secrets and keys rotated, deliveries lost, a receiver that was dead for days."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from novacore.auth_billing.payments.gate import StripeAwayError
from tests.kit.billing import Billing
from tests.kit.stripecalls import Mishaps
from tests.kit.stripechaos import Chaos
from tests.service.auth_billing.stripe_runs import charge_all, planned_rotation

EVENTS = 250  # 5,000 and more with `make soak-stripe`: on two cores they take longer than CI may


@pytest.mark.invariant("INBOX-2")
async def test_r29_a_planned_rotation_of_the_webhook_secret_loses_and_doubles_nothing(billing_for, chaos, people):
    billing = await billing_for(workers=2, reconcile_seconds=86_400)
    run = await planned_rotation(billing, users=await people(20), events=EVENTS)

    assert len(chaos.events) == EVENTS
    assert min(run.calls_by_phase.values()) > EVENTS // 8, run
    for secret in ("current", "pending", "retiring"):
        value = billing.replicas[0].platform.metrics.value
        assert value("novacore_stripe_signature_total", secret=secret, result="ok") > 0, secret
    assert run.refused_before_the_secret_was_stored > 0
    assert await billing.done() == dict.fromkeys((event["id"] for event in chaos.events), 1)
    assert await billing.differences() == []
    assert billing.replicas[0].platform.metrics.value("novacore_stripe_events_missed_total") == 0


@pytest.mark.invariant("BILL-1")
async def test_r32_a_third_dropped_a_third_doubled_and_shuffled_is_whole_after_one_reconcile(
    billing: Billing, chaos: Chaos, people, clock
):
    chaos.hooks.add(billing.url, secret="whsec_first")
    await billing.payments.reconciler.turn()  # the watermark of a quiet day
    chaos.live(await people(20), events=EVENTS, step=lambda: clock.advance(seconds=750 / EVENTS))
    calls = await chaos.hooks.pump(Mishaps(dropped=0.3, duplicated=0.3, shuffled=True))
    await billing.work()

    before = await billing.conn.fetchval("SELECT count(*) FROM auth.stripe_events")
    assert 0.6 * EVENTS < before < 0.8 * EVENTS
    assert calls > 1.2 * before
    assert chaos.now() - chaos.events[0]["created"] >= 590
    assert await billing.differences() != []

    clock.advance(seconds=300)
    report = await billing.payments.reconciler.turn()
    await billing.work()

    assert report is not None
    assert (report.listed, report.stored) == (EVENTS, EVENTS - before)
    assert await billing.differences() == []
    assert await billing.done() == dict.fromkeys((event["id"] for event in chaos.events), 1)
    via = await billing.conn.fetch("SELECT via, count(*) AS n FROM auth.stripe_events GROUP BY via")
    assert {row["via"]: row["n"] for row in via} == {"webhook": before, "reconcile": EVENTS - before}
    assert billing.replicas[0].platform.metrics.value("novacore_stripe_events_missed_total") == EVENTS - before


async def test_r33_a_receiver_dead_for_four_days_is_whole_after_two_cycles(billing, chaos, people, clock):
    await billing.payments.reconciler.turn()  # it was alive once
    dead = chaos.hooks.add("http://127.0.0.1:9/billing/webhooks", secret="whsec_first")
    users = await people(10)
    for _ in range(4):
        chaos.live(users, events=50)
        for _ in range(12):
            clock.advance(hours=2)
            await chaos.hooks.pump()
    assert chaos.hooks.calls > 1000
    lost = [event for event in chaos.events if chaos.hooks.pending(event["id"]) == 0]
    assert len(lost) >= 50, "Stripe must have given some up"
    assert await billing.conn.fetchval("SELECT count(*) FROM auth.stripe_events") == 0
    dead.url = billing.url

    cycles = 0
    while cycles == 0 or await billing.differences():
        cycles += 1
        assert cycles <= 2
        clock.advance(seconds=300)
        await billing.payments.reconciler.turn()
        await billing.work()

    assert await billing.done() == dict.fromkeys((event["id"] for event in chaos.events), 1)
    assert len(chaos.events) == 200


@pytest.mark.invariant("STRIPE-1")
@pytest.mark.invariant("STRIPE-2")
@pytest.mark.invariant("STRIPE-3")
@pytest.mark.parametrize("scope", ["key", "account"])
@pytest.mark.parametrize("late_s", [0, 9])
async def test_r34_a_key_swap_with_fifty_charges_in_flight_doubles_and_loses_none(billing, chaos, late_s, scope):
    chaos.idempotency_scope = scope
    outcomes = await charge_all(billing, charges=50, late_s=late_s)

    made = Counter(one["metadata"]["operation"] for one in chaos.objects["payment_intents"].values())
    assert made == Counter({f"charge-{number}": 1 for number in range(50)})
    assert {outcome["id"] for outcome in outcomes} == set(chaos.objects["payment_intents"])
    seen = Counter((entry["key"], entry["outcome"]) for entry in chaos.journal if entry["method"] == "POST")
    assert seen["rk_test_first", "status_200"] > 0
    assert seen["rk_test_first", "cut_after"] > 0
    assert seen["rk_test_first", "cut_inside"] > 0
    assert seen["rk_test_first", "status_401"] > 0
    assert seen["rk_test_second", "status_200"] > 0
    looked_up = [entry for entry in chaos.journal if (entry["method"], entry["path"]) == ("GET", "/v1/payment_intents")]
    assert looked_up, "nothing was looked up"


async def test_r34_without_looking_up_the_same_swap_charges_twice(billing, chaos):
    """The test above can fail: this is what it would see."""

    async def blind():
        return None

    await charge_all(billing, charges=50, late_s=0, find=lambda _operation: blind)

    assert len(chaos.objects["payment_intents"]) > 50


async def test_both_keys_refused_is_told_as_away_and_nothing_is_lost(billing, chaos, people):
    (user,) = await people(1)
    chaos.hooks.add(billing.url, secret="whsec_first")
    chaos.subscribe(chaos.customer(user)["id"])
    await chaos.hooks.pump()
    chaos.expire("rk_test_first")

    with pytest.raises(StripeAwayError, match="key_refused"):
        await billing.work()
    assert await billing.conn.fetchval("SELECT attempts FROM auth.stripe_events") == 0

    chaos.keys["rk_test_second"] = None
    billing.mount(
        "stripeKey", {"stripeKey-1": ("active", "rk_test_first"), "stripeKey-2": ("pending", "rk_test_second")}
    )
    assert await billing.payments.gate.probe("stripeKey-2")
    assert not await billing.payments.gate.probe("stripeKey-1")
    await billing.work()
    assert await billing.differences() == []


async def test_readyz_tells_by_id_which_keys_and_secrets_work_in_this_pod(billing, chaos):
    """What a switch waits for: in every pod, before the pending one becomes the active one."""
    chaos.keys["rk_test_second"] = None
    billing.mount("stripeKey", {"stripeKey-1": ("active", "rk_test_first"), "stripeKey-2": ("pending", "rk_made_up")})
    billing.mount(
        "stripeWebhook", {"stripeWebhook-1": ("active", "whsec_first"), "stripeWebhook-2": ("pending", "whsec_2")}
    )

    async def told(key: str, works: bool) -> dict[str, dict[str, bool]]:
        async with asyncio.timeout(10):
            while True:
                answer = (await billing.replicas[0].internal.get("/readyz")).json()
                proofs = answer.get("proofs", {})
                if proofs.get("stripeKey", {}).get(key) is works and len(proofs["stripeWebhook"]) == 2:
                    return proofs
                await asyncio.sleep(0.02)

    assert await told("stripeKey-2", works=False) == {
        "stripeKey": {"stripeKey-1": True, "stripeKey-2": False},
        "stripeWebhook": {"stripeWebhook-1": True, "stripeWebhook-2": True},
    }
    billing.mount(
        "stripeKey", {"stripeKey-1": ("active", "rk_test_first"), "stripeKey-2": ("pending", "rk_test_second")}
    )
    assert (await told("stripeKey-2", works=True))["stripeKey"] == {"stripeKey-1": True, "stripeKey-2": True}


async def test_the_daily_comparison_finds_what_no_event_told(billing, chaos, people, clock):
    """Somebody mended something at Stripe, or a row here was damaged."""
    users = await people(3)
    chaos.live(users, events=30)
    await billing.payments.reconciler.turn()
    await billing.work()
    assert await billing.differences() == []
    one = next(one for one in chaos.objects["subscriptions"].values() if one["status"] != "canceled")
    one["status"] = "canceled"
    await billing.conn.execute(
        "DELETE FROM auth.stripe_invoices WHERE invoice_id = (SELECT min(invoice_id) FROM auth.billing_ledger)"
    )
    assert len(await billing.differences()) >= 2

    clock.advance(hours=23)
    await billing.payments.reconciler.turn()
    assert await billing.differences() != []  # no event, so nothing to be found by the listing
    clock.advance(hours=2)
    await billing.payments.reconciler.turn()

    assert await billing.differences() == []


async def test_one_of_three_replicas_takes_a_turn(billing_for, chaos, people, clock):
    billing = await billing_for(replicas=3)
    chaos.live(await people(3), events=20)

    reports = await asyncio.gather(*(replica.service.payments.reconciler.turn() for replica in billing.replicas))

    assert sorted(report.stored for report in reports if report is not None) == [20]
    clock.advance(seconds=240)
    assert await billing.payments.reconciler.turn() is None
    clock.advance(seconds=61)
    assert await billing.payments.reconciler.turn() is not None


@pytest.mark.invariant("RECON-1")
async def test_a_listing_that_broke_off_is_repeated_whole(billing, chaos, people, clock):
    """RECON-1: two of three pages are not enough to move the watermark."""
    await billing.payments.reconciler.turn()
    chaos.live(await people(5), events=250, step=lambda: clock.advance(seconds=20))
    clock.advance(seconds=301)
    billing.payments.gate._sleep = _no_pause
    pages = iter(["served", "served"])
    chaos.fate = lambda _method, path: next(pages, "status_503") if path == "/v1/events" else "served"

    with pytest.raises(StripeAwayError):
        await billing.payments.reconciler.turn()
    assert await billing.conn.fetchval("SELECT count(*) FROM auth.stripe_events") == 200  # the newest
    assert await billing.conn.fetchval("SELECT watermark FROM auth.stripe_cursors WHERE name = 'events'") is None

    chaos.fate = lambda _method, _path: "served"
    await billing.payments.reconciler.turn()
    assert await billing.conn.fetchval("SELECT count(*) FROM auth.stripe_events") == 250


async def _no_pause(_seconds: float) -> None:
    await asyncio.sleep(0)
