"""Rules without I/O: what a memory weighs, when it expires, which way it may move.

Invariant MEM-SIZE: the billed balance of a user is the sum of `size_bytes` over the visible `itm` and `ltm` rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Literal

Tier = Literal["stm", "itm", "ltm"]
TIERS: tuple[Tier, ...] = ("stm", "itm", "ltm")
VECTOR_BYTES = 384 * 4
ROW_BYTES = 162
TAG_BYTES = 4
CONFIDENT = 0.7
"""Long-term memories enter the context above this confidence; one of unstated confidence is taken at its word."""


def size_bytes(input_context: str, output_response: str | None, tags: Sequence[str]) -> int:
    """Return what a memory weighs: its text in UTF-8, its tags (+ 4 each), vector and row."""
    text = len(input_context.encode()) + len((output_response or "").encode())
    return text + sum(len(tag.encode()) + TAG_BYTES for tag in tags) + VECTOR_BYTES + ROW_BYTES


def is_billed(tier: Tier) -> bool:
    """Return whether memories of a tier count against the storage allowance."""
    return tier != "stm"


def is_upward(current: Tier, target: Tier) -> bool:
    """Return whether `target` is a longer-lived tier than `current`."""
    return TIERS.index(target) > TIERS.index(current)


def expires_at(tier: Tier, now: datetime, *, stm_ttl: int, itm_ttl: int) -> datetime | None:
    """Return the end of a memory that enters `tier` at `now`; None is never. Lifetimes in seconds."""
    if tier == "ltm":
        return None
    return now + timedelta(seconds=stm_ttl if tier == "stm" else itm_ttl)


def searchable_text(input_context: str, output_response: str | None) -> str:
    """Return what is indexed and embedded: "input output"."""
    return f"{input_context} {output_response}" if output_response else input_context


def percentage(used: int, limit: int) -> float:
    """Return used ÷ limit in percent with one decimal; 0 when there is no limit (-1)."""
    return 0.0 if limit <= 0 else round(100 * used / limit, 1)
