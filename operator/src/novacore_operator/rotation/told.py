"""A ring's part of the resource's status: from what was seen to `status.rings.<ring>`, and its history back. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from novacore_operator.rotation.history import Entry, Outcome
from novacore_operator.rotation.report import Report
from novacore_operator.rotation.seen import Seen

SWITCHES = (Outcome.ACTIVATED, Outcome.ROLLED_BACK)
PENDING_TOLD = 10
CAMEL = {"acks_sha256": "acksSha256"}


def ring_status(seen: Seen, report: Report, history: Sequence[Entry]) -> dict[str, Any]:
    """Return `status.rings.<ring>`, whole: the API server would fill in what is left out, and it would seem changed."""
    document = seen.document
    if document is None:
        return {"phase": str(report.phase), "keys": [], "pending": [], "history": [entry_status(e) for e in history]}
    status: dict[str, Any] = {
        "phase": str(report.phase),
        "generation": document.generation,
        "activeKid": document.active_kid,
        "keys": [
            {"kid": key.kid, "number": key.n, "state": key.state, "since": stamp(key.since)}
            for key in sorted(document.keys, key=lambda key: key.n)
        ],
        "acked": report.acked,
        "pending": [str(straggler)[:253] for straggler in report.stragglers[:PENDING_TOLD]],
        "history": [entry_status(entry) for entry in history],
    }
    if report.next_rotation is not None:
        status["nextRotation"] = stamp(report.next_rotation)
    last = next((entry for entry in reversed(history) if entry.outcome in SWITCHES), None)
    if last is not None:
        status["lastRotation"] = {
            "id": last.id,
            "trigger": last.trigger,
            "at": stamp(last.at),
            "seconds": round(last.seconds),
            "failures": len(last.failures),
        }
    return status


def entry_status(entry: Entry) -> dict[str, Any]:
    """Return one entry of the history as it stands in the status. Times are Unix seconds: the hash covers them."""
    body: dict[str, Any] = {CAMEL.get(name, name): value for name, value in asdict(entry).items()}
    body["outcome"] = str(entry.outcome)
    body["seconds"] = str(float(entry.seconds))
    body["times"] = dict(entry.times)
    body["kids"], body["failures"] = list(entry.kids), list(entry.failures)
    return body


def read_history(status: Mapping[str, Any], ring: str) -> tuple[Entry, ...]:
    """Return a ring's history from a status: what `entry_status` wrote. An entry that cannot be read ends it."""
    found: list[Entry] = []
    for body in (status.get("rings") or {}).get(ring, {}).get("history") or ():
        try:
            found.append(_entry(body))
        except (KeyError, TypeError, ValueError):
            break
    return tuple(found)


def _entry(body: Mapping[str, Any]) -> Entry:
    return Entry(
        id=body["id"],
        outcome=Outcome(body["outcome"]),
        trigger=body.get("trigger", ""),
        at=body["at"],
        generation=body["generation"],
        kids=tuple(body.get("kids", ())),
        actor=body.get("actor", ""),
        reason=body.get("reason", ""),
        seconds=float(body.get("seconds", 0)),
        acked=body.get("acked", ""),
        acks_sha256=body.get("acksSha256", ""),
        times=tuple((name, at) for name, at in body.get("times", {}).items()),
        failures=tuple(body.get("failures", ())),
        prev=body.get("prev", ""),
        hash=body.get("hash", ""),
    )


def sentences(parts: Mapping[str, Iterable[str]]) -> str:
    """Return what is to be told of several rings as one message: `serviceJwt: a; b. userJwt: c`."""
    told = {ring: "; ".join(lines) for ring, lines in parts.items()}
    return ". ".join(f"{ring}: {text}" for ring, text in told.items() if text)


def stamp(at: float) -> str:
    """Return a Unix time as the status writes times."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
