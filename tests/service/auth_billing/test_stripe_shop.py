"""Buying: from the button to the tier, through the gateway, with answers of Stripe's that get lost."""

from __future__ import annotations

import asyncio

import pytest

from novacore.auth_billing import stripe_command
from novacore.auth_billing.payments.signature import sign
from tests.kit.billing import event_body
from tests.kit.peers import StubPeer


@pytest.fixture
async def gateway(billing, client_for):
    """The gateway before the billing service; only its own service token comes from a stub."""
    tokens = StubPeer("auth-billing")
    await tokens.start()
    peers = {"auth-billing": {"service_url": billing.replicas[0].url, "internal_url": tokens.url}}
    async with client_for("gateway", peers={"auth-billing": tokens}, settings={"peers": peers}) as running:
        yield running
    await tokens.stop()


async def test_a_purchase_through_the_gateway_shows_in_the_account_and_one_byte_changed_does_not(
    gateway, billing, chaos, make_user
):
    """W3: Stripe has no user token; the bytes arrive as they were signed."""
    user = await make_user(tier="free_trial")
    page = await gateway.public.post(
        "/api/billing/create-checkout", json={"tier": "pro"}, headers=user.headers | {"Idempotency-Key": "first-try"}
    )
    assert page.status_code == 200, page.text
    session = chaos.objects["checkout.sessions"][page.json()["sessionId"]]
    assert session["metadata"]["user_id"] == str(user.id)
    assert session["success_url"] == "https://app.example.org/billing/success?session_id={CHECKOUT_SESSION_ID}"
    chaos.pay_page(session)
    completed = next(event for event in chaos.events if event["type"] == "checkout.session.completed")
    body = event_body(completed)
    header = sign(body, ["whsec_first"], now_s=chaos.now())

    changed = await gateway.public.post(
        "/api/billing/webhooks", content=body.replace(b"cus_", b"cuz_", 1), headers={"Stripe-Signature": header}
    )
    assert changed.status_code == 400
    told = await gateway.public.post("/api/billing/webhooks", content=body, headers={"Stripe-Signature": header})
    assert (told.status_code, told.json()) == (200, {"received": True})
    await billing.work()

    me = (await gateway.public.get("/api/auth/me", headers=user.headers)).json()
    assert (me["subscription_tier"], me["role"], me["subscription_status"]) == ("pro", "subscriber", "active")
    assert me["current_period_end"] is not None
    again = await gateway.public.post("/api/billing/create-checkout", json={"tier": "pro"}, headers=user.headers)
    assert (again.status_code, again.json()["code"]) == (409, "conflict")
    portal = await gateway.public.get("/api/billing/portal", headers=user.headers)
    assert portal.json() == {"url": f"{chaos.url}/portal/{session['customer']}"}


async def test_the_same_idempotency_key_leads_to_the_same_page_and_a_customer_is_made_once(billing, chaos, make_user):
    user = await make_user(tier="free_trial")
    service = billing.replicas[0]
    billing.payments.gate._sleep = _no_pause
    lost = iter(["cut_after", "served", "cut_after"])  # the customer's answer, its repetition, the page's answer
    chaos.fate = lambda method, _path: next(lost, "served") if method == "POST" else "served"

    async def buy(key: str):
        headers = service.headers(user) | {"Idempotency-Key": key}
        return await service.public.post("/billing/create-checkout", json={"tier": "basic"}, headers=headers)

    first, same, other = await buy("one"), await buy("one"), await buy("two")

    assert [answer.status_code for answer in (first, same, other)] == [200] * 3, first.text
    assert first.json() == same.json() != other.json()
    assert len(chaos.objects["customers"]) == 1
    assert len(chaos.objects["checkout.sessions"]) == 2
    assert sum(entry["outcome"] == "cut_after" for entry in chaos.journal) == 2


async def test_what_cannot_be_bought_is_told(billing_for, chaos, make_user):
    billing = await billing_for(prices={"pro": "price_pro"})
    service, user = billing.replicas[0], await make_user(tier="free_trial")
    headers = service.headers(user)

    basic = await service.public.post("/billing/create-checkout", json={"tier": "basic"}, headers=headers)
    assert (basic.status_code, basic.json()["code"]) == (503, "billing_disabled")
    portal = await service.public.get("/billing/portal", headers=headers)
    assert (portal.status_code, portal.json()["code"]) == (404, "not_found")
    billing.payments.gate._sleep = _no_pause
    chaos.fate = lambda _method, _path: "status_503"
    away = await service.public.post("/billing/create-checkout", json={"tier": "pro"}, headers=headers)
    assert (away.status_code, away.json()["code"]) == (503, "upstream_down")
    assert "stripechaos" not in away.text


async def test_the_command_reconciles_at_once(billing, chaos, people):
    chaos.live(await people(3), events=30)

    told = await stripe_command.reconcile_on(billing.replicas[0].platform, days=30)

    assert told.startswith("30 events listed, 30 were missing here")
    await billing.work()
    assert await billing.differences() == []


async def _no_pause(_seconds: float) -> None:
    await asyncio.sleep(0)
