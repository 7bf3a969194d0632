"""What `keys`, `rotate`, `revoke` and `deny` show: rings of keys, their history, and how far a request is. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from novacore_operator.cli.errors import PROGRAM, printable
from novacore_operator.cli.resource import Resource
from novacore_operator.cli.status_view import table
from novacore_operator.rotation import told
from novacore_operator.rotation.history import Outcome, faults
from novacore_operator.rotation.triggers import Verb
from novacore_operator.status import condition_of

API = "novacore.ai/keys/v1"
COLOURS = {"active": "green", "retiring": "yellow", "pending": "cyan"}

ENDS: Mapping[str, str] = {
    str(Verb.ROTATE): str(Outcome.ACTIVATED),
    str(Verb.ROLLBACK): str(Outcome.ROLLED_BACK),
    str(Verb.REVOKE): str(Outcome.REVOKED),
    str(Verb.DENY): str(Outcome.DENIED),
}
"""Verb -> how its last entry in the history ended."""


def rings_of(resource: Resource) -> dict[str, Any]:
    """Return ring -> its part of the status, and under `chain` what is wrong with its history (nothing: it holds)."""
    status = resource.get("status") or {}
    return {ring: {**body, "chain": _chain(status, ring)} for ring, body in sorted((status.get("rings") or {}).items())}


def _chain(status: Mapping[str, Any], ring: str) -> list[str]:
    entries = told.read_history(status, ring)
    whole = len(status["rings"][ring].get("history") or ())
    unread = [f"entry {len(entries) + 1} cannot be read"] if len(entries) < whole else []
    return [*faults(entries), *unread]


def screen(rings: Mapping[str, Any]) -> RenderableType:
    """Return the screen of `keys`."""
    parts: list[RenderableType] = []
    for ring, body in rings.items():
        head = Text.assemble((f"{ring} ", "bold cyan"), f"{body['phase']}, generation {body.get('generation', '-')}")
        head.append(f", held by {body.get('acked', '-')} pods, next rotation {body.get('nextRotation', 'never')}")
        parts += [head, _keys(body)]
        if body.get("history"):
            parts.append(_history(body["history"]))
        chain = body["chain"]
        parts.append(
            Text(f"  history altered: {'; '.join(chain)}", style="bold red")
            if chain
            else Text("  the chain of hashes holds", style="green")
        )
        parts.append(Text())
    return Group(*parts)


def _keys(body: Mapping[str, Any]) -> RenderableType:
    made = table("  KEY", "STATE", "SINCE")
    for key in body.get("keys", ()):
        state = Text(key["state"], style=COLOURS.get(key["state"], ""))
        made.add_row(Text(f"  {key['kid']}"), state, Text(key["since"]))
    return made


def _history(entries: list[dict[str, Any]]) -> RenderableType:
    made = table("  AT", "OUTCOME", "ID", "TRIGGER", "PODS", "SECONDS", "BY", "REASON", wide="REASON")
    for entry in entries:
        made.add_row(
            Text(f"  {told.stamp(entry['at'])}"),
            Text(entry["outcome"]),
            Text(entry["id"]),
            Text(printable(entry.get("trigger", "-"))),
            Text(entry.get("acked", "-")),
            Text(entry.get("seconds", "-")),
            Text(printable(entry.get("actor", "-"))),
            Text(printable(entry.get("reason", ""))),
        )
    return made


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a request is. `entry`: that of the history, once it is done; `refused`: why it never will be."""

    line: str
    entry: Mapping[str, Any] | None = None
    refused: str = ""


def progress(resource: Resource, ring: str, mark: str, kids: Iterable[str] = ()) -> Progress:
    """Return how far the request with this mark (`rotate/<nonce>`) is. `kids`: all that a revocation named."""
    status = resource.get("status") or {}
    body = (status.get("rings") or {}).get(ring) or {}
    # A revocation makes another key sign on the way: that is an entry of the same request too.
    end = ENDS.get(mark.partition("/")[0])
    mine = [i for i in body.get("history", ()) if i.get("trigger") == mark and i["outcome"] == end]
    if mine and set(kids) <= {kid for item in mine for kid in item.get("kids", ())}:
        return Progress(". ".join(_done(ring, item) for item in mine), mine[-1])
    why = idle_because(resource)
    if why:
        return Progress("", refused=why)
    words = [ring, f"phase {body.get('phase', 'unknown')}", f"acknowledged {body.get('acked', '-')}"]
    if body.get("pending"):
        words.append(f"waits for {'; '.join(body['pending'])}")
    for kind in ("EmergencyIncomplete", "RotationBlocked"):
        found = condition_of(status, kind)
        if found.get("status") == "True":
            words.append(f"{kind}: {found.get('message', '')}")
    return Progress(printable(", ".join(words)))


def idle_because(resource: Resource) -> str:
    """Return why nothing is done about keys, and the remedy; empty when it is."""
    spec = resource.get("spec") or {}
    if spec.get("paused"):
        return f"the installation is paused, and so are its keys: `{PROGRAM} resume` first"
    if spec.get("mode") == "Plan":
        return "spec.mode is Plan, in which nothing is written: set it to Apply first"
    return ""


def _done(ring: str, entry: Mapping[str, Any]) -> str:
    outcome, seconds = entry["outcome"], entry.get("seconds", "0")
    pods = f"proven by {entry.get('acked', '-')} pods"
    words = {
        "activated": f"key {entry['kids'][0] if entry.get('kids') else entry['id']} signs, {pods}, after {seconds} s",
        "rolled-back": f"key {entry['kids'][0] if entry.get('kids') else entry['id']} signs again, {pods}",
        "revoked": f"{entry['id']} is refused by {entry.get('acked', '-')} pods, after {seconds} s",
        "denied": f"tokens of {entry['id'].removeprefix('deny-')} are refused, after {seconds} s",
    }
    return printable(f"{ring}: {words.get(outcome, outcome)}")
