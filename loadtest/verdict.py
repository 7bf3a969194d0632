"""The figures of a run and the judgement on them: no error, and the p95 of every operation below a bound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

P95_LIMIT_MS = 2000.0
TOTAL = "all"


@dataclass(frozen=True, slots=True)
class Figures:
    """One operation's requests, as counted by the client. Times in milliseconds; 0 when there was no request."""

    name: str
    requests: int
    errors: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    per_second: float


def faults(figures: Sequence[Figures], *, expected: Sequence[str], p95_limit_ms: float = P95_LIMIT_MS) -> list[str]:
    """Return a sentence per broken promise; an empty list means the run passed.

    An operation that was never sent is a fault: a run that did nothing must not pass.
    """
    by_name = {figure.name: figure for figure in figures}
    found = [
        f"{name}: no request was sent" for name in expected if by_name.get(name) is None or not by_name[name].requests
    ]
    for figure in figures:
        if figure.errors:
            found.append(f"{figure.name}: {figure.errors} of {figure.requests} requests failed")
        if figure.p95_ms >= p95_limit_ms:
            found.append(f"{figure.name}: p95 is {figure.p95_ms:.0f} ms, the limit is {p95_limit_ms:.0f} ms")
    return found


def as_table(figures: Sequence[Figures]) -> str:
    """Return the figures as an aligned table."""
    head = ("operation", "requests", "errors", "p50 ms", "p95 ms", "p99 ms", "per s")
    rows = [
        (
            figure.name,
            str(figure.requests),
            str(figure.errors),
            f"{figure.p50_ms:.0f}",
            f"{figure.p95_ms:.0f}",
            f"{figure.p99_ms:.0f}",
            f"{figure.per_second:.1f}",
        )
        for figure in figures
    ]
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    lines = []
    for row in (head, *rows):
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells))
    return "\n".join(lines)
