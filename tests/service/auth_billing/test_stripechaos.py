"""The double is held to Stripe's shape by Stripe's own library, and does the harm it promises."""

from __future__ import annotations

from uuid import uuid4

import pytest
import stripe

from tests.kit.stripecalls import LADDER_S, Mishaps
from tests.kit.stripechaos import Chaos


@pytest.fixture
async def client(chaos: Chaos):
    http = stripe.AIOHTTPClient()
    yield stripe.StripeClient("rk_test_first", http_client=http, base_addresses={"api": chaos.url})
    await http.close_async()


async def test_objects_read_with_the_library_as_stripes_own_do(chaos, client):
    user = uuid4()
    made = chaos.subscribe(chaos.customer(user)["id"], tier="pro", user_id=user)
    invoice = chaos.bill(made)

    subscription = await client.v1.subscriptions.retrieve_async(made["id"])
    assert (subscription.status, subscription.items.data[0].price.id) == ("active", "price_pro")
    assert subscription.items.data[0].current_period_end > subscription.created
    read = await client.v1.invoices.retrieve_async(invoice["id"])
    assert (read.status, read.amount_paid) == ("paid", 2900)
    assert read.parent.subscription_details.subscription == made["id"]
    with pytest.raises(stripe.InvalidRequestError) as missing:
        await client.v1.subscriptions.retrieve_async("sub_none")
    assert missing.value.http_status == 404


async def test_events_are_listed_by_stripes_filters_the_newest_first_for_thirty_days(chaos, client, clock):
    chaos.live([uuid4() for _ in range(3)], events=30)
    clock.advance(days=29)
    chaos.live([uuid4() for _ in range(3)], events=25)
    late = chaos.events[30:]

    async def listed(**params) -> list[str]:
        found = await client.v1.events.list_async({"limit": 10, **params})
        return [event.id async for event in found.auto_paging_iter()]

    newest_first = [event["id"] for event in reversed(chaos.events)]
    assert await listed() == newest_first
    paid = [event["id"] for event in reversed(chaos.events) if event["type"] == "invoice.paid"]
    assert await listed(types=["invoice.paid"]) == await listed(type="invoice.paid") == paid
    assert await listed(created={"gte": late[0]["created"]}) == [event["id"] for event in reversed(late)]
    before = await client.v1.events.list_async({"limit": 3, "ending_before": newest_first[10]})
    assert [event.id for event in before.data] == newest_first[7:10]
    assert await listed(delivery_success=False) == []
    clock.advance(days=2)
    assert await listed() == [event["id"] for event in reversed(late)]


async def test_a_secret_is_shown_once_and_an_endpoint_that_is_deleted_gets_nothing_more(chaos, client, clock):
    made = await client.v1.webhook_endpoints.create_async(
        {"url": "http://127.0.0.1:9/x", "enabled_events": ["*"], "metadata": {"owner": "nova"}}
    )
    assert made.secret.startswith("whsec_")
    again = await client.v1.webhook_endpoints.create_async({"url": "http://127.0.0.1:9/x", "enabled_events": ["*"]})
    shown = (await client.v1.webhook_endpoints.list_async()).data
    assert [one.id for one in shown] == [again.id, made.id]
    assert all("secret" not in one for one in shown)

    chaos.live([uuid4()], events=1)
    assert await chaos.hooks.pump() == 2
    await client.v1.webhook_endpoints.delete_async(again.id)
    attempts = 1
    while chaos.hooks.pending(chaos.events[0]["id"]):
        clock.advance(hours=10)
        attempts += await chaos.hooks.pump()
    assert attempts == len(LADDER_S) + 1
    assert 2.5 * 86_400 < sum(LADDER_S) < 3.5 * 86_400


async def test_a_roll_keeps_the_old_secret_for_a_day_at_most(chaos, clock):
    endpoint = chaos.hooks.add("http://127.0.0.1:9/x")
    chaos.hooks.roll(endpoint, keep_s=1e9)

    assert chaos.hooks.header(b"{}", endpoint).count("v1=") == 2
    clock.advance(hours=25)
    assert chaos.hooks.header(b"{}", endpoint).count("v1=") == 1
    assert "v0=" in chaos.hooks.header(b"{}", endpoint)


async def test_the_same_idempotency_key_gives_the_same_answer_and_other_parameters_a_refusal(chaos, client):
    def pay(amount: int, *, key: str = "k"):
        return client.v1.payment_intents.create_async({"amount": amount, "currency": "usd"}, {"idempotency_key": key})

    assert (await pay(5)).id == (await pay(5)).id != (await pay(5, key="l")).id
    with pytest.raises(stripe.IdempotencyError):
        await pay(6)


async def test_a_key_dies_when_it_was_said_to(chaos, client, clock):
    chaos.expire("rk_test_first", after_s=9)
    await client.v1.customers.list_async()
    clock.advance(seconds=10)
    with pytest.raises(stripe.AuthenticationError):
        await client.v1.customers.list_async()


async def test_one_seed_is_one_history(clock):
    def history(seed: int) -> list[str]:
        chaos = Chaos(clock, seed=seed)
        chaos.live([uuid4(), uuid4()], events=60)
        return [f"{event['id']} {event['type']}" for event in chaos.events]

    assert [line.partition(" ")[2] for line in history(1)] == [line.partition(" ")[2] for line in history(1)]
    assert history(1) != history(2)
    assert Mishaps() == Mishaps(dropped=0.0, duplicated=0.0, shuffled=False)
