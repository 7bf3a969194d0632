"""When pods may be replaced."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacore_operator.api.rollout import Window
from novacore_operator.policies.maintenance import duration, wait_s, window_invalid

SATURDAY = datetime(2026, 3, 7, 2, 0, tzinfo=UTC)


def window(cron: str = "0 2 * * 6", length: str = "2h", zone: str = "UTC") -> Window:
    """Return a window."""
    return Window(cron=cron, duration=length, timezone=zone)


@pytest.mark.parametrize(
    ("at", "wait"),
    [
        (SATURDAY - timedelta(seconds=1), 1.0),
        (SATURDAY, 0.0),
        (SATURDAY + timedelta(hours=1, minutes=59, seconds=59), 0.0),
        (SATURDAY + timedelta(hours=2), 7 * 86400.0 - 7200),
    ],
)
def test_a_window_is_open_from_its_start_for_its_duration(at: datetime, wait: float) -> None:
    assert wait_s([window()], at) == wait


def test_without_windows_there_is_no_wait_and_with_several_the_next_counts() -> None:
    assert wait_s([], SATURDAY) == 0.0
    noon = SATURDAY.replace(hour=12)
    assert wait_s([window(), window("0 13 * * *", "1h")], noon) == 3600.0


def test_the_hours_are_those_of_the_time_zone() -> None:
    berlin = window("0 2 * * *", "1h", "Europe/Berlin")
    assert wait_s([berlin], datetime(2026, 1, 10, 1, 30, tzinfo=UTC)) == 0.0
    assert wait_s([berlin], datetime(2026, 7, 10, 0, 30, tzinfo=UTC)) == 0.0


@pytest.mark.invariant("MAINT-1")
@given(
    minutes=st.integers(0, 525_000),
    seconds=st.integers(0, 59),
    hour=st.integers(0, 23),
    minute=st.integers(0, 59),
    length=st.integers(10, 600),
)
def test_inside_is_exactly_what_a_start_reaches(
    minutes: int, seconds: int, hour: int, minute: int, length: int
) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=minutes, seconds=seconds)
    daily = window(f"{minute} {hour} * * *", f"{length}m")
    starts = [now.replace(hour=hour, minute=minute, second=0) + timedelta(days=days) for days in (-1, 0, 1)]
    inside = any(start <= now < start + timedelta(minutes=length) for start in starts)
    assert (wait_s([daily], now) == 0.0) is inside
    if not inside:
        following = min(start for start in starts if start > now)
        assert wait_s([daily], now) == (following - now).total_seconds()


@pytest.mark.parametrize(("text", "seconds"), [("2h", 7200), ("90m", 5400), ("1h30m", 5400)])
def test_durations(text: str, seconds: int) -> None:
    assert duration(text).total_seconds() == seconds


@pytest.mark.parametrize(
    ("bad", "word"), [(window("0 25 * * *"), "schedule"), (window(zone="Mars/Olympus"), "does not exist")]
)
def test_what_no_calendar_knows_is_found(bad: Window, word: str) -> None:
    finding = window_invalid([window(), bad])
    assert finding is not None
    assert word in finding.message
    assert window_invalid([window()]) is None
