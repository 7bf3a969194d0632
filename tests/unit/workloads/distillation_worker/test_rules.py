"""Grouping, keeping, wording, and the schedule."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacore.distillation_worker.rules import (
    PRINCIPLE_CHARS,
    draw,
    grouped,
    is_due,
    latest_slot,
    principle_text,
    topic_of,
)
from novacore.distillation_worker.schemas import Reflection

NOW = datetime(2026, 3, 5, 12, tzinfo=UTC)


def reflection(n: int = 1, **changes: Any) -> Reflection:
    fields: dict[str, Any] = {
        "id": UUID(int=n), "created_at": NOW, "tags": ["reflection", "self-assessment", "alignment"],
        "outcome": "success", "emotional_weight": 0.6, "confidence_score": 0.8, "improvement": f"Do {n}.",
    }  # fmt: skip
    return Reflection(**(fields | changes))


REFLECTIONS = st.lists(
    st.builds(
        reflection,
        n=st.integers(1, 10**6),
        tags=st.lists(st.sampled_from(["reflection", "alignment", "code", "tone"]), max_size=3),
        outcome=st.sampled_from(["success", "failure", "neutral"]),
        emotional_weight=st.none() | st.floats(-1, 1),
        confidence_score=st.none() | st.floats(0, 1),
        improvement=st.text(max_size=300),
    ),
    max_size=12,
)


def test_the_topic_is_the_first_tag_that_is_not_the_systems() -> None:
    assert topic_of(["reflection", "code", "tone"]) == "code"
    assert topic_of(["alignment"]) == "general"
    assert topic_of([]) == "general"


@pytest.mark.invariant("DISTIL-1")
@given(REFLECTIONS)
def test_each_reflection_is_in_exactly_one_group(page: list[Reflection]) -> None:
    """DISTIL-1."""
    groups = grouped(page)
    assert sum(len(group) for group in groups.values()) == len(page)
    for topic, group in groups.items():
        assert group
        assert all(topic_of(one.tags) == topic for one in group)


@pytest.mark.parametrize(
    ("group", "kept"),
    [
        ([reflection(1)], False),  # one alone proves nothing
        ([reflection(1), reflection(2)], True),
        ([reflection(1, emotional_weight=0.3, confidence_score=0.7)] * 2, False),  # on the bounds: not above
        ([reflection(1, emotional_weight=0.31, confidence_score=0.1)] * 2, True),
        ([reflection(1, emotional_weight=-0.31, confidence_score=0.1)] * 2, True),
        ([reflection(1, emotional_weight=None, confidence_score=0.71)] * 2, True),
        (
            [
                reflection(1, emotional_weight=0.5, confidence_score=0),
                reflection(2, emotional_weight=None, confidence_score=0),
            ],
            False,
        ),
        ([reflection(1), reflection(2, outcome="failure")], True),  # half is enough
        ([reflection(1), reflection(2, outcome="failure"), reflection(3, outcome="neutral")], False),
        ([reflection(1, improvement=" "), reflection(2, improvement="")], False),  # nothing to say
    ],
)
def test_a_group_is_kept_by_weight_and_success(group: list[Reflection], kept: bool) -> None:
    assert (draw("general", group) is not None) is kept


@pytest.mark.invariant("DISTIL-2")
@given(REFLECTIONS)
def test_what_is_kept_obeys_the_rule_in_any_order(group: list[Reflection]) -> None:
    """DISTIL-2, DISTIL-3."""
    drawn = draw("t", group)
    backwards = draw("t", group[::-1])
    assert (drawn is None) == (backwards is None)
    if drawn is None:
        return
    assert len(group) >= 2
    assert 1 <= len(drawn.principle) <= PRINCIPLE_CHARS
    assert set(drawn.sources) == {one.id for one in group}
    assert 0 <= drawn.confidence <= 1
    assert sum(one.outcome == "success" for one in group) * 2 >= len(group)


@pytest.mark.invariant("DISTIL-3")
@given(st.lists(st.text(max_size=700), max_size=8))
def test_a_principle_fits_and_repeats_nothing(improvements: list[str]) -> None:
    """DISTIL-3."""
    text = principle_text(improvements)
    assert len(text) <= PRINCIPLE_CHARS
    assert bool(text) == any(one.strip() for one in improvements)


def test_a_principle_is_made_of_whole_distinct_answers() -> None:
    assert principle_text(["Be brief.", "Cite.", "Be brief.", "x" * 499]) == "Be brief. Cite."
    assert principle_text(["word " * 200]).endswith("word…")


def test_the_outcome_is_the_sign_of_the_mean_emotion() -> None:
    glad, sad = (
        [reflection(n, emotional_weight=0.5) for n in (1, 2)],
        [reflection(n, emotional_weight=-0.5) for n in (1, 2)],
    )
    drawn = [draw("t", group) for group in (glad, sad)]
    assert [one.outcome for one in drawn if one] == ["success", "failure"]


@pytest.mark.parametrize(
    ("now", "slot"),
    [
        (datetime(2026, 3, 5, 2, 0, tzinfo=UTC), datetime(2026, 3, 5, 2, tzinfo=UTC)),
        (datetime(2026, 3, 5, 1, 59, 59, tzinfo=UTC), datetime(2026, 3, 4, 2, tzinfo=UTC)),
        (datetime(2026, 3, 1, 0, 0, tzinfo=UTC), datetime(2026, 2, 28, 2, tzinfo=UTC)),
    ],
)
def test_the_latest_slot_is_never_in_the_future(now: datetime, slot: datetime) -> None:
    assert latest_slot(now, time(2)) == slot


@pytest.mark.parametrize(
    ("since", "attempt", "due"),
    [
        (NOW - timedelta(days=1), None, True),  # the pod was away at the slot
        (NOW - timedelta(hours=1), None, False),  # started, or ran, after it
        (NOW - timedelta(days=1), NOW - timedelta(minutes=5), False),  # just failed: not at once again
        (NOW - timedelta(days=1), NOW - timedelta(minutes=10), True),
    ],
)
def test_a_run_is_due_once_per_slot(since: datetime, attempt: datetime | None, due: bool) -> None:
    found = is_due(NOW, time(2), since=since, last_attempt=attempt, retry_after=timedelta(minutes=10))
    assert found is due
