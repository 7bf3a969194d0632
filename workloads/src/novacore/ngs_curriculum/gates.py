"""When a level, and what lies in it, is open. Pure: an ordered list of checks, the first refusal wins.

Invariant GATE-1: what is closed by one route is closed by all; every route asks `lock_reason`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


class LockReason(StrEnum):
    """Why something is closed; also the `code` of the 403."""

    TIER_REQUIRED = "tier_required"
    LEVEL_LOCKED = "level_locked"
    PREREQUISITE_MISSING = "prerequisite_missing"


SENTENCES: dict[LockReason, str] = {
    LockReason.TIER_REQUIRED: "This level is not part of your plan; a larger plan opens it.",
    LockReason.LEVEL_LOCKED: "You have not reached this level yet; earn more XP to open it.",
    LockReason.PREREQUISITE_MISSING: "Complete the required lessons of the level before this one first.",
}


@dataclass(frozen=True, slots=True)
class Learner:
    """All that decides which levels are open to someone."""

    current_level: int
    max_level: int  # of the subscription tier
    missing_required: frozenset[int]  # levels with a required lesson not yet completed


def beyond_tier(learner: Learner, level: int) -> LockReason | None:
    """The plan does not hold this level."""
    return LockReason.TIER_REQUIRED if level > learner.max_level else None


def beyond_level(learner: Learner, level: int) -> LockReason | None:
    """The learner's XP does not reach this level."""
    return LockReason.LEVEL_LOCKED if level > learner.current_level else None


def lessons_missing(learner: Learner, level: int) -> LockReason | None:
    """A required lesson of the level before is not completed."""
    return LockReason.PREREQUISITE_MISSING if level - 1 in learner.missing_required else None


CHECKS: tuple[Callable[[Learner, int], LockReason | None], ...] = (
    beyond_tier,  # first: no amount of learning opens it, so the other sentences would mislead
    beyond_level,
    lessons_missing,  # last: it names the next step of someone who may be here
)


def lock_reason(learner: Learner, level: int) -> LockReason | None:
    """Return why `level` is closed to the learner, or None when it is open."""
    return next((reason for check in CHECKS if (reason := check(learner, level)) is not None), None)
