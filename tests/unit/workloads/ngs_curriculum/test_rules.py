"""The XP table, levels, caps and qualities."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacore.ngs_curriculum import rules
from novacore.ngs_curriculum.rules import DailyCaps, Source
from novacore_contracts.metrics import XP_SOURCES

TOTALS = st.integers(min_value=0, max_value=200_000)
SCORES = st.integers(min_value=0, max_value=100)

LONG = (
    "Today I noticed that my answer came before the question had ended, and that I had called this being helpful. "
    "When I waited, the other person corrected their own sentence, and the problem I wanted to solve was gone for good."
)


@pytest.mark.invariant("XP-1")
@given(TOTALS, TOTALS)
def test_a_level_never_falls_while_the_total_rises(one: int, other: int) -> None:
    """XP-1."""
    low, high = sorted((one, other))
    assert 1 <= rules.level_for(low) <= rules.level_for(high) <= rules.LEVELS


@given(st.integers(min_value=1, max_value=rules.LEVELS))
def test_a_level_begins_exactly_at_its_xp(level: int) -> None:
    assert rules.level_for(rules.xp_required(level)) == level
    if level > 1:
        assert rules.level_for(rules.xp_required(level) - 1) == level - 1


@given(TOTALS)
def test_the_distance_to_the_next_level_leads_there(total: int) -> None:
    standing = rules.standing(total)
    assert 0 <= standing.percent <= 100
    if standing.next_level is None:
        assert (standing.level, standing.xp_to_next, standing.percent) == (rules.LEVELS, 0, 100.0)
    else:
        assert rules.level_for(total + standing.xp_to_next) == standing.next_level
        assert rules.level_for(total + standing.xp_to_next - 1) == standing.level


@pytest.mark.parametrize("level", [0, 25, -1])
def test_there_is_no_level_outside_the_table(level: int) -> None:
    with pytest.raises(ValueError, match="levels 1 to 24"):
        rules.xp_required(level)


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        (None, (Source.LESSON_COMPLETION, 75)),
        (100, (Source.QUIZ_PERFECT, 100)),
        (99, (Source.QUIZ_GOOD, 75)),
        (80, (Source.QUIZ_GOOD, 75)),
        (79, (Source.QUIZ_PASS, 50)),
        (60, (Source.QUIZ_PASS, 50)),
        (59, None),
        (0, None),
    ],
)
def test_a_lesson_pays_by_the_servers_score(score: int | None, expected: tuple[Source, int] | None) -> None:
    assert rules.lesson_award(score, 75) == expected


@pytest.mark.invariant("XP-2")
@given(st.integers(0, 500), st.integers(0, 2000), st.integers(0, 1500))
def test_no_award_passes_what_is_left_of_the_day(amount: int, earned: int, cap: int) -> None:
    """XP-2."""
    given_ = rules.capped(amount, earned_today=earned, caps=DailyCaps(xp=cap))
    assert 0 <= given_ <= amount
    assert earned + given_ <= max(cap, earned)


@pytest.mark.invariant("XP-3")
@given(st.lists(SCORES, min_size=1, max_size=12), st.integers(1, 1000))
def test_a_challenge_pays_its_best_share_in_whatever_order_scores_come(scores: list[int], reward: int) -> None:
    """XP-3."""
    paid = best = 0
    for score in scores:
        paid += rules.challenge_award(score, rules.challenge_share(best), reward)
        best = max(best, score)
    assert paid == reward * rules.challenge_share(max(scores)) // 100


@pytest.mark.parametrize(("score", "share"), [(100, 100), (99, 80), (80, 80), (79, 60), (60, 60), (59, 0)])
def test_a_challenge_passes_at_sixty(score: int, share: int) -> None:
    assert rules.challenge_share(score) == share


@pytest.mark.parametrize(
    ("text", "quality", "xp"),
    [
        ("I waited before I answered.", 0.3, 10),
        (LONG[:120], 0.6, 15),
        (LONG[:280], 0.8, 25),
        (
            LONG
            + " Tomorrow I will ask one plain question and count slowly to three before I begin to speak, whoever it is.",
            0.9,
            25,
        ),
    ],
)
def test_a_longer_reflection_is_worth_more(text: str, quality: float, xp: int) -> None:
    assert rules.reflection_quality(text) == quality
    assert rules.reflection_award(quality)[1] == xp


def test_repeated_words_lower_the_quality() -> None:
    assert rules.reflection_quality("noise and signal " * 30) < 0.5


def test_a_near_copy_is_worth_less_and_a_copy_nothing() -> None:
    fresh = rules.reflection_quality(LONG)
    assert rules.reflection_quality(LONG + " Truly so.", [LONG]) < fresh
    assert rules.reflection_quality(LONG.upper() + "!!", [LONG]) == 0
    assert rules.reflection_award(0)[1] == 0


@given(st.text(max_size=400), st.lists(st.text(max_size=200), max_size=3))
def test_quality_stays_between_nothing_and_nine_tenths(text: str, earlier: list[str]) -> None:
    assert 0 <= rules.reflection_quality(text, earlier) <= 0.9


def test_a_source_outside_the_table_is_unknown_and_pays_ten() -> None:
    assert rules.known_source("generosity") is Source.UNKNOWN
    assert rules.XP[Source.UNKNOWN] == 10


def test_sources_are_those_of_the_metric_registry() -> None:
    assert {source.value for source in Source} == set(XP_SOURCES)
    assert set(rules.XP) == set(Source)
