"""What a person asks for by annotation: rotate, roll back, revoke, deny. Each carries a nonce and happens once.

The document's `last_trigger` holds the nonce of the last trigger of each verb that was carried out, and is part of the
very write that carried it out: after a crash nothing runs twice. Invariant TRIG-1: a nonce that is written there is not
asked for again, whatever else was carried out since.
Deleting a Secret is never a trigger.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from novacore_contracts.identity import KID_PREFIX
from novacore_contracts.services import BY_NAME

DOMAIN = "novacore.ai/"
REASON = f"{DOMAIN}revoke-reason"
MODE = f"{DOMAIN}revoke-mode"
ANNOTATIONS: tuple[str, ...] = (
    *(f"{DOMAIN}{verb}" for verb in ("rotate", "rollback", "revoke", "deny")),
    REASON,
    MODE,
)
"""All that is read of a resource's annotations."""
NONCE = re.compile(r"[A-Za-z0-9._-]{1,64}")
KIDS_MAX = 4
REFUSED = "refused"
REASON_LENGTH_MAX = 256


class Verb(StrEnum):
    """What is to be done. The first four are annotations `novacore.ai/<verb>`."""

    ROTATE = "rotate"
    ROLLBACK = "rollback"
    REVOKE = "revoke"
    DENY = "deny"
    SCHEDULE = "schedule"
    REPAIR = "repair"  # the private half of the signing key is lost


class Mode(StrEnum):
    """How a key is revoked."""

    DRAIN = "drain"
    IMMEDIATE = "immediate"


@dataclass(frozen=True, slots=True)
class Trigger:
    """One thing to do to one ring. `subjects`: the kids to revoke, or the service to deny."""

    verb: Verb
    ring: str
    nonce: str
    subjects: tuple[str, ...] = ()
    mode: Mode = Mode.IMMEDIATE
    reason: str = ""
    actor: str = ""  # who wrote the annotation, by the resource's managedFields

    @property
    def mark(self) -> str:
        """Return what `last_trigger` holds once it is done."""
        return f"{self.verb}/{self.nonce}"


def read(
    annotations: Mapping[str, str], rings: Iterable[str], *, actors: Mapping[str, str] | None = None
) -> tuple[tuple[Trigger, ...], tuple[str, ...]]:
    """Return the triggers in a resource's annotations, and one sentence for each annotation that is none.

    `actors`: annotation -> field manager.
    """
    known = tuple(rings)
    found: list[Trigger] = []
    wrong: list[str] = []
    for verb in (Verb.REVOKE, Verb.DENY, Verb.ROLLBACK, Verb.ROTATE):
        value = annotations.get(f"{DOMAIN}{verb}")
        if value is None:
            continue
        what, _, nonce = value.rpartition("/")
        whole = what and NONCE.fullmatch(nonce)
        made = _made(verb, what, annotations, known) if whole else "expected <what>/<nonce>"
        if isinstance(made, str):
            wrong.append(f"annotation {DOMAIN}{verb}: {made}: nothing was done")
        else:
            found.append(replace(made, nonce=nonce, actor=(actors or {}).get(f"{DOMAIN}{verb}", "")))
    return tuple(found), tuple(wrong)


def _made(verb: Verb, what: str, annotations: Mapping[str, str], rings: tuple[str, ...]) -> Trigger | str:
    if verb is Verb.REVOKE:
        return _revocation(what, annotations, rings)
    if verb is Verb.DENY:
        if what not in BY_NAME or "serviceJwt" not in rings:
            return f"no service {what[:40]!r}, expected one of {', '.join(sorted(BY_NAME))}"
        return Trigger(verb, "serviceJwt", "", (what,))
    if what not in rings:
        return f"no ring {what[:40]!r}, expected one of {', '.join(rings)}"
    return Trigger(verb, what, "")


def _revocation(what: str, annotations: Mapping[str, str], rings: tuple[str, ...]) -> Trigger | str:
    kids = tuple(dict.fromkeys(what.split(",")))
    ring = next((name for name in rings if all(kid.startswith(KID_PREFIX.get(name, "\0")) for kid in kids)), None)
    reason = annotations.get(REASON, "").strip()[:REASON_LENGTH_MAX]
    mode = annotations.get(MODE, Mode.IMMEDIATE)
    if ring is None or not 1 <= len(kids) <= KIDS_MAX:
        return "expected <kid>[,<kid>]/<nonce>, kids of one ring"
    if not reason:
        return f"a revocation needs a reason: set annotation {REASON} too"
    if mode not in tuple(Mode):
        return f"{MODE} is {mode[:40]!r}, expected drain or immediate"
    return Trigger(Verb.REVOKE, ring, "", kids, Mode(mode), reason)


def marks(last_trigger: str) -> dict[str, str]:
    """Return verb -> nonce of what was carried out last."""
    pairs = (word.split("/", 1) for word in last_trigger.split() if "/" in word)
    return dict(pair for pair in pairs if len(pair) == 2)


def done(last_trigger: str, trigger: Trigger) -> bool:
    """Return whether this trigger was carried out."""
    return marks(last_trigger).get(trigger.verb) == trigger.nonce


def marked(last_trigger: str, *carried_out: Trigger) -> str:
    """Return `last_trigger` with these carried out too: one nonce for each verb, the latest at the end."""
    new = {str(trigger.verb): trigger.nonce for trigger in carried_out}
    kept = {verb: nonce for verb, nonce in marks(last_trigger).items() if verb not in new}
    return " ".join(f"{verb}/{nonce}" for verb, nonce in (kept | new).items())


def refused(last_trigger: str, trigger: Trigger) -> str:
    """Return `last_trigger` with this one done with, and nothing carried out for it."""
    return f"{marked(last_trigger, trigger)} {REFUSED}/{trigger.nonce}"


def was_refused(last_trigger: str, mark: str) -> bool:
    """Return whether what `mark` asked for could not be carried out."""
    return bool(mark) and marks(last_trigger).get(REFUSED) == mark.partition("/")[2]


def latest(last_trigger: str, *verbs: Verb) -> str:
    """Return the mark of what was carried out last, of these verbs; empty if there is none."""
    found = [f"{verb}/{nonce}" for verb, nonce in marks(last_trigger).items() if verb in verbs]
    return found[-1] if found else ""
