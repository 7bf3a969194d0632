"""The life of a run (RUN-1, RUN-2)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from novacore.intelligence.runs import NEXT, Status, WrongTransitionError, after, billed

ENDS = [status for status in Status if status.ended]


def test_six_of_seven_states_are_an_end_or_lead_to_one():
    assert set(ENDS) == {Status.DONE, Status.FAILED, Status.CANCELLED, Status.BLOCKED, Status.INTERRUPTED}
    assert set(NEXT) == set(Status)


def test_nothing_is_done_or_blocked_before_it_ran():
    for never in (Status.DONE, Status.BLOCKED):
        with pytest.raises(WrongTransitionError):
            after(Status.QUEUED, never)


class RunLife(RuleBasedStateMachine):
    """RUN-1: two replicas, a client and a sweep all try to move one run."""

    def __init__(self) -> None:
        super().__init__()
        self.status = Status.QUEUED
        self.ends = 0

    @rule(wanted=st.sampled_from(list(Status)))
    def someone_tries(self, wanted):
        before = self.status
        try:
            self.status = after(self.status, wanted)
        except WrongTransitionError:
            assert self.status is before
            return
        self.ends += self.status.ended

    @precondition(lambda self: self.status.ended)
    @rule(wanted=st.sampled_from(list(Status)))
    def nothing_follows_an_end(self, wanted):
        with pytest.raises(WrongTransitionError):
            after(self.status, wanted)

    @invariant()
    def ends_at_most_once(self):
        assert self.ends == int(self.status.ended)


TestRunLife = pytest.mark.invariant("RUN-1")(RunLife.TestCase)


@pytest.mark.invariant("RUN-2")
@given(status=st.sampled_from(ENDS), prompt=st.integers(0, 5000), completion=st.integers(0, 5000))
def test_what_is_billed_is_what_was_produced(status, prompt, completion):
    """RUN-2"""
    cost = billed(status, prompt=prompt, completion=completion)
    if completion or status is Status.DONE:
        assert cost == prompt + completion
    else:
        assert cost == 0
