"""Ed25519 over policies, keys by kid from the mounted Secret `novacore-policy-private` (this service alone has it)."""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from novacore.common.log import get_logger
from novacore_contracts.identity import KID_PREFIX
from novacore_contracts.keyset import thumbprint

log = get_logger()


class NoPolicyKeyError(LookupError):
    """No usable signing key is mounted."""


@dataclass(frozen=True, slots=True)
class PolicyKey:
    """One mounted key."""

    kid: str
    n: int
    private: Ed25519PrivateKey = field(repr=False)


class PolicyKeys:
    """The mounted keys. Read again whenever one is needed: signing is rare."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def sign(self, message: bytes) -> tuple[str, bytes]:
        """Return (kid, signature) by the newest key. NoPolicyKeyError without one."""
        keys = self._load()
        if not keys:
            raise NoPolicyKeyError("no policy key is mounted")
        newest = max(keys.values(), key=lambda key: key.n)
        return newest.kid, newest.private.sign(message)

    def verifies(self, *, kid: str, signature: bytes, message: bytes) -> bool:
        """Return whether the key of that name signed the message; False for a key that is not mounted."""
        key = self._load().get(kid)
        if key is None:
            return False
        try:
            key.private.public_key().verify(signature, message)
        except InvalidSignature:
            return False
        return True

    def _load(self) -> dict[str, PolicyKey]:
        if not self._folder.is_dir():
            return {}
        found = (_read(file) for file in sorted(self._folder.glob("policy-*.jwk")))
        return {key.kid: key for key in found if key is not None}


def _read(file: Path) -> PolicyKey | None:
    try:
        jwk = json.loads(file.read_bytes())
        if jwk["kty"] != "OKP" or jwk["crv"] != "Ed25519" or jwk["kid"] != KID_PREFIX["policy"] + thumbprint(jwk):
            raise ValueError("kid")
        private = Ed25519PrivateKey.from_private_bytes(_bytes(jwk["d"]))
        if private.public_key().public_bytes_raw() != _bytes(jwk["x"]):
            raise ValueError("x")
        return PolicyKey(kid=str(jwk["kid"]), n=int(jwk["n"]), private=private)
    except (OSError, ValueError, KeyError, TypeError, binascii.Error) as error:
        log.error("policy_key_refused", name=file.name, reason=type(error).__name__)
        return None


def _bytes(value: str) -> bytes:
    return base64.urlsafe_b64decode(value + "=" * (-len(value) % 4))
