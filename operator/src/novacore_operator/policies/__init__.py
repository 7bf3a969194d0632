"""Decisions as lists: one question, one ordered chain of small checks, the first finding wins.

`admission`: may the operator act on this resource at all? `rollout`: may the migration run, may a service be changed?
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from novacore_operator.reasons import Reason
from novacore_operator.state import Nova, Observed


@dataclass(frozen=True, slots=True)
class Finding:
    """Why not. `message` is one sentence: which object, what is wrong, what to do."""

    reason: Reason
    message: str


Policy = Callable[[Nova, Observed], Finding | None]


def first(chain: Iterable[Policy], nova: Nova, seen: Observed) -> Finding | None:
    """Return the first finding of a chain, or None."""
    return next((finding for policy in chain if (finding := policy(nova, seen)) is not None), None)
