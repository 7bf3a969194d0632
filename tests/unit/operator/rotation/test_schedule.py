"""When a ring rotates by itself."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from novacore_operator.api.spec import Window
from novacore_operator.policies import maintenance
from novacore_operator.rotation import schedule
from novacore_operator.rotation.schedule import RingPolicy

SINCE = datetime(2026, 11, 28, 12, 0, tzinfo=UTC).timestamp()  # a Saturday
DAY_S = 86_400.0
WEEKDAYS = (Window(cron="0 9 * * 1-4", timezone="UTC", duration="7h"),)


def make_policy(**changes: object) -> RingPolicy:
    return RingPolicy(**({"ttl_max_s": 86_400, "interval_s": 90 * DAY_S} | changes))  # type: ignore[arg-type]


@pytest.mark.invariant("SCHED-1")
@given(st.text(max_size=8), st.integers(1, 500))
@settings(max_examples=40)
def test_the_time_is_within_a_tenth_and_always_the_same_for_one_key(uid: str, seq: int) -> None:
    """SCHED-1."""
    policy = make_policy()
    at = schedule.next_rotation(policy, since=SINCE, uid=uid, ring="serviceJwt", seq=seq)
    assert at is not None
    assert 81 * DAY_S <= at - SINCE <= 99 * DAY_S
    assert at == schedule.next_rotation(policy, since=SINCE, uid=uid, ring="serviceJwt", seq=seq)


def test_jitter_differs_by_resource_ring_and_key_and_fills_its_range() -> None:
    drawn = [
        schedule.draw(uid, ring, seq) for uid in "abcdefgh" for ring in ("serviceJwt", "userJwt") for seq in range(9)
    ]
    assert len(set(drawn)) == len(drawn)
    assert min(drawn) < -0.9
    assert max(drawn) > 0.9


@pytest.mark.invariant("SCHED-2")
@given(st.floats(0, 400 * DAY_S), st.integers(1, 99))
def test_a_rotation_by_schedule_begins_inside_a_window(offset: float, seq: int) -> None:
    """SCHED-2."""
    policy = make_policy(windows=WEEKDAYS, interval_s=3600.0)
    at = schedule.next_rotation(policy, since=SINCE + offset, uid="u", ring="serviceJwt", seq=seq)
    assert at is not None
    assert schedule.is_open(policy, at)
    assert maintenance.wait_s(WEEKDAYS, datetime.fromtimestamp(at, UTC)) == 0


def test_cron_in_its_time_zone_with_jitter_of_its_spacing() -> None:
    policy = make_policy(interval_s=None, cron="0 2 * * *", timezone="Europe/Berlin", jitter=0.0)
    at = schedule.next_rotation(policy, since=SINCE, uid="u", ring="serviceJwt", seq=1)
    assert at == datetime(2026, 11, 29, 1, 0, tzinfo=UTC).timestamp()
    moved = schedule.next_rotation(
        make_policy(interval_s=None, cron="0 2 * * *"), since=SINCE, uid="u", ring="serviceJwt", seq=1
    )
    assert moved is not None
    assert 0 < abs(moved - datetime(2026, 11, 29, 2, 0, tzinfo=UTC).timestamp()) <= DAY_S / 10


def test_paused_or_without_a_schedule_a_ring_never_rotates_by_itself() -> None:
    for policy in (make_policy(pause=True), make_policy(interval_s=None)):
        assert schedule.next_rotation(policy, since=SINCE, uid="u", ring="serviceJwt", seq=1) is None


def test_a_schedule_that_its_windows_cannot_meet_is_told() -> None:
    assert schedule.without_window(make_policy(windows=WEEKDAYS), since=SINCE) is None
    assert schedule.without_window(make_policy(interval_s=3600.0), since=SINCE) is None
    hourly = schedule.without_window(make_policy(windows=WEEKDAYS, interval_s=3600.0), since=SINCE)
    assert hourly == (
        "a rotation is due at 2026-11-28 13:00 UTC and the next window opens 1 day, 20:00:00 later: "
        "widen the windows or the interval"
    )
