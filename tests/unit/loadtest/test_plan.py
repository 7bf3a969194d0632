"""The load test goes where it may, for as long as it may, in the documented weights."""

from __future__ import annotations

import pytest

from loadtest import plan


def test_weights_are_those_of_the_documented_mix() -> None:
    weights = {operation.name: operation.weight for operation in plan.OPERATIONS}
    assert weights == {
        "register": 0,
        "login": 0,
        "chat": 10,
        "memory list": 3,
        "memory search": 2,
        "progress": 2,
        "quota": 1,
        "health": 1,
    }


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:5000", "http://localhost:5000/", "http://[::1]:5000", "http://127.9.9.9"]
)
def test_loopback_is_accepted(url: str) -> None:
    assert plan.loopback_url(url) == url.rstrip("/")


@pytest.mark.parametrize(
    "url",
    [
        "http://192.168.1.10:5000",
        "http://example.test",
        "https://127.0.0.1:5000",
        "http://127.0.0.1.example.test",
        "http://127.0.0.1@example.test/",
        "127.0.0.1:5000",
        "",
    ],
)
def test_any_other_target_is_refused(url: str) -> None:
    with pytest.raises(plan.InputError, match="this machine only"):
        plan.loopback_url(url)


@pytest.mark.parametrize(("text", "expected"), [("60s", 60), ("60", 60), ("2m", 120), (" 5s ", 5)])
def test_time_is_read_in_seconds_and_minutes(text: str, expected: int) -> None:
    assert plan.seconds(text) == expected


@pytest.mark.parametrize("text", ["0", "1h", "-5s", "", "1.5m", "16m", "901s", "forever"])
def test_an_unbounded_or_senseless_time_is_refused(text: str) -> None:
    with pytest.raises(plan.InputError):
        plan.seconds(text)


@pytest.mark.parametrize("text", ["0", "501", "-1", "many", ""])
def test_a_senseless_number_of_users_is_refused(text: str) -> None:
    with pytest.raises(plan.InputError):
        plan.users(text)


def test_think_time_is_a_range() -> None:
    assert plan.think_s("0.5-2") == (0.5, 2.0)
    for text in ("3-1", "2", "a-b", ""):
        with pytest.raises(plan.InputError):
            plan.think_s(text)
