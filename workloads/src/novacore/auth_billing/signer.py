"""The signing halves of a JWT ring. A signer obeys `active_kid` of the ring document; it never picks a key by itself.

Private keys are read from the mount each second, so a new one is there before the document names it. A key whose public
half differs from the document's is not used: its tokens would be refused everywhere. The shared secret of a migration
signs too while the document says so: the ring has it, and nobody else's copy is asked for.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jwt

from novacore.common.clock import Clock
from novacore.common.errors import unavailable
from novacore.common.keyring import KeyRings
from novacore.common.log import get_logger
from novacore_contracts.identity import KID_PREFIX, LEGACY_ALGORITHM, LEGACY_KID, SIGNING_ALGORITHM
from novacore_contracts.keyset import thumbprint

log = get_logger()

POLL_SECONDS = 1.0


class NoKeyError(LookupError):
    """The private half of a key is not mounted here. The message is the kid."""


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """A mounted private key."""

    kid: str
    public: tuple[str, str]  # x, y
    key: Any = field(repr=False)
    algorithm: str = SIGNING_ALGORITHM


class Signer:
    """Signs for one ring."""

    def __init__(self, ring: str, folder: Path, keyrings: KeyRings, clock: Clock) -> None:
        self.ring = ring
        self._folder = folder
        self._keyrings = keyrings
        self._clock = clock
        self._files: dict[str, bytes] = {}
        self._keys: dict[str, PrivateKey] = {}
        self._active: tuple[str, int] | None = None  # kid, and since when this process could sign with it

    @property
    def generation(self) -> int:
        """Generation of the document obeyed; 0 before the first."""
        ring = self._keyrings.ring(self.ring)
        return ring.document.generation if ring else 0

    @property
    def ttl_max(self) -> int:
        """The longest life a verifier accepts; 0 before the first document."""
        ring = self._keyrings.ring(self.ring)
        return ring.document.ttl_max if ring else 0

    @property
    def ready(self) -> bool:
        """Whether the active key's private half is here."""
        ring = self._keyrings.ring(self.ring)
        return ring is not None and self._usable(ring.document.active_kid) is not None

    def sign(self, claims: dict[str, Any]) -> str:
        """Return a token signed with the active key. ServiceError 503 `keyset_behind` while it is not here."""
        ring = self._keyrings.ring(self.ring)
        try:
            if ring is None:
                raise NoKeyError(self.ring)
            return self.sign_with(ring.document.active_kid, claims)
        except NoKeyError:
            log.error("signer_without_key", reason=self.ring)
            raise unavailable("keyset_behind", "The signing key is not here yet.") from None

    def sign_with(self, kid: str, claims: dict[str, Any]) -> str:
        """Return a token signed with that key. NoKeyError when its private half is not here, even after a look."""
        key = self._usable(kid)
        if key is None:
            self.load()
            key = self._usable(kid)
        if key is None:
            raise NoKeyError(kid)
        return jwt.encode(claims, key.key, algorithm=key.algorithm, headers={"kid": kid})

    def load(self) -> None:
        """Read the mounted keys. An unreadable file is logged and its key is as good as absent."""
        files = (
            {file.name: file.read_bytes() for file in sorted(self._folder.glob("*.jwk"))}
            if self._folder.is_dir()
            else {}
        )
        if files != self._files:
            self._files = files
            self._keys = {key.kid: key for name, raw in files.items() if (key := _read(self.ring, name, raw))}
            log.info("signing_keys_loaded", ring=self.ring, kids=sorted(self._keys))
        self._note_active()

    async def watch(self) -> None:
        """Read the mount for ever."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            self.load()

    def report(self) -> dict[str, Any]:
        """Return this ring's part of the `signer` object. `active_since` None: the active key cannot sign here.

        Not 0: a reader that waits from then on must not find that it has waited for decades. A process that restarts
        counts anew, so that whoever waits from then on waits longer, never shorter.
        """
        self._note_active()
        ring = self._keyrings.ring(self.ring)
        kids = sorted(self._keys)
        if ring is not None and LEGACY_KID in ring.keys:
            kids.append(LEGACY_KID)
        return {"kids": kids, "active_since": self._active[1] if self.ready and self._active else None}

    def _usable(self, kid: str) -> PrivateKey | None:
        ring = self._keyrings.ring(self.ring)
        if ring is not None and kid == LEGACY_KID and kid in ring.keys:
            return PrivateKey(kid, ("", ""), ring.keys[kid].key, LEGACY_ALGORITHM)
        key = self._keys.get(kid)
        if ring is None or key is None:
            return None
        trusted = next((entry.material for entry in ring.document.keys if entry.kid == kid), None)
        # A key the document does not know may still sign a canary: after a revoke that canary must be refused.
        return key if trusted is None or key.public == (trusted["x"], trusted["y"]) else None

    def _note_active(self) -> None:
        ring = self._keyrings.ring(self.ring)
        if ring is None or self._usable(ring.document.active_kid) is None:
            return
        if self._active is None or self._active[0] != ring.document.active_kid:
            self._active = (ring.document.active_kid, int(self._clock.now().timestamp()))


def _read(ring: str, name: str, raw: bytes) -> PrivateKey | None:
    try:
        jwk = json.loads(raw)
        kid = str(jwk["kid"])
        if kid != KID_PREFIX[ring] + thumbprint(jwk):
            raise ValueError("kid")
        key = jwt.PyJWK({name: jwk[name] for name in ("kty", "crv", "x", "y", "d")}, algorithm=SIGNING_ALGORITHM)
        return PrivateKey(kid=kid, public=(jwk["x"], jwk["y"]), key=key.key)
    except (ValueError, KeyError, TypeError, jwt.PyJWTError) as error:
        log.error("signing_key_refused", ring=ring, name=name, reason=type(error).__name__)
        return None
