"""What is open to whom."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacore.ngs_curriculum.gates import SENTENCES, Learner, LockReason, lock_reason


def make_learner(*, level: int = 5, most: int = 24, missing: tuple[int, ...] = ()) -> Learner:
    return Learner(current_level=level, max_level=most, missing_required=frozenset(missing))


@pytest.mark.parametrize(
    ("learner", "level", "reason"),
    [
        (make_learner(), 5, None),
        (make_learner(level=1), 1, None),
        (make_learner(level=4), 5, LockReason.LEVEL_LOCKED),
        (make_learner(level=9, most=3), 4, LockReason.TIER_REQUIRED),
        (make_learner(level=1, most=3), 9, LockReason.TIER_REQUIRED),
        (make_learner(missing=(4, 5)), 5, LockReason.PREREQUISITE_MISSING),
        (make_learner(missing=(3, 5)), 5, None),
    ],
)
def test_the_first_refusal_names_the_reason(learner: Learner, level: int, reason: LockReason | None) -> None:
    assert lock_reason(learner, level) is reason


@given(st.integers(1, 24), st.integers(1, 24), st.frozensets(st.integers(1, 24)), st.integers(1, 24))
def test_nothing_beyond_plan_or_level_is_ever_open(level: int, most: int, missing: frozenset[int], asked: int) -> None:
    if lock_reason(Learner(level, most, missing), asked) is None:
        assert asked <= level
        assert asked <= most
        assert asked - 1 not in missing


def test_every_reason_has_a_sentence() -> None:
    assert set(SENTENCES) == set(LockReason)
