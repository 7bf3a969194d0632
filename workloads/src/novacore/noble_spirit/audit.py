"""The hash chain of the audit log. Pure.

hash(n) = SHA-256(hash(n-1) ‖ canonical JSON of seq, policy, action, context and time). The person behind a row is not
part of it, so that an account can be deleted; the context holds a keyed hash of the id instead.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal
from uuid import UUID

Action = Literal["validation_passed", "validation_failed", "override_attempted", "policy_created", "policy_updated"]


@dataclass(frozen=True, slots=True)
class Entry:
    """What is to be written."""

    action: Action
    context: dict[str, Any]
    at: datetime
    policy_id: UUID | None = None
    user_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """What was written."""

    seq: int
    action: str
    context: dict[str, Any]
    at: datetime
    policy_id: UUID | None
    prev_hash: bytes
    hash: bytes


def chain(
    prev_hash: bytes, *, seq: int, action: str, context: dict[str, Any], at: datetime, policy_id: UUID | None
) -> bytes:
    """Return the hash of a row."""
    value = {
        "action": action,
        "at": at.astimezone(UTC).isoformat(timespec="microseconds"),
        "context": context,
        "policy_id": str(policy_id) if policy_id else None,
        "seq": seq,
    }
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(prev_hash + text.encode()).digest()


def first_break(rows: Iterable[Row], *, after_seq: int, after_hash: bytes) -> int | None:
    """Return the number of the first row that does not continue the chain, or None."""
    seq, held = after_seq, after_hash
    for row in rows:
        expected = chain(held, seq=row.seq, action=row.action, context=row.context, at=row.at, policy_id=row.policy_id)
        if row.seq != seq + 1 or row.prev_hash != held or row.hash != expected:
            return row.seq
        seq, held = row.seq, row.hash
    return None
