"""What `machine.plan` wants done. A write touches one object and rests on the version read; an ask changes nothing.

A write whose version is no longer the object's is refused by the API server (409): read again, plan again. No action
carries a private half: whoever carries out `MintHalf` makes the key (`halves.mint`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from novacore_contracts.keyset import RingDocument
from novacore_operator.rotation.history import Entry


class Step(StrEnum):
    """The writes of a rotation. After each of them the operator may die."""

    MINT = "W1"
    STANDBY = "W2"
    SWITCH = "W3"
    RECORD_SWITCH = "W4"
    DESTROY = "W5"
    RETIRE = "W6"
    RECORD_END = "W7"
    REVOKE = "W8"
    UNLABEL = "W9"
    DELETE_POD = "W10"
    DESTROY_REVOKED = "W11"
    ROLL_BACK = "W12"
    REPAIR = "repair"


# --- writes -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class MintHalf:
    """Mint key number `n` into the ring's private Secret, as entry `<ring>-<n>.jwk`, with `why` beside it."""

    step: Step
    n: int
    why: str
    version: str


@dataclass(frozen=True, slots=True)
class RestoreHalves:
    """Put entries back into the private Secret that the operator still holds."""

    step: Step
    kids: tuple[str, ...]
    version: str


@dataclass(frozen=True, slots=True)
class DropHalf:
    """Remove one entry of the private Secret."""

    step: Step
    name: str
    kid: str
    version: str


@dataclass(frozen=True, slots=True)
class WriteDocument:
    """Sign this document and write it as the ring's. `event` is the word of the Event that tells of it."""

    step: Step
    document: RingDocument
    version: str
    event: str


@dataclass(frozen=True, slots=True)
class Record:
    """Append an entry to the ring's history in the status."""

    step: Step
    entry: Entry
    version: str


@dataclass(frozen=True, slots=True)
class FencePod:
    """Take a pod of this uid out of its Service, by label: it takes no more requests."""

    step: Step
    name: str
    uid: str
    cause: str


@dataclass(frozen=True, slots=True)
class RemovePod:
    """Delete a pod of this uid; by eviction, so that disruption budgets hold, or at once."""

    step: Step
    name: str
    uid: str
    evict: bool


# --- asks -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Push:
    """Send the signed document to these pods, by uid: signers first, or callers that renew meet one that is behind."""

    signers: tuple[str, ...]
    others: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Prove:
    """Have each signer make a canary with this key, and each pod answer to each of them."""

    kid: str


@dataclass(frozen=True, slots=True)
class Disprove:
    """Make a canary with this revoked key, and have each pod answer to it."""

    kid: str


@dataclass(frozen=True, slots=True)
class ReadLive:
    """Read document and private Secret from the API server and look again: a cache is not good enough for this step."""


@dataclass(frozen=True, slots=True)
class Rescue:
    """Ask the pods for the signed document that they hold."""


Write = MintHalf | RestoreHalves | DropHalf | WriteDocument | Record | FencePod | RemovePod
Ask = Push | Prove | Disprove | ReadLive | Rescue
Action = Write | Ask


def is_write(action: Action) -> bool:
    """Return whether an action changes an object."""
    return isinstance(action, MintHalf | RestoreHalves | DropHalf | WriteDocument | Record | FencePod | RemovePod)
