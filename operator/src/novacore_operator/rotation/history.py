"""What happened to a ring: the last ten entries, each chained to the one before it.

`hash` = SHA-256 over the canonical entry with `prev`, the hash before it. Whoever alters, drops or reorders an entry
breaks the chain from there on; dropping the newest or the oldest is seen by the Events and log lines, which carry the
hash too. Invariant HIST-1: `append` keeps every entry but the oldest as it is, and the result verifies.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum

LENGTH = 10


class Outcome(StrEnum):
    """What an entry is about."""

    ACTIVATED = "activated"
    RETIRED = "retired"
    REVOKED = "revoked"
    ROLLED_BACK = "rolled-back"
    DENIED = "denied"


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the history. Names, times and numbers, never material. Times are Unix seconds."""

    id: str  # the rotation: `<ring>-<n>` of the key that it is about
    outcome: Outcome
    trigger: str
    at: int
    generation: int
    kids: tuple[str, ...] = ()
    actor: str = ""
    reason: str = ""
    seconds: float = 0.0  # from trigger to outcome, as far as the operator saw both
    acked: str = ""  # `27/27`
    acks_sha256: str = ""  # over the names and canaries of the pods that proved the key
    times: tuple[tuple[str, int], ...] = ()
    failures: tuple[str, ...] = ()
    prev: str = ""
    hash: str = field(default="", compare=False)


def digest(entry: Entry) -> str:
    """Return the hash of an entry, which covers all its fields and `prev`."""
    body = asdict(entry)
    del body["hash"]
    body["seconds"] = float(entry.seconds)  # a whole number of seconds is no other one
    body["times"] = sorted(body["times"])  # the status keeps them as a map, which has no order
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def append(history: Sequence[Entry], entry: Entry, *, length: int = LENGTH) -> tuple[Entry, ...]:
    """Return the history with an entry at its end, chained, at most `length` of them."""
    chained = replace(entry, prev=history[-1].hash if history else "", hash="")
    whole = (*history, replace(chained, hash=digest(chained)))
    return whole[-length:]


def forgotten(history: Sequence[Entry], since: float, *, length: int = LENGTH) -> bool:
    """Return whether what happened at `since` may have been told by an entry that is no longer kept."""
    return len(history) >= length and since < history[0].at


def faults(history: Iterable[Entry]) -> tuple[str, ...]:
    """Return one sentence for each place where the chain does not hold; none: nothing was altered."""
    found = []
    before: Entry | None = None
    for number, entry in enumerate(history, start=1):
        if entry.hash != digest(entry):
            found.append(f"entry {number} ({entry.id} {entry.outcome}): its content does not give its hash")
        if before is not None and entry.prev != before.hash:
            found.append(f"entry {number} ({entry.id} {entry.outcome}): does not follow the entry before it")
        before = entry
    return tuple(found)
