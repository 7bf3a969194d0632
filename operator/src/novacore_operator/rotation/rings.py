"""The transitions of a ring document. Each returns the next document; none says whether it is time for it (`machine`).

Invariants: RDOC-1 each transition raises the generation by at least one, and the number of the last key never falls.
RDOC-2 a kid that was revoked is in no later document as a key. RDOC-3 a key that signs now, and one that signed and may
still have living tokens, leaves the document only by `retire` or `revoke`. KEYSET-1..4 hold by the document's own
constructor. A transition that cannot be made raises `Refused` and changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from novacore_contracts.keyset import TRUSTED_KEYS_MAX, Deny, KeyState, RingDocument, RingKey, Tombstone


class Refused(ValueError):  # noqa: N818 - what happened is its name
    """The document does not allow this transition. The message says what was found and what was expected."""


@dataclass(frozen=True, slots=True)
class Half:
    """An entry of the private Secret, seen without its private half. `why`: the trigger it was minted for, or empty."""

    name: str
    n: int
    kid: str
    public: dict[str, Any] = field(repr=False, compare=False)
    minted_at: float = 0.0
    why: str = ""


def entry_name(ring: str, n: int) -> str:
    """Return the name of a private entry without its suffix: also the id of the rotation that activates the key."""
    return f"{ring}-{n}"


def key_of(document: RingDocument, kid: str) -> RingKey | None:
    """Return the trusted key with this id."""
    return next((key for key in document.keys if key.kid == kid), None)


def pending(document: RingDocument) -> RingKey | None:
    """Return the standby."""
    return next((key for key in document.keys if key.state == "pending"), None)


def retiring(document: RingDocument) -> tuple[RingKey, ...]:
    """Return the keys that signed and are still trusted, the one that signed last at the end."""
    found = [key for key in document.keys if key.state == "retiring"]
    return tuple(sorted(found, key=lambda key: (key.since, key.n)))


def revoked(document: RingDocument) -> frozenset[str]:
    """Return the kids that must never come back."""
    return frozenset(stone.kid for stone in document.tombstones if stone.why == "revoked")


# --- transitions ------------------------------------------------------------------------------------------------------


def mint_standby(document: RingDocument, half: Half, *, now: int) -> RingDocument:
    """Return the document with a standby: trusted by whoever reads it, signing nothing."""
    if pending(document) is not None:
        raise Refused(f"{document.ring}: there is a standby already")
    if len(document.keys) >= TRUSTED_KEYS_MAX:
        raise Refused(f"{document.ring}: {len(document.keys)} trusted keys, expected fewer than {TRUSTED_KEYS_MAX}")
    return _next(document, (*document.keys, _fresh(document, half, "pending", now)), now=now, seq=half.n)


def activate(document: RingDocument, *, now: int, trigger: str, renew_now: bool = False) -> RingDocument:
    """Return the document after the switch: the standby signs, the key before it is still trusted."""
    standby = pending(document)
    if standby is None:
        raise Refused(f"{document.ring}: no standby to activate")
    return _switched(document, standby.kid, now=now, trigger=trigger, renew_now=renew_now)


def roll_back(document: RingDocument, kid: str, *, now: int, trigger: str) -> RingDocument:
    """Return the document in which a retiring key signs again; the one that signed in between retires."""
    key = key_of(document, kid)
    if key is None or key.state != "retiring":
        raise Refused(f"{document.ring}: {kid} is not retiring, there is nothing to return to")
    return _switched(document, kid, now=now, trigger=trigger, renew_now=False)


def stand_down(document: RingDocument, *, now: int, trigger: str) -> RingDocument:
    """Return the document with a trigger marked as done and nothing else changed: a rotation was called off."""
    return _next(document, document.keys, now=now, last_trigger=trigger)


def retire(document: RingDocument, kid: str, *, now: int, until: int) -> RingDocument:
    """Return the document without a key whose tokens have all ended."""
    key = key_of(document, kid)
    if key is None or key.state != "retiring":
        raise Refused(f"{document.ring}: only a retiring key can be retired, and {kid} is none")
    return _buried(document, (kid,), "retired", now=now, until=until)


def discard_standby(document: RingDocument, *, now: int, until: int) -> RingDocument:
    """Return the document without its standby: it never signed, and its private half is lost."""
    standby = pending(document)
    if standby is None:
        raise Refused(f"{document.ring}: no standby to discard")
    return _buried(document, (standby.kid,), "retired", now=now, until=until)


def revoke(
    document: RingDocument,
    kids: Iterable[str],
    *,
    now: int,
    until: int,
    trigger: str,
    fresh: Half | None = None,
) -> RingDocument:
    """Return the document in which `kids` are refused: one generation, also when one of them signs.

    If the signing key is among them, the standby takes over, or `fresh` when there is none that may.
    """
    named = set(kids)
    unknown = named - {key.kid for key in document.keys}
    if not named or unknown:
        raise Refused(f"{document.ring}: not a trusted key: {', '.join(sorted(unknown)) or 'none named'}")
    base = document
    if document.active_kid in named:
        standby = pending(document)
        if fresh is not None:
            base = _with_fresh_active(document, fresh, named, now=now)
        elif standby is not None and standby.kid not in named:
            base = replace(document, **_switch(document, standby.kid, now))
        else:
            raise Refused(f"{document.ring}: no key is left to sign, expected a standby or a fresh one")
    buried = _buried(base, sorted(named), "revoked", now=now, until=until)
    return replace(buried, last_trigger=trigger)


def deny(document: RingDocument, entry: Deny, *, now: int, trigger: str) -> RingDocument:
    """Return the document that refuses one service's tokens issued until now. Entries end after the longest token."""
    kept = tuple(old for old in document.deny if old.sub != entry.sub or entry.sub is None)
    return _next(document, document.keys, now=now, last_trigger=trigger, deny=(*kept, entry))


def repair(document: RingDocument, *, above: int, now: int) -> RingDocument:
    """Return a good document with a generation above all that any pod may have seen."""
    generation = max(document.generation, above) + 1
    return replace(document, generation=generation, issued_at=now)


# --- parts ------------------------------------------------------------------------------------------------------------


def _next(document: RingDocument, keys: Iterable[RingKey], *, now: int, **changes: Any) -> RingDocument:
    """Return the next generation. What has ended by itself, tombstones and denials, goes with it."""
    stones = changes.pop("tombstones", document.tombstones)
    denied = changes.pop("deny", document.deny)
    oldest = now - document.ttl_max - 2 * document.leeway
    return replace(
        document,
        **{
            "generation": document.generation + 1,
            "issued_at": now,
            "keys": tuple(keys),
            "tombstones": tuple(stone for stone in stones if stone.until > now),
            "deny": tuple(entry for entry in denied if (entry.iat_before or now) > oldest),
            **changes,
        },
    )


def _fresh(document: RingDocument, half: Half, state: KeyState, now: int) -> RingKey:
    if half.n <= document.seq:
        raise Refused(f"{document.ring}: key number {half.n} was given before, expected one above {document.seq}")
    if half.kid in {stone.kid for stone in document.tombstones}:
        raise Refused(f"{document.ring}: {half.kid} was trusted once and never comes back")
    return RingKey(kid=half.kid, n=half.n, state=state, since=now, material=half.public)


def _switch(document: RingDocument, kid: str, now: int) -> dict[str, Any]:
    keys = tuple(
        replace(key, state="active", since=now)
        if key.kid == kid
        else replace(key, state="retiring", since=now)
        if key.state == "active"
        else key
        for key in document.keys
    )
    return {"keys": keys, "active_kid": kid}


def _switched(document: RingDocument, kid: str, *, now: int, trigger: str, renew_now: bool) -> RingDocument:
    changed = _switch(document, kid, now)
    return _next(
        document,
        changed["keys"],
        now=now,
        active_kid=kid,
        renew_now=renew_now,
        last_trigger=trigger,
    )


def _with_fresh_active(document: RingDocument, half: Half, named: set[str], *, now: int) -> RingDocument:
    """Return a document in which a fresh key signs. Of the named ones only those that it replaces are left out yet."""
    key = _fresh(document, half, "active", now)
    others = tuple(
        replace(other, state="retiring", since=now) if other.state == "active" else other for other in document.keys
    )
    # A named key is buried in the same breath, so that four trusted ones are not five for an instant.
    room = next(other for other in others if other.kid == document.active_kid)
    kept = tuple(other for other in others if other is not room) if len(others) >= TRUSTED_KEYS_MAX else others
    assert room.kid in named
    return replace(document, keys=(*kept, key), active_kid=key.kid, seq=half.n)


def _buried(
    document: RingDocument, kids: Iterable[str], why: Literal["retired", "revoked"], *, now: int, until: int
) -> RingDocument:
    gone = tuple(kids)
    known = tuple(stone for stone in document.tombstones if stone.kid not in gone)
    return _next(
        document,
        (key for key in document.keys if key.kid not in gone),
        now=now,
        tombstones=(*known, *(Tombstone(kid=kid, why=why, until=until) for kid in gone)),
        renew_now=document.renew_now and why == "retired",  # a revoked key is renewed for without being told
    )
