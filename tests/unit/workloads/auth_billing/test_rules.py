"""Addresses, windows, percentages, refresh verdicts, TokenReview answers: pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacore.auth_billing import quota, review
from novacore.auth_billing.emails import canonical
from novacore.auth_billing.sessions import GRACE, RefreshToken, Verdict, digest, judge, new_refresh_token
from novacore.common.errors import ServiceError
from novacore.common.settings import Tiers

NOW = datetime(2026, 3, 31, 23, 59, 59, tzinfo=UTC)


@pytest.mark.parametrize(
    ("raw", "stored"),
    [
        (" Ada@Example.ORG\n", "ada@example.org"),
        ("a.b+tag@sub.example.org", "a.b+tag@sub.example.org"),
        ("jose\u0301@example.org", "jos\u00e9@example.org"),
        ("ÄRGER@exämple.de", "ärger@exämple.de"),
    ],
)
def test_an_address_has_one_spelling(raw, stored):
    assert canonical(raw) == stored
    assert canonical(canonical(raw)) == stored


@pytest.mark.parametrize(
    "raw",
    [
        "", "@", "ada", "ada@", "@example.org", "ada@example", "a b@example.org", "ada@exam ple.org", ".ada@example.org",
        "ada.@example.org", "a..b@example.org", "ada@-example.org", "ada@example..org", "ada@127.0.0.1",
        "ada@example.org\u200b", "ada\x00@example.org", "a" * 65 + "@example.org", "a@" + "b" * 250 + ".org",
        "<ada@example.org>", "ada@example.org,bob@example.org",
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused(raw):
    with pytest.raises(ValueError):
        canonical(raw)


def test_windows_are_the_utc_day_the_utc_month_and_for_ever():
    day, month, storage = (
        quota.window_of(resource, NOW) for resource in ("llm_tokens", "agent_minutes", "memory_storage")
    )

    assert (day.start, day.end) == (datetime(2026, 3, 31, tzinfo=UTC), datetime(2026, 4, 1, tzinfo=UTC))
    assert (month.start, month.end) == (datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 4, 1, tzinfo=UTC))
    assert storage.end is None


@given(st.integers(0, 20 * 365 * 86_400).map(lambda s: datetime(2020, 1, 1, tzinfo=UTC) + timedelta(seconds=s)))
def test_now_is_always_inside_its_window(now):
    for resource in quota.RESOURCES:
        window = quota.window_of(resource, now)
        assert window.start <= now
        assert window.end is None or now < window.end


@pytest.mark.parametrize(
    ("used", "limit", "percent"),
    [(0, 1000, 0), (850, 1000, 85), (1000, 1000, 100), (5, -1, 0), (0, 0, 0), (1, 0, 100), (1, 3, 33.3)],
)
def test_percentages_compare_like_with_like_and_unlimited_is_zero(used, limit, percent):
    assert quota.percentage(used, limit) == percent


def test_limits_follow_the_tier():
    tiers = Tiers()

    assert quota.caps(tiers, "llm_tokens") == {"free_trial": 1000, "basic": 50_000, "pro": -1}
    assert quota.caps(tiers, "memory_storage") == {"free_trial": 1 << 30, "basic": 10 << 30, "pro": -1}
    assert quota.caps(tiers, "agent_minutes") == {"free_trial": 0, "basic": 60, "pro": -1}


def test_warnings_begin_at_eighty_and_change_at_a_hundred_percent():
    limits = Tiers().free_trial

    assert quota.warnings({"llm_tokens": 799}, limits) == []
    assert quota.warnings({"llm_tokens": 800}, limits) == ["80 % of the tokens of today used."]
    assert quota.warnings({"llm_tokens": 1000}, limits) == ["The tokens of today are used up."]
    assert quota.warnings({"memory_storage": 1 << 30}, limits) == ["The memory storage is full."]
    assert quota.warnings({"llm_tokens": 10**9}, Tiers().pro) == []


def test_amounts_for_people():
    assert [quota.human_readable("memory_storage", n) for n in (0, 1023, 1536, 1 << 29, 1 << 40)] == [
        "0 B", "1023 B", "1.5 KiB", "512.0 MiB", "1.0 TiB"
    ]  # fmt: skip
    assert quota.human_readable("llm_tokens", 1234) == "1,234 tokens"


def test_the_last_days_end_today_in_utc():
    days = quota.days_back(NOW, 3)

    assert [day.day for day in days] == [29, 30, 31]


def token(*, used: timedelta | None = None, revoked: bool = False, left: timedelta = timedelta(days=1)) -> RefreshToken:
    return RefreshToken(
        id=uuid4(),
        user_id=uuid4(),
        family=uuid4(),
        expires_at=NOW + left,
        used_at=None if used is None else NOW - used,
        revoked_at=NOW if revoked else None,
    )


@pytest.mark.parametrize(
    ("held", "verdict"),
    [
        (None, Verdict.REFUSE),
        (token(), Verdict.ROTATE),
        (token(used=timedelta(seconds=1)), Verdict.SIBLING),
        (token(used=GRACE), Verdict.SIBLING),
        (token(used=GRACE + timedelta(milliseconds=1)), Verdict.REUSE),
        (token(revoked=True), Verdict.REFUSE),
        (token(used=timedelta(seconds=1), revoked=True), Verdict.REFUSE),
        (token(left=timedelta(0)), Verdict.REFUSE),
        (token(used=timedelta(days=2), left=timedelta(days=-1)), Verdict.REUSE),
    ],
)
def test_a_refresh_token_is_worth_what_its_history_says(held, verdict):
    assert judge(held, NOW) is verdict


def test_refresh_tokens_are_random_and_stored_as_a_hash():
    first, second = new_refresh_token(), new_refresh_token()

    assert first != second
    assert len(first) == 43
    assert len(digest(first)) == 32
    assert digest(first) != digest(second)


def status(**changes):
    user = {
        "username": "system:serviceaccount:nova:novacore-memory",
        "extra": {"authentication.kubernetes.io/pod-uid": ["u1"]},
    }
    return {"authenticated": True, "audiences": ["novacore-auth"], "user": user | changes.pop("user", {})} | changes


@pytest.mark.parametrize(
    ("answer", "refusal"),
    [
        (status(authenticated=False), 401),
        (status(authenticated="yes"), 401),
        (status(audiences=[]), 401),
        (status(audiences=["https://kubernetes.default.svc"]), 401),
        (status(user={"extra": {}}), 401),
        (status(user={"extra": {"authentication.kubernetes.io/pod-uid": []}}), 401),
        (status(user={"username": "system:serviceaccount:other:novacore-memory"}), 403),
        (status(user={"username": "system:serviceaccount:nova:default"}), 403),
        (status(user={"username": "system:serviceaccount:nova:novacore-nobody"}), 403),
        (status(user={"username": "system:serviceaccount:nova:novacore-operator"}), 403),
        ({}, 401),
    ],
)
def test_a_review_that_proves_no_pod_of_ours_is_refused(answer, refusal):
    with pytest.raises(ServiceError) as caught:
        review.identity_of(answer, namespace="nova")
    assert caught.value.status == refusal


def test_a_review_names_the_service_and_its_pod():
    identity = review.identity_of(status(), namespace="nova")

    assert (identity.service, identity.pod_uid) == ("memory", "u1")


def test_only_a_jwt_of_our_audience_is_worth_asking_about():
    ours = jwt.encode({"aud": ["novacore-auth", "x"]}, "k" * 32, "HS256")
    others = jwt.encode({"aud": "x"}, "k" * 32, "HS256")

    assert review.looks_right(ours)
    assert not any(review.looks_right(value) for value in (others, "", "a.b", "x" * 9000))
