"""What an allowance is: windows, limits, percentages, warnings. The one module that computes them; pure.

Like is compared with like: tokens of today with the limit per day, bytes now with the limit of bytes, minutes of this
month with the limit per month. A limit of -1 is none and has percentage 0. Days and months are UTC.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal, get_args

from novacore.common.settings import TierLimits, Tiers

Resource = Literal["llm_tokens", "memory_storage", "agent_minutes"]
RESOURCES: tuple[Resource, ...] = get_args(Resource)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
WARN_PERCENT = 80.0

_NAMES: dict[Resource, str] = {
    "llm_tokens": "tokens of today",
    "memory_storage": "memory storage",
    "agent_minutes": "agent minutes of this month",
}


@dataclass(frozen=True, slots=True)
class Window:
    """The time an allowance counts for; `end` None means for ever."""

    start: datetime
    end: datetime | None


def window_of(resource: Resource, now: datetime) -> Window:
    """Return the open window of a resource."""
    now = now.astimezone(UTC)
    day = now.replace(hour=0, minute=0, second=0, microsecond=0)
    if resource == "llm_tokens":
        return Window(day, day + timedelta(days=1))
    if resource == "agent_minutes":
        first = day.replace(day=1)
        return Window(first, (first + timedelta(days=32)).replace(day=1))
    return Window(EPOCH, None)


def limit_of(limits: TierLimits, resource: Resource) -> int:
    """Return the allowance of one window; -1 is none."""
    if resource == "llm_tokens":
        return limits.llm_tokens_per_day
    return limits.memory_storage_bytes if resource == "memory_storage" else limits.agent_minutes_per_month


def caps(tiers: Tiers, resource: Resource) -> dict[str, int]:
    """Return the allowance per tier."""
    return {tier: limit_of(tiers.of(tier), resource) for tier in ("free_trial", "basic", "pro")}


def percentage(used: int, limit: int) -> float:
    """Return how much of the allowance is used, in percent with one decimal; 0 without a limit."""
    if limit < 0:
        return 0.0
    if limit == 0:
        return 100.0 if used > 0 else 0.0
    return round(100 * used / limit, 1)


def has_room(used: int, limit: int, amount: int) -> bool:
    """Return whether `amount` more would fit."""
    return limit < 0 or used + amount <= limit


def warnings(used: Mapping[Resource, int], limits: TierLimits) -> list[str]:
    """Return a sentence for each resource from 80 % and from 100 % of its allowance."""
    found = []
    for resource in RESOURCES:
        percent = percentage(used.get(resource, 0), limit_of(limits, resource))
        if percent >= 100:
            found.append(
                f"The {_NAMES[resource]} are used up."
                if resource != "memory_storage"
                else "The memory storage is full."
            )
        elif percent >= WARN_PERCENT:
            found.append(f"{percent:g} % of the {_NAMES[resource]} used.")
    return found


def human_readable(resource: Resource, amount: int) -> str:
    """Return an amount for people: `1,234 tokens`, `1.5 MiB`, `12 min`."""
    if resource == "llm_tokens":
        return f"{amount:,} tokens"
    if resource == "agent_minutes":
        return f"{amount:,} min"
    size = float(amount)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size) < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def days_back(now: datetime, days: int) -> list[datetime]:
    """Return the starts of the last `days` UTC days, today last."""
    today = window_of("llm_tokens", now).start
    return [today - timedelta(days=n) for n in range(days - 1, -1, -1)]
