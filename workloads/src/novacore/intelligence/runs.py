"""The life of a run as a table, and what its end costs. Pure.

Invariant RUN-1: a run ends exactly once; an ended run never changes its status.
Invariant RUN-2: what is billed is what was produced: nothing before the first token, else the prompt and all tokens.
"""

from __future__ import annotations

from enum import StrEnum


class Status(StrEnum):
    """Column `chat.runs.status`."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    BLOCKED = "blocked"
    INTERRUPTED = "interrupted"

    @property
    def ended(self) -> bool:
        """Whether nothing can follow."""
        return not NEXT[self]


NEXT: dict[Status, frozenset[Status]] = {
    Status.QUEUED: frozenset({Status.RUNNING, Status.FAILED, Status.CANCELLED, Status.INTERRUPTED}),
    Status.RUNNING: frozenset({Status.DONE, Status.FAILED, Status.CANCELLED, Status.BLOCKED, Status.INTERRUPTED}),
    Status.DONE: frozenset(),
    Status.FAILED: frozenset(),
    Status.CANCELLED: frozenset(),
    Status.BLOCKED: frozenset(),
    Status.INTERRUPTED: frozenset(),
}


class WrongTransitionError(ValueError):
    """A step the table does not have: a fault in the code that asked for it."""


def after(status: Status, wanted: Status) -> Status:
    """Return `wanted` if it may follow `status`. WrongTransitionError otherwise."""
    if wanted not in NEXT[status]:
        raise WrongTransitionError(f"{status} -> {wanted}")
    return wanted


def billed(status: Status, *, prompt: int, completion: int) -> int:
    """Return the tokens to settle (RUN-2). A `done` run without a token still read its prompt."""
    if completion == 0 and status is not Status.DONE:
        return 0
    return prompt + completion
