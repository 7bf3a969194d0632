"""The ring document: the only mutable object that a key rotation switches.

On the wire it is a compact ES256 JWS by the operator's root key, header `typ` = `JWS_TYPE`, payload = `RingDocument`.
Public rings (`serviceJwt`, `userJwt`) carry public JWK fields in `material`; confidential rings (`postgres`, `redis`)
carry the credential itself there and live in the consumer's own Secret.
Signing (operator) and verifying (`novacore.common.keyring`) stay in those products; this module has shape and rules.

Invariants: KEYSET-1 exactly one active key; KEYSET-2 at most one pending; KEYSET-3 at most four trusted keys;
KEYSET-4 key ids and numbers are unique.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, cast

JWS_TYPE = "novacore-ring+jws"
DOCUMENT_BYTES_MAX = 65_536
TRUSTED_KEYS_MAX = 4

KeyState = Literal["pending", "active", "retiring"]
KEY_STATES: tuple[KeyState, ...] = ("pending", "active", "retiring")


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
        """Refuse a document that breaks KEYSET-1..4, whoever made it."""
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
            tombstones = tuple(Tombstone(**entry) for entry in data.pop("tombstones", []))
            deny = tuple(Deny(**entry) for entry in data.pop("deny", []))
            return cls(keys=keys, tombstones=tombstones, deny=deny, **data)
        except RingDocumentError:
            raise
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise RingDocumentError(f"not a ring document: {type(error).__name__}") from None


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


def thumbprint(jwk: dict[str, Any]) -> str:
    """RFC 7638 thumbprint of an EC or OKP public key, base64url without padding."""
    members = ("crv", "kty", "x", "y") if jwk["kty"] == "EC" else ("crv", "kty", "x")
    canonical = json.dumps({name: jwk[name] for name in members}, sort_keys=True, separators=(",", ":"))
    return base64.urlsafe_b64encode(hashlib.sha256(canonical.encode()).digest()).rstrip(b"=").decode()
