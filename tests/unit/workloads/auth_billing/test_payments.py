"""Stripe's signature, hints and objects: pure."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
import stripe
from hypothesis import given
from hypothesis import strategies as st

from novacore.auth_billing.payments.hints import TYPES, NotAnEventError, read_hint
from novacore.auth_billing.payments.objects import (
    GRACE,
    NOTHING,
    TERMINAL_INVOICE,
    TERMINAL_SUBSCRIPTION,
    Invoice,
    Standing,
    Subscription,
    merge_invoice,
    merge_subscription,
    read_invoice,
    read_subscription,
    standing,
    that_counts,
)
from novacore.auth_billing.payments.signature import TOLERANCE_S, Secret, judge, sign

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
NOW_S = int(NOW.timestamp())
USER = UUID("6f1a0000-0000-4000-8000-000000000001")
SUBSCRIPTION_STATUSES = (
    "incomplete", "incomplete_expired", "trialing", "active", "past_due", "canceled", "unpaid", "paused",
)  # fmt: skip
INVOICE_STATUSES = ("open", "paid", "uncollectible", "void")
PRICES = {"price_basic": "basic", "price_pro": "pro"}

words = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=8, max_size=40)
secrets = st.lists(words.map(lambda word: f"whsec_{word}"), min_size=1, max_size=4, unique=True)


def _accepted(values):
    states = ("active", "pending", "retiring", "retiring")
    return [Secret(f"stripeWebhook-{n}", states[n], value) for n, value in enumerate(values)]


def subscription(**changes) -> Subscription:
    made = Subscription(
        "sub_1", "cus_1", "active", "price_pro", "pro", NOW, NOW + timedelta(days=30), NOW - timedelta(days=1), USER
    )
    return replace(made, **changes)


def invoice(**changes) -> Invoice:
    return replace(Invoice("in_1", "cus_1", "sub_1", "open", "usd", 2900, 0, NOW, USER), **changes)


# Signatures


@pytest.mark.invariant("SIGN-1")
@given(body=st.binary(max_size=300), values=secrets, chosen=st.integers(0, 3), tampered=st.integers(0, 299))
def test_a_body_passes_with_each_accepted_secret_and_with_one_byte_changed_with_none(body, values, chosen, tampered):
    secret = values[chosen % len(values)]
    header = sign(body, [secret], now_s=NOW_S)

    verdict = judge(body, header, _accepted(values), now_s=NOW_S)
    assert (verdict.passed, verdict.secret and verdict.secret.value) == (True, secret)

    others = [other for other in values if other != secret]
    assert not judge(body, header, _accepted(others), now_s=NOW_S).passed
    if body:
        at = tampered % len(body)
        changed = body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]
        assert judge(changed, header, _accepted(values), now_s=NOW_S).secret is None


@given(body=st.text(max_size=200), secret=words)
def test_we_and_the_official_library_agree(body, secret):
    """Held to the real shape: their header passes here, ours passes there."""
    theirs = stripe.WebhookSignature.generate_signature_header(body, secret, timestamp=NOW_S)
    assert judge(body.encode(), theirs, _accepted([secret]), now_s=NOW_S).passed

    ours = sign(body.encode(), [f"{secret}x", secret], now_s=NOW_S)
    assert stripe.WebhookSignature.verify_header(body, ours, secret)
    with pytest.raises(stripe.SignatureVerificationError):
        stripe.WebhookSignature.verify_header(body, ours, f"{secret}y")


@pytest.mark.invariant("SIGN-2")
@given(off_s=st.integers(-100_000, 100_000))
def test_a_time_too_far_off_is_refused_on_both_sides(off_s):
    body, values = b"{}", ["whsec_a"]
    verdict = judge(body, sign(body, values, now_s=NOW_S + off_s), _accepted(values), now_s=NOW_S)

    assert verdict.passed == (abs(off_s) <= TOLERANCE_S)
    assert verdict.secret is not None  # whoever sent it has the secret: the metric tells clock from forgery


@given(header=st.one_of(st.text(max_size=200), st.from_regex(r"(t=[0-9]{1,14},?|v[01]=[0-9a-f]{0,70},?){0,8}")))
def test_no_header_made_up_passes_or_breaks_anything(header):
    assert not judge(b"{}", header, _accepted(["whsec_a"]), now_s=NOW_S).passed


# Hints


@given(body=st.one_of(st.binary(max_size=200), st.recursive(st.none() | st.integers() | st.text(), lambda c: st.lists(c) | st.dictionaries(st.sampled_from(["id", "type", "created", "data", "object"]), c)).map(lambda value: json.dumps(value).encode())))  # fmt: skip
def test_what_is_no_event_is_told_as_such(body):
    try:
        hint = read_hint(body)
    except NotAnEventError as error:
        assert "body" in str(error) or "id" in str(error) or "type" in str(error) or "created" in str(error)
    else:
        assert hint.event_id.startswith("evt_")


@pytest.mark.parametrize("type_", TYPES)
def test_each_type_names_what_must_be_fetched(type_):
    data = {"id": "cs_1", "subscription": "sub_9"} if type_.startswith("checkout") else {"id": "sub_9"}
    event = {"id": "evt_1", "type": type_, "created": NOW_S, "data": {"object": data}}

    hint = read_hint(json.dumps(event).encode())

    assert (hint.object_id, hint.created, hint.counts) == ("sub_9", NOW, True)
    assert not read_hint(json.dumps(event | {"type": "charge.updated"}).encode()).counts


@pytest.mark.parametrize(
    "id_", ["sub_1/../../customers/cus_1", "sub_1?expand[]=customer", "sub_\u00e9", "", "s" * 256, 7, None]
)
def test_an_id_that_could_lead_a_path_astray_is_none(id_):
    event = {"id": "evt_1", "type": "customer.subscription.updated", "created": NOW_S, "data": {"object": {"id": id_}}}
    assert not read_hint(json.dumps(event).encode()).counts
    with pytest.raises(NotAnEventError, match="id"):
        read_hint(json.dumps(event | {"id": f"evt_/{id_}"}).encode())


# Objects


def test_periods_and_subscription_are_found_in_the_shape_before_and_after_march_2025():
    item = {"price": {"id": "price_pro"}, "current_period_start": NOW_S, "current_period_end": NOW_S + 60}
    base = {"id": "sub_1", "customer": {"id": "cus_1"}, "status": "active", "created": NOW_S}
    new = read_subscription({**base, "items": {"data": [item]}}, PRICES)
    old = read_subscription(
        {
            **base,
            "current_period_start": NOW_S,
            "current_period_end": NOW_S + 60,
            "items": {"data": [{"price": "price_pro"}]},
        },
        PRICES,
    )
    assert new == old
    assert (new.tier, new.current_period_end, new.customer_id) == ("pro", NOW + timedelta(seconds=60), "cus_1")

    bill = {"id": "in_1", "customer": "cus_1", "status": "paid", "currency": "usd", "amount_due": 9, "amount_paid": 9}
    bill["created"] = NOW_S
    after = read_invoice({**bill, "parent": {"subscription_details": {"subscription": "sub_1"}}})
    assert after == read_invoice({**bill, "subscription": "sub_1"})
    assert after.subscription_id == "sub_1"


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("trialing", Standing("pro", subscriber=True)),
        ("active", Standing("pro", subscriber=True)),
        *((status, NOTHING) for status in ("incomplete", "incomplete_expired", "canceled", "unpaid", "paused")),
    ],
)
def test_what_a_status_gives(status, expected):
    assert standing(subscription(status=status), now=NOW) == expected
    assert standing(subscription(status=status, tier="free_trial"), now=NOW) == NOTHING


def test_a_failed_payment_is_borne_for_seven_days_from_when_it_was_first_seen():
    first = merge_subscription(subscription(), subscription(status="past_due"), hinted_at=NOW - GRACE * 2, now=NOW)
    later = merge_subscription(first, subscription(status="past_due"), hinted_at=NOW, now=NOW + timedelta(days=3))

    assert later.past_due_since == NOW
    assert standing(later, now=NOW + GRACE - timedelta(seconds=1)).tier == "pro"
    assert standing(later, now=NOW + GRACE) == NOTHING
    assert merge_subscription(later, subscription(), hinted_at=NOW, now=NOW).past_due_since is None


@pytest.mark.invariant("BILL-2")
@given(answers=st.lists(st.sampled_from(SUBSCRIPTION_STATUSES), min_size=1, max_size=12))
def test_a_terminal_subscription_stays_so_whatever_is_answered_later(answers):
    held = None
    for status in answers:
        was = held.status if held else None
        held = merge_subscription(held, subscription(status=status), hinted_at=NOW, now=NOW)
        assert was not in TERMINAL_SUBSCRIPTION or held.status == was


@pytest.mark.invariant("BILL-2")
@given(answers=st.lists(st.tuples(st.sampled_from(INVOICE_STATUSES), st.integers(0, 5000)), min_size=1, max_size=12))
def test_a_terminal_invoice_stays_so_and_what_was_paid_never_becomes_less(answers):
    held = None
    for status, paid in answers:
        was = held
        held = merge_invoice(held, invoice(status=status, amount_paid=paid))
        assert was is None or held.amount_paid >= was.amount_paid
        assert was is None or was.status not in TERMINAL_INVOICE or held.status == was.status


@pytest.mark.invariant("BILL-3")
@given(
    order=st.permutations(range(5)),
    states=st.lists(st.tuples(st.sampled_from(SUBSCRIPTION_STATUSES), st.integers(0, 3)), min_size=5, max_size=5),
)
def test_which_subscription_counts_does_not_depend_on_the_order(order, states):
    all_ = [
        subscription(subscription_id=f"sub_{n}", status=status, started_at=NOW - timedelta(days=age))
        for n, (status, age) in enumerate(states)
    ]
    counts = that_counts([all_[n] for n in order])

    assert counts == that_counts(all_)
    assert counts is not None
    if any(one.status in ("active", "trialing") for one in all_):
        assert counts.status in ("active", "trialing")
