"""A root key and two rings, as the operator makes them, and tokens as auth-billing signs them."""

from __future__ import annotations

import base64
import json
import secrets
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.api_jws import PyJWS

from novacore_contracts.identity import (
    CANARY_SUBJECT,
    ISSUER,
    KID_PREFIX,
    LEGACY_ALGORITHM,
    LEGACY_KID,
    PERMISSIONS,
    SERVICE_AUDIENCE,
    USER_AUDIENCE,
)
from novacore_contracts.keyset import (
    CANARY_REQUEST_TYPE,
    JWS_TYPE,
    CanaryRequest,
    KeyState,
    RingDocument,
    RingKey,
    Tombstone,
    thumbprint,
)
from novacore_contracts.paths import Paths


def _b64(number: int) -> str:
    return base64.urlsafe_b64encode(number.to_bytes(32)).rstrip(b"=").decode()


class SigningKey:
    """A P-256 key with its public JWK and kid."""

    def __init__(self, prefix: str) -> None:
        self.private = ec.generate_private_key(ec.SECP256R1())
        public = self.private.public_key().public_numbers()
        self.jwk = {"kty": "EC", "crv": "P-256", "x": _b64(public.x), "y": _b64(public.y), "alg": "ES256", "use": "sig"}
        self.kid = prefix + thumbprint(self.jwk)

    def private_jwk(self, n: int) -> dict[str, Any]:
        """The file `<ring>-<n>.jwk`."""
        d = _b64(self.private.private_numbers().private_value)
        return {**self.jwk, "d": d, "kid": self.kid, "n": n}


@dataclass
class TestUser:
    """A person in `auth.users`, with a valid access token."""

    __test__ = False

    id: UUID
    email: str
    tier: str
    role: str
    token: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}


class Keys:
    """Everything the operator and auth-billing would sign with."""

    def __init__(self) -> None:
        self.root = SigningKey("root-")
        self.active = {ring: SigningKey(KID_PREFIX[ring]) for ring in ("serviceJwt", "userJwt")}
        self.standby = {ring: SigningKey(KID_PREFIX[ring]) for ring in ("serviceJwt", "userJwt")}

    def root_jwks(self) -> bytes:
        return json.dumps({"keys": [{**self.root.jwk, "kid": self.root.kid}]}).encode()

    def document(self, ring: str, *, generation: int = 1, **changes: Any) -> RingDocument:
        """A valid document: active key 1, standby key 2."""
        active, standby = self.active[ring], self.standby[ring]
        document = RingDocument(
            ring=ring,
            generation=generation,
            seq=2,
            issued_at=int(time.time()),
            active_kid=active.kid,
            keys=(
                RingKey(active.kid, 1, "active", 0, dict(active.jwk)),
                RingKey(standby.kid, 2, "pending", 0, dict(standby.jwk)),
            ),
        )
        return replace(document, **changes)

    def switched(self, ring: str, *, generation: int, revoke: bool = False, **changes: Any) -> RingDocument:
        """The document after a switch to the standby: the old key retires, or is revoked."""
        active, standby = self.active[ring], self.standby[ring]
        now_active = RingKey(standby.kid, 2, "active", 0, dict(standby.jwk))
        old = RingKey(active.kid, 1, "retiring", 0, dict(active.jwk))
        return self.document(
            ring,
            generation=generation,
            active_kid=standby.kid,
            keys=(now_active,) if revoke else (now_active, old),
            tombstones=(Tombstone(active.kid, "revoked", int(time.time()) + 86_400),) if revoke else (),
            **changes,
        )

    def credential(self, ring: str, material: dict[str, Any], *, generation: int = 1) -> RingDocument:
        kid = f"{ring}-1"
        return RingDocument(
            ring=ring, generation=generation, seq=1, issued_at=int(time.time()), active_kid=kid,
            keys=(RingKey(kid, 1, "active", 0, material),),
        )  # fmt: skip

    def sign(self, document: RingDocument, *, root: SigningKey | None = None, typ: str = JWS_TYPE) -> bytes:
        root = root or self.root
        headers = {"kid": root.kid, "typ": typ}
        return PyJWS().encode(document.to_bytes(), root.private, algorithm="ES256", headers=headers).encode()

    def canary_request(
        self, ring: str, kid: str, *, ttl: int = 30, root: SigningKey | None = None, typ: str = CANARY_REQUEST_TYPE
    ) -> dict[str, str]:
        """The body with which the operator asks a signer for a canary."""
        asked = CanaryRequest(ring, kid, int(time.time()) + ttl)
        root = root or self.root
        headers = {"kid": root.kid, "typ": typ}
        signed = PyJWS().encode(asked.to_bytes(), root.private, algorithm="ES256", headers=headers)
        return {"request": signed}

    def service_token(
        self, service: str, *, permissions: list[str] | None = None, ttl: int = 3600, key: SigningKey | None = None,
        **claims: Any,
    ) -> str:  # fmt: skip
        now = int(time.time())
        granted = sorted(PERMISSIONS.get(service, frozenset())) if permissions is None else permissions
        body = {
            "iss": ISSUER, "aud": SERVICE_AUDIENCE, "sub": service, "permissions": granted, "iat": now, "nbf": now - 10,
            "exp": now + ttl, "jti": secrets.token_hex(8),
        } | claims  # fmt: skip
        key = key or self.active["serviceJwt"]
        return jwt.encode(body, key.private, algorithm="ES256", headers={"kid": key.kid})

    def canary(self, ring: str, *, key: SigningKey | None = None, ttl: int = 60, **claims: Any) -> str:
        """A token as auth-billing signs it to prove a key."""
        audience = {"serviceJwt": SERVICE_AUDIENCE, "userJwt": USER_AUDIENCE}[ring]
        changed = {"aud": audience, **claims}
        return self.service_token(CANARY_SUBJECT, permissions=[], ttl=ttl, key=key or self.active[ring], **changed)

    def user_token(
        self, user_id: UUID | None = None, *, email: str = "a@example.org", role: str = "student", tier: str = "pro",
        scope: str = "api", sv: int = 1, ttl: int = 900, key: SigningKey | None = None, **claims: Any,
    ) -> str:  # fmt: skip
        now = int(time.time())
        body = {
            "iss": ISSUER, "aud": USER_AUDIENCE, "sub": str(user_id or uuid4()), "email": email, "role": role, "tier": tier,
            "scope": scope, "sv": sv, "jti": secrets.token_hex(8), "iat": now, "nbf": now - 10, "exp": now + ttl,
        } | claims  # fmt: skip
        key = key or self.active["userJwt"]
        return jwt.encode(body, key.private, algorithm="ES256", headers={"kid": key.kid})

    def mount(self, paths: Paths, *documents: RingDocument) -> None:
        """Write the keyset's files as they are mounted in every pod."""
        put(paths.keyset_root / "root.jwks", self.root_jwks())
        for document in documents or (self.document("serviceJwt"), self.document("userJwt")):
            put(paths.keyset / f"{document.ring}.jws", self.sign(document))


def legacy_entry(state: KeyState, *, n: int) -> RingKey:
    """The entry for a shared secret from before the rings: the algorithm is pinned, the key is not in it."""
    return RingKey(LEGACY_KID, n, state, 0, {"kty": "oct", "alg": LEGACY_ALGORITHM, "use": "sig"})


def legacy_jwk(secret: bytes, **changes: Any) -> bytes:
    """The file `legacy.jwk` with that secret."""
    jwk = {"kty": "oct", "alg": LEGACY_ALGORITHM, "k": base64.urlsafe_b64encode(secret).rstrip(b"=").decode()}
    return json.dumps(jwk | changes).encode()


def sign_legacy(keys: Keys, secret: bytes, service: str, *, kid: str | None = None) -> str:
    """A service's token by the shared secret; without `kid`, as they were before the rings."""
    claims = jwt.decode(keys.service_token(service), options={"verify_signature": False})
    return jwt.encode(claims, secret, algorithm=LEGACY_ALGORITHM, headers={"kid": kid} if kid else None)


def put(file: Path, content: bytes | str) -> None:
    """Write a file and the directories above it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
