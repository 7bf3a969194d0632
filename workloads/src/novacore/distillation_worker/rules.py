"""Which reflections belong together, which groups are worth a principle, and what it says. Pure.

Invariants: DISTIL-1 each reflection of a page is in exactly one group; DISTIL-2 a principle is kept if and only if its
group has at least two reflections, (|mean emotion| > 0.3 or mean confidence > 0.7) and a success rate of at least 0.5;
DISTIL-3 a principle is 1 to 500 characters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Literal
from uuid import UUID

from novacore.distillation_worker.schemas import Reflection

SYSTEM_TAGS = frozenset({"reflection", "self-assessment", "alignment"})
GENERAL = "general"
GROUP_MIN = 2
EMOTION_ABOVE, CONFIDENCE_ABOVE, SUCCESS_MIN = 0.3, 0.7, 0.5
PRINCIPLE_CHARS = 500


@dataclass(frozen=True, slots=True)
class Drawn:
    """A principle drawn from a group."""

    topic: str
    principle: str
    outcome: Literal["success", "failure"]
    confidence: float
    sources: tuple[UUID, ...]


def topic_of(tags: Sequence[str]) -> str:
    """Return the first tag that is not the system's, else `general`."""
    return next((tag for tag in tags if tag not in SYSTEM_TAGS), GENERAL)


def grouped(page: Sequence[Reflection]) -> dict[str, list[Reflection]]:
    """Return topic → its reflections, in the order of the page."""
    groups: dict[str, list[Reflection]] = {}
    for reflection in page:
        groups.setdefault(topic_of(reflection.tags), []).append(reflection)
    return groups


def draw(topic: str, group: Sequence[Reflection]) -> Drawn | None:
    """Return the principle of a group, or None when it is not worth one. Outcome = sign of the mean emotion."""
    if len(group) < GROUP_MIN:
        return None
    emotion = sum(one.emotional_weight or 0.0 for one in group) / len(group)
    stated = [one.confidence_score for one in group if one.confidence_score is not None]
    confidence = sum(stated) / len(stated) if stated else 0.0
    successes = sum(one.outcome == "success" for one in group) / len(group)
    if not ((abs(emotion) > EMOTION_ABOVE or confidence > CONFIDENCE_ABOVE) and successes >= SUCCESS_MIN):
        return None
    text = principle_text([one.improvement for one in group])
    if not text:
        return None
    return Drawn(
        topic=topic,
        principle=text,
        outcome="failure" if emotion < 0 else "success",
        confidence=max(0.0, min(1.0, round(confidence, 4))),
        sources=tuple(one.id for one in group),
    )


def principle_text(improvements: Sequence[str]) -> str:
    """Return the distinct improvements in order, as many whole ones as fit; a first one that is too long is cut."""
    text = ""
    for part in dict.fromkeys(" ".join(improvement.split()) for improvement in improvements):
        longer = f"{text} {part}".strip()
        if len(longer) <= PRINCIPLE_CHARS:
            text = longer
    if text:
        return text
    first = next((" ".join(one.split()) for one in improvements if one.strip()), "")
    return first if len(first) <= PRINCIPLE_CHARS else first[: PRINCIPLE_CHARS - 1].rsplit(" ", 1)[0] + "…"


def latest_slot(now: datetime, at: time) -> datetime:
    """Return the last time the clock (UTC) showed `at`."""
    slot = datetime.combine(now.astimezone(UTC).date(), at, tzinfo=UTC)
    return slot if slot <= now else slot - timedelta(days=1)


def is_due(now: datetime, at: time, *, since: datetime, last_attempt: datetime | None, retry_after: timedelta) -> bool:
    """Return whether a slot passed after `since` (the last good run, else the start) and no attempt was just made."""
    if latest_slot(now, at) <= since:
        return False
    return last_attempt is None or now - last_attempt >= retry_after
