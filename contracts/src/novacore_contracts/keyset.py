"""The ring document: the only mutable object that a key rotation switches.

On the wire it is a compact ES256 JWS by the operator's root key, header `typ` = `JWS_TYPE`, payload = `RingDocument`.
Public rings (`serviceJwt`, `userJwt`) carry public JWK fields in `material`; confidential rings (`postgres`, `redis`)
carry the credential itself there and live in the consumer's own Secret.
Signing (operator) and verifying (`novacore.common.keyring`) stay in those products; this module has shape and rules.

An HS256 key from before the rings is one more entry of `serviceJwt` while a migration lasts (`LEGACY_KID`): the entry
pins the algorithm and holds no key bytes, which lie in a Secret of their own.

Invariants: KEYSET-1 exactly one active key; KEYSET-2 at most one pending; KEYSET-3 at most four trusted keys;
KEYSET-4 key ids and numbers are unique; KEYSET-5 a public ring's document holds no secret key bytes; KEYSET-6 a denial
names one token, or one subject and a time: one that would refuse nothing is itself refused.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, cast

from novacore_contracts.identity import JWT_RINGS

JWS_TYPE = "novacore-ring+jws"
CANARY_REQUEST_TYPE = "novacore-canary-request+jws"
"""Type of the JWS, signed by a root key, with which the operator asks a signer for a canary: `CanaryRequest`."""
CANARY_REQUEST_SECONDS_MAX = 60
DOCUMENT_BYTES_MAX = 65_536
TRUSTED_KEYS_MAX = 4

SECRET_MEMBERS = frozenset({"d", "k", "p", "q", "dp", "dq", "qi", "oth"})
"""Members of a JWK that are the secret itself (RFC 7518, 6.2.2, 6.3.2, 6.4.1)."""

KeyState = Literal["pending", "active", "retiring"]
KEY_STATES: tuple[KeyState, ...] = ("pending", "active", "retiring")
TOMBSTONE_REASONS = ("retired", "revoked")


class RingDocumentError(ValueError):
    """The document breaks its schema or an invariant. The message names the field, never material."""


@dataclass(frozen=True, slots=True)
class RingKey:
    """One entry. `kid` is the ring's prefix + RFC 7638 thumbprint, or `<ring>-<n>` in a confidential ring."""

    kid: str
    n: int
    state: KeyState
    since: int  # Unix seconds
    material: dict[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Tombstone:
    """A key that was trusted once; kept until its last token's `exp`. `until` is Unix seconds."""

    kid: str
    why: Literal["retired", "revoked"]
    until: int


@dataclass(frozen=True, slots=True)
class Deny:
    """Refuse tokens of `sub` issued before `iat_before`, or the one token `jti`."""

    sub: str | None = None
    iat_before: int | None = None
    jti: str | None = None


@dataclass(frozen=True, slots=True)
class RingDocument:
    """Payload of the JWS. `generation` only grows; `seq` is the number of the last minted key."""

    ring: str
    generation: int
    seq: int
    issued_at: int
    active_kid: str
    keys: tuple[RingKey, ...]
    renew_now: bool = False
    last_trigger: str = ""
    tombstones: tuple[Tombstone, ...] = ()
    deny: tuple[Deny, ...] = ()
    ttl_max: int = 86_400
    leeway: int = 30

    def __post_init__(self) -> None:
        """Refuse a document that breaks KEYSET-1..6, whoever made it."""
        states = [key.state for key in self.keys]
        active = [key.kid for key in self.keys if key.state == "active"]
        if active != [self.active_kid]:
            raise RingDocumentError(f"{self.ring}: expected exactly one active key, and active_kid to name it")
        if states.count("pending") > 1:
            raise RingDocumentError(f"{self.ring}: more than one pending key")
        if len(self.keys) > TRUSTED_KEYS_MAX:
            raise RingDocumentError(f"{self.ring}: {len(self.keys)} trusted keys, at most {TRUSTED_KEYS_MAX}")
        if len({key.kid for key in self.keys}) != len(self.keys) or len({key.n for key in self.keys}) != len(self.keys):
            raise RingDocumentError(f"{self.ring}: a kid or number appears twice")
        if any(key.n > self.seq for key in self.keys):
            raise RingDocumentError(f"{self.ring}: a key's number is above seq")
        if self.generation < 1 or self.ttl_max < 1 or not 0 <= self.leeway <= 300:
            raise RingDocumentError(f"{self.ring}: generation, ttl_max or leeway out of range")
        if self.ring in JWT_RINGS and any(SECRET_MEMBERS & key.material.keys() for key in self.keys):
            raise RingDocumentError(f"{self.ring}: a public document with secret key bytes")
        if not all(_refuses_something(deny) for deny in self.deny):
            raise RingDocumentError(f"{self.ring}: a denial needs a jti, or a sub with iat_before, and not both")

    @property
    def active(self) -> RingKey:
        """The key that signs (or the credential that is in use)."""
        return next(key for key in self.keys if key.state == "active")

    def to_bytes(self) -> bytes:
        """Canonical JSON: sorted keys, no spaces, UTF-8."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":")).encode()

    @classmethod
    def from_bytes(cls, raw: bytes) -> RingDocument:
        """Parse and check a payload. RingDocumentError on anything that is not exactly this shape."""
        if len(raw) > DOCUMENT_BYTES_MAX:
            raise RingDocumentError(f"document is {len(raw)} bytes, at most {DOCUMENT_BYTES_MAX}")
        try:
            data = json.loads(raw)
            keys = tuple(_key(entry) for entry in data.pop("keys"))
            tombstones = tuple(_tombstone(**entry) for entry in data.pop("tombstones", []))
            deny = tuple(_deny(**entry) for entry in data.pop("deny", []))
            for name in data.keys() & _FIELDS.keys():
                _check(data[name], _FIELDS[name])
            return cls(keys=keys, tombstones=tombstones, deny=deny, **data)
        except RingDocumentError:
            raise
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise RingDocumentError(f"not a ring document: {type(error).__name__}") from None


@dataclass(frozen=True, slots=True)
class CanaryRequest:
    """Payload of a JWS of `CANARY_REQUEST_TYPE`: make a canary of this ring with this key. `exp`: Unix seconds."""

    ring: str
    kid: str
    exp: int

    def to_bytes(self) -> bytes:
        """Canonical JSON."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":")).encode()

    @classmethod
    def from_bytes(cls, raw: bytes) -> CanaryRequest:
        """Parse and check a payload. RingDocumentError on anything that is not exactly this shape."""
        try:
            data = json.loads(raw)
            if data.keys() != {"ring", "kid", "exp"} or data["ring"] not in JWT_RINGS:
                raise RingDocumentError("not a canary request: expected ring, kid and exp, of a ring that signs tokens")
            _check(data["kid"], str)
            _check(data["exp"], int)
            return cls(**data)
        except RingDocumentError:
            raise
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise RingDocumentError(f"not a canary request: {type(error).__name__}") from None


_FIELDS: dict[str, type] = {
    "ring": str,
    "generation": int,
    "seq": int,
    "issued_at": int,
    "active_kid": str,
    "renew_now": bool,
    "last_trigger": str,
    "ttl_max": int,
    "leeway": int,
}
"""What a reader computes with. A text for a number would be found out in the middle of a request."""


def _check(value: object, kind: type) -> None:
    if type(value) is not kind:  # exactly: True is an int to isinstance
        raise TypeError


def _key(entry: dict[str, Any]) -> RingKey:
    if entry["state"] not in KEY_STATES:
        raise RingDocumentError("a key has an unknown state")
    return RingKey(
        kid=str(entry["kid"]),
        n=int(entry["n"]),
        state=cast("KeyState", entry["state"]),
        since=int(entry["since"]),
        material=dict(entry["material"]),
    )


def _tombstone(*, kid: str, why: Any, until: int) -> Tombstone:
    _check(kid, str)
    _check(until, int)
    if why not in TOMBSTONE_REASONS:
        raise RingDocumentError("a tombstone has an unknown reason")
    return Tombstone(kid, why, until)


def _deny(*, sub: str | None = None, iat_before: int | None = None, jti: str | None = None) -> Deny:
    for value, kind in ((sub, str), (iat_before, int), (jti, str)):
        if value is not None:
            _check(value, kind)
    return Deny(sub, iat_before, jti)


def _refuses_something(deny: Deny) -> bool:
    return bool(deny.jti) if deny.sub is None else bool(deny.sub) and not deny.jti and bool(deny.iat_before)


def thumbprint(jwk: dict[str, Any]) -> str:
    """RFC 7638 thumbprint of an EC or OKP public key, base64url without padding."""
    members = ("crv", "kty", "x", "y") if jwk["kty"] == "EC" else ("crv", "kty", "x")
    canonical = json.dumps({name: jwk[name] for name in members}, sort_keys=True, separators=(",", ":"))
    return base64.urlsafe_b64encode(hashlib.sha256(canonical.encode()).digest()).rstrip(b"=").decode()
