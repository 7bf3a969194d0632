"""What earns how much: the XP table, levels, daily caps, quality of a reflection. Pure.

Invariants (each has a property test):
XP-1: a level is a function of the total alone, and never falls while the total rises.
XP-2: no award passes what is left under a daily cap.
XP-3: what a challenge has paid in all equals the share of its best score, in whatever order the scores came.

Not here: who did what already (repository), when a lesson is open (gates), what an answer is worth (quiz, checks).
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

LEVEL_XP: tuple[int, ...] = (
    0, 100, 250, 450, 700, 1000, 1400, 1900, 2500, 3200, 4000, 5000,
    6200, 7600, 9200, 11000, 13000, 15200, 17600, 20200, 23000, 26000, 29200, 32600,
)  # fmt: skip
"""XP with which level 1..24 begins."""

LEVELS = len(LEVEL_XP)
QUIZ_PASS_PERCENT = 60
LESSON_TRIES_PER_DAY = 3
REFLECTIONS_PAID_PER_DAY = 3


class Source(StrEnum):
    """Where XP came from; also the label of `novacore_xp_awarded_total`."""

    LESSON_COMPLETION = "lesson_completion"
    QUIZ_PERFECT = "quiz_perfect"
    QUIZ_GOOD = "quiz_good"
    QUIZ_PASS = "quiz_pass"  # noqa: S105 - a quiz that was passed, no password
    REFLECTION_HIGH = "reflection_high"
    REFLECTION_MEDIUM = "reflection_medium"
    HELPING_OTHERS = "helping_others"
    CREATIVE_SOLUTION = "creative_solution"
    CHALLENGE_SOLVED = "challenge_solved"
    DAILY_STREAK = "daily_streak"
    UNKNOWN = "unknown"


XP: Mapping[Source, int] = {
    Source.LESSON_COMPLETION: 50,
    Source.QUIZ_PERFECT: 100,
    Source.QUIZ_GOOD: 75,
    Source.QUIZ_PASS: 50,
    Source.REFLECTION_HIGH: 25,
    Source.REFLECTION_MEDIUM: 15,
    Source.HELPING_OTHERS: 10,
    Source.CREATIVE_SOLUTION: 75,
    Source.CHALLENGE_SOLVED: 100,
    Source.DAILY_STREAK: 20,
    Source.UNKNOWN: 10,
}


@dataclass(frozen=True, slots=True)
class DailyCaps:
    """Most events of a source, and most XP of all sources, that one UTC day may bring."""

    streak: int = 1
    helping_others: int = 5
    creative_solution: int = 1
    xp: int = 1000

    def events(self, source: Source) -> int | None:
        """Return how many events of `source` a day may hold, or None for as many as happen."""
        return {
            Source.DAILY_STREAK: self.streak,
            Source.HELPING_OTHERS: self.helping_others,
            Source.CREATIVE_SOLUTION: self.creative_solution,
        }.get(source)


@dataclass(frozen=True, slots=True)
class Standing:
    """A learner's place in the table."""

    level: int
    next_level: int | None  # None on the last level
    xp_to_next: int
    percent: float  # of the way from this level to the next, 0..100


def known_source(name: str) -> Source:
    """Return the source of that name; a name that is not in the table is `unknown` and pays what the table says."""
    try:
        return Source(name)
    except ValueError:
        return Source.UNKNOWN


def level_for(total_xp: int) -> int:
    """Return the level, 1..24, that a total of XP stands for."""
    return max(1, bisect_right(LEVEL_XP, total_xp))


def xp_required(level: int) -> int:
    """Return the XP with which `level` begins. ValueError outside 1..24."""
    if not 1 <= level <= LEVELS:
        raise ValueError(f"level {level}: there are levels 1 to {LEVELS}")
    return LEVEL_XP[level - 1]


def standing(total_xp: int) -> Standing:
    """Return level, next level and the distance between them for a total of XP."""
    level = level_for(total_xp)
    if level == LEVELS:
        return Standing(level=level, next_level=None, xp_to_next=0, percent=100.0)
    start, end = LEVEL_XP[level - 1], LEVEL_XP[level]
    return Standing(
        level=level,
        next_level=level + 1,
        xp_to_next=end - total_xp,
        percent=round(100.0 * (total_xp - start) / (end - start), 1),
    )


def lesson_award(score: int | None, xp_reward: int) -> tuple[Source, int] | None:
    """Return source and XP of a finished lesson, or None when the quiz was not passed.

    `score` is the server's, 0..100, None for a lesson without a quiz (which pays its own `xp_reward`).
    """
    if score is None:
        return Source.LESSON_COMPLETION, xp_reward
    for source, least in ((Source.QUIZ_PERFECT, 100), (Source.QUIZ_GOOD, 80), (Source.QUIZ_PASS, QUIZ_PASS_PERCENT)):
        if score >= least:
            return source, XP[source]
    return None


def challenge_share(score: int) -> int:
    """Return the percentage of a challenge's reward that a score is worth: 100, 80, 60 or 0."""
    return next((share for share in (100, 80, 60) if score >= share), 0)


def challenge_award(score: int, best_share: int, xp_reward: int) -> int:
    """Return the XP a submission adds over the best share already paid (XP-3)."""
    share = max(challenge_share(score), best_share)
    return xp_reward * share // 100 - xp_reward * best_share // 100


def capped(amount: int, *, earned_today: int, caps: DailyCaps) -> int:
    """Return how much of `amount` still fits under the day's cap (XP-2)."""
    return max(0, min(amount, caps.xp - earned_today))


# Reflections

_WORD = re.compile(r"[^\W_]+")
_REPETITIVE = 0.45  # distinct words ÷ words; own plain prose of 300 characters lies above 0.6
_NEAR_COPY = 0.6  # shared three-word runs ÷ all of them


def words(text: str) -> list[str]:
    """Return the words of a text, case folded."""
    return _WORD.findall(text.casefold())


def reflection_quality(text: str, earlier: Iterable[str] = ()) -> float:
    """Return the quality, 0..1, of a reflection: its length, lowered by repetition and by nearness to earlier ones.

    A word-for-word copy of an earlier one is worth 0: nothing is paid twice.
    """
    length = len(text.strip())
    quality = 0.3 if length < 50 else 0.6 if length < 150 else 0.8 if length < 300 else 0.9
    own = words(text)
    if not own:
        return 0.0
    if len(set(own)) < _REPETITIVE * len(own):
        quality *= 0.5
    runs = _runs(own)
    for other in earlier:
        theirs = words(other)
        if theirs == own:
            return 0.0
        both = _runs(theirs)
        if len(runs & both) >= _NEAR_COPY * len(runs | both):
            quality *= 0.5
            break
    return round(quality, 2)


def reflection_award(quality: float) -> tuple[Source, int]:
    """Return source and XP of a reflection; a copy (quality 0) is worth nothing."""
    if quality <= 0:
        return Source.UNKNOWN, 0
    if quality < 0.5:
        return Source.UNKNOWN, XP[Source.UNKNOWN]
    source = Source.REFLECTION_HIGH if quality >= 0.8 else Source.REFLECTION_MEDIUM
    return source, XP[source]


def _runs(text: list[str]) -> frozenset[tuple[str, ...]]:
    """Return the runs of three words; the whole of a text that has fewer."""
    if len(text) < 3:
        return frozenset({tuple(text)})
    return frozenset(zip(text, text[1:], text[2:], strict=False))
