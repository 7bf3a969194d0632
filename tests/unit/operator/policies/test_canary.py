"""When a canary is worse than the pods beside it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from novacore_operator.policies.canary import LEAST_REQUESTS, figures, not_passed
from novacore_operator.reasons import Reason
from novacore_operator.state import Counted, Sample, Served, Trial

READ, WRITE = ("GET", "/api/memory/{id}"), ("POST", "/api/memory")


def pod(now: Sample, begin: Sample | None = None) -> Counted:
    """Return a pod's two samples; by default its whole life counts."""
    return Counted(begin or {}, now)


def served(requests: int, errors: int = 0, slow: int = 0) -> Served:
    """Return what was served within one of two bounds: `slow` beyond the first."""
    return Served(requests, errors, (requests - slow, requests))


def judged(canary: Sample, stable: Sample, *, elapsed_s: float = 30.0) -> Any:
    """Return the reason and the message of a comparison of 60 s."""
    found = not_passed("memory", Trial("t", elapsed_s, (pod(canary),), (pod(stable),)), seconds=60, unread_s=120)
    return (found.reason, found.message) if found is not None else (None, "")


CASES = {
    "the same": (served(100, 1), served(100, 1), Reason.CANARY_RUNNING),
    "all fail": (served(40, 40), served(40), Reason.CANARY_WORSE),
    "two may be chance": (served(20, 2), served(200), Reason.CANARY_RUNNING),
    "three of twenty are not": (served(20, 3), served(200), Reason.CANARY_WORSE),
    "within twice and two points": (served(100, 11), served(100, 5), Reason.CANARY_RUNNING),
    "beyond twice and two points": (served(100, 13), served(100, 5), Reason.CANARY_WORSE),
    "as bad as the old one": (served(100, 90), served(100, 90), Reason.CANARY_RUNNING),
    "slow": (served(100, 0, 40), served(100, 0, 10), Reason.CANARY_WORSE),
    "not slow enough": (served(100, 0, 39), served(100, 0, 10), Reason.CANARY_RUNNING),
    "no slower than slow ones": (served(100, 0, 90), served(100, 0, 90), Reason.CANARY_RUNNING),
    "too few of the canary": (served(19, 19), served(1000), Reason.CANARY_RUNNING),
    "too few of the old pods": (served(1000, 1000), served(19), Reason.CANARY_RUNNING),
}


@pytest.mark.parametrize("name", CASES)
def test_a_canary_is_judged_by_errors_and_by_time(name: str) -> None:
    canary, stable, reason = CASES[name]
    assert judged({READ: canary}, {READ: stable})[0] is reason
    passed = judged({READ: canary}, {READ: stable}, elapsed_s=60.0)[0]
    assert passed is (None if reason is Reason.CANARY_RUNNING else reason)


def test_the_message_has_time_figures_and_what_they_are_held_against() -> None:
    _, message = judged({READ: served(120)}, {READ: served(1000, 1)}, elapsed_s=34)
    assert message == (
        "canary of memory: 34 of 60 s, 0.0 % 5xx of 120 requests against 0.1 %, 0 % slower than nine of ten there"
    )
    _, message = judged({READ: served(12)}, {READ: served(30)}, elapsed_s=34)
    assert message.endswith("34 of 60 s, 12 requests, and 30 of the old pods: nothing is compared below 20")
    _, message = judged({READ: served(40, 20)}, {READ: served(50)}, elapsed_s=14)
    assert message.startswith("memory: the canary is worse: 50.0 % 5xx of 40 requests against 0.0 %")


def test_a_canary_is_not_blamed_for_the_routes_it_was_given() -> None:
    """WRITE fails in half of all cases, on old pods too: one that got more of it is no worse."""
    canary = {WRITE: served(80, 40), READ: served(20)}
    stable = {WRITE: served(20, 10), READ: served(180)}
    assert judged(canary, stable)[0] is Reason.CANARY_RUNNING


def test_a_route_that_only_the_canary_has_is_held_against_all_of_the_old_ones() -> None:
    assert judged({WRITE: served(40, 40)}, {READ: served(100)})[0] is Reason.CANARY_WORSE


def test_a_process_that_began_anew_counts_from_nothing() -> None:
    trial = Trial("t", 30.0, (pod({READ: served(25, 1)}, {READ: served(9000, 50)}),), (pod({READ: served(50)}),))
    assert (figures(trial).requests, figures(trial).errors) == (25, 1)


def test_only_what_was_served_since_the_canary_was_ready_counts() -> None:
    trial = Trial("t", 30.0, (pod({READ: served(50)}),), (pod({READ: served(5050, 500)}, {READ: served(5000, 500)}),))
    assert (figures(trial).stable_requests, figures(trial).stable_error_share) == (50, 0.0)


def test_a_canary_that_is_not_ready_is_waited_for() -> None:
    found = not_passed("memory", None, seconds=60, unread_s=120)
    assert found is not None
    assert (found.reason, found.message) == (Reason.CANARY_RUNNING, "waits for the canary of memory to be ready")


@pytest.mark.parametrize(("elapsed_s", "reason"), [(100.0, Reason.CANARY_RUNNING), (120.0, Reason.CANARY_UNREAD)])
def test_a_canary_whose_metrics_stay_unread_does_not_pass(elapsed_s: float, reason: Reason) -> None:
    found = not_passed("memory", Trial("t", elapsed_s, (), (pod({}),)), seconds=60, unread_s=120)
    assert found is not None
    assert found.reason is reason


COUNTS = st.integers(0, 400)


@st.composite
def routes(draw: st.DrawFn) -> tuple[Sample, Sample]:
    """Return what a canary served that is no worse on any route, and what the old pods did."""
    canary, stable = {}, {}
    for n in range(draw(st.integers(1, 4))):
        old = draw(st.integers(1, 400))
        errors, slow = draw(st.integers(0, old)), draw(st.integers(0, old))
        new = draw(COUNTS)
        stable["GET", f"/{n}"] = served(old, errors, slow)
        canary["GET", f"/{n}"] = served(
            new, draw(st.integers(0, new * errors // old)), draw(st.integers(0, new * slow // old))
        )
    return canary, stable


@pytest.mark.invariant("CAN-1")
@given(routes())
def test_a_canary_no_worse_than_the_old_pods_is_never_judged_worse(both: tuple[Sample, Sample]) -> None:
    canary, stable = both
    assert judged(canary, stable)[0] is Reason.CANARY_RUNNING
    assert judged(canary, stable, elapsed_s=60.0)[0] is None


@pytest.mark.invariant("CAN-2")
@given(COUNTS, COUNTS, st.data())
def test_too_few_requests_are_never_judged(new: int, old: int, data: st.DataObject) -> None:
    assume(min(new, old) < LEAST_REQUESTS)
    canary = served(new, data.draw(st.integers(0, new)), data.draw(st.integers(0, new)))
    stable = served(old, data.draw(st.integers(0, old)), data.draw(st.integers(0, old)))
    assert judged({READ: canary}, {READ: stable})[0] is Reason.CANARY_RUNNING
