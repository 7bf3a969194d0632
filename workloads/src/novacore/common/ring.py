"""One ring document, opened and ready to verify with: pure, no file and no clock.

A `Ring` is replaced as a whole and never changed; only its cache of verified tokens fills, and dies with it.

Invariants: RING-3 the algorithm comes from the key, never from the token; RING-5 a cached token is checked again for
its end and for denials each time, and only accepted tokens are cached; RING-6 a canary is accepted where canaries are
asked for and nowhere else, and never from the cache. Not here: where documents come from (`keyring`).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

import jwt
from jwt.api_jws import PyJWS

from novacore_contracts.identity import (
    CANARY_SUBJECT,
    ISSUER,
    KID_PREFIX,
    LEGACY_ALGORITHM,
    LEGACY_KEY_BYTES_MIN,
    LEGACY_KID,
    SIGNING_ALGORITHM,
    TOKEN_BYTES_MAX,
)
from novacore_contracts.keyset import (
    DOCUMENT_BYTES_MAX,
    JWS_TYPE,
    RingDocument,
    RingDocumentError,
    RingKey,
    thumbprint,
)

CACHE_ENTRIES_MAX: Final = 4096
CACHE_SECONDS: Final = 300
HEADS_MAX: Final = 64
COMPACT_BYTES_MAX: Final = DOCUMENT_BYTES_MAX * 4 // 3 + 1024
LEGACY_RING: Final = "serviceJwt"

_OPTIONS: Any = {
    "require": ["exp", "iat", "sub", "iss", "aud"],
    # Times are checked below, by our clock: PyJWT reads its own and accepts a token without `exp`.
    "verify_exp": False,
    "verify_iat": False,
    "verify_nbf": False,
    "strict_aud": True,
}


class TokenError(Exception):
    """A token is refused. `code` is the machine code of the 401 body; nothing else may be said to the client."""

    def __init__(self, code: str, *, kid: str = "") -> None:
        super().__init__(code)
        self.code = code
        self.kid = kid  # of a key that was trusted once; "" for anything else


class DocumentError(Exception):
    """A ring document is refused. The message names the reason, never the content."""


@dataclass(frozen=True, slots=True)
class Verified:
    """A token that was accepted."""

    claims: Mapping[str, Any]
    kid: str
    until: float  # monotonic: look again then
    ends: float  # Unix time: its `exp` and the leeway


@dataclass(frozen=True, slots=True)
class Ring:
    """One accepted document. Replaced as a whole; its cache dies with it."""

    document: RingDocument
    compact: bytes = field(repr=False)
    loaded_at: int
    via: str
    keys: Mapping[str, jwt.PyJWK] = field(repr=False)
    gone: Mapping[str, str]  # kid -> "retired" | "revoked"
    denied_jti: frozenset[str]
    denied_sub: Mapping[str, int]  # sub -> tokens issued before this are refused
    cache: dict[str, Verified] = field(default_factory=dict, repr=False)
    heads: dict[str, str] = field(default_factory=dict, repr=False)  # header segment of accepted tokens -> kid

    @property
    def sha256(self) -> str:
        """Hash of the signed bytes: two pods with the same hash hold the same document."""
        return hashlib.sha256(self.compact).hexdigest()


def read_roots(jwks: bytes) -> dict[str, jwt.PyJWK]:
    """Return the root keys of a `root.jwks` by kid. DocumentError when it is not one, or holds none."""
    try:
        keys = json.loads(jwks)["keys"]
        roots = {str(key["kid"]): jwt.PyJWK(key, algorithm=SIGNING_ALGORITHM) for key in keys}
    except (ValueError, KeyError, TypeError, jwt.PyJWTError) as error:
        raise DocumentError(f"root.jwks: {type(error).__name__}") from None
    if not roots:
        raise DocumentError("root.jwks: no key in it")
    return roots


def read_legacy(jwk: bytes) -> jwt.PyJWK:
    """Return the shared secret of a `legacy.jwk`, pinned to HS256. DocumentError when it is not one, or too short."""
    try:
        data = json.loads(jwk)
        key = jwt.PyJWK({"kty": "oct", "k": str(data["k"])}, algorithm=LEGACY_ALGORITHM)
        fits = data["kty"] == "oct" and data.get("alg", LEGACY_ALGORITHM) == LEGACY_ALGORITHM
    except (ValueError, KeyError, TypeError, jwt.PyJWTError) as error:
        raise DocumentError(f"legacy.jwk: {type(error).__name__}") from None
    if not fits or len(key.key) < LEGACY_KEY_BYTES_MIN:
        raise DocumentError(f"legacy.jwk: expected an oct key for {LEGACY_ALGORITHM} of {LEGACY_KEY_BYTES_MIN} bytes")
    return key


def open_signed(compact: bytes, *, typ: str, roots: Mapping[str, jwt.PyJWK], what: str) -> bytes:
    """Return the payload of a compact JWS of type `typ`. DocumentError unless a root key signed it; `what` names it."""
    compact = compact.strip()
    if len(compact) > COMPACT_BYTES_MAX:
        raise DocumentError(f"{what}: {len(compact)} bytes are too many")
    header = _header(compact.decode("ascii", "replace"))
    if header is None or header.get("typ") != typ or "crit" in header:
        raise DocumentError(f"{what}: not of type {typ}")
    root = roots.get(str(header.get("kid")))
    if root is None:
        raise DocumentError(f"{what}: signed by no root key we know")
    try:
        payload: bytes = PyJWS().decode(compact, root, algorithms=[SIGNING_ALGORITHM])
    except jwt.PyJWTError:
        raise DocumentError(f"{what}: the signature does not hold") from None
    return payload


def open_document(compact: bytes, *, ring: str, roots: Mapping[str, jwt.PyJWK]) -> RingDocument:
    """Return the document inside a compact JWS. DocumentError unless a root signed exactly this ring's document."""
    payload = open_signed(compact, typ=JWS_TYPE, roots=roots, what=ring)
    try:
        document = RingDocument.from_bytes(payload)
    except RingDocumentError as error:
        raise DocumentError(str(error)) from None
    if document.ring != ring:
        raise DocumentError(f"{ring}: the document is of ring {document.ring[:20]!r}")
    return document


def claimed_generation(compact: bytes) -> int:
    """Return the generation that a compact JWS says it has, whoever signed it; 0 when it says none."""
    try:
        payload = compact.decode("ascii").split(".")[1]
        generation = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["generation"]
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        return 0
    return generation if isinstance(generation, int) else 0


def build_ring(
    document: RingDocument, compact: bytes, *, via: str, loaded_at: int, legacy: jwt.PyJWK | None = None
) -> Ring:
    """Return a ring from a checked document. DocumentError when a key's material is unusable.

    `legacy`: the shared secret, if it is mounted. An entry for it without the secret is a key that is not here.
    """
    gone = {tombstone.kid: tombstone.why for tombstone in document.tombstones}
    keys = {key.kid: _public_key(document.ring, key, legacy) for key in document.keys}
    denied_sub: dict[str, int] = {}
    for deny in document.deny:
        if deny.sub is not None:
            denied_sub[deny.sub] = max(deny.iat_before or 0, denied_sub.get(deny.sub, 0))
    return Ring(
        document=document,
        compact=compact.strip(),
        loaded_at=loaded_at,
        via=via,
        keys={kid: key for kid, key in keys.items() if key is not None and kid not in gone},
        gone=gone,
        denied_jti=frozenset(deny.jti for deny in document.deny if deny.jti),
        denied_sub=denied_sub,
    )


def _public_key(ring: str, key: RingKey, legacy: jwt.PyJWK | None) -> jwt.PyJWK | None:
    material = key.material
    if key.kid == LEGACY_KID and ring == LEGACY_RING:
        if material.get("kty") != "oct" or material.get("alg") != LEGACY_ALGORITHM:
            raise DocumentError(f"{ring}: the legacy entry is not pinned to {LEGACY_ALGORITHM}")
        return legacy
    if not {"kty", "crv", "x", "y"} <= material.keys() or material.get("alg") != SIGNING_ALGORITHM:
        raise DocumentError(f"{ring}: key {key.n} is no {SIGNING_ALGORITHM} key")
    try:
        known = jwt.PyJWK({**material, "kid": key.kid}, algorithm=SIGNING_ALGORITHM)
        named = KID_PREFIX[ring] + thumbprint(material)
    except (jwt.PyJWTError, KeyError, TypeError):
        raise DocumentError(f"{ring}: key {key.n} cannot be read") from None
    if key.kid != named:  # a kid names its key: so it can never come back with another one
        raise DocumentError(f"{ring}: the kid of key {key.n} is not its thumbprint")
    return known


def verify(
    ring: Ring, token: str, *, audience: str, now: float, monotonic: float, cache_seconds: float = CACHE_SECONDS
) -> Verified:
    """Return a token that this ring vouches for at Unix time `now`. TokenError otherwise, and for every canary."""
    hit = ring.cache.get(token)
    if hit is not None:
        if monotonic < hit.until:
            if now >= hit.ends:
                raise TokenError("token_expired")
            _check_deny(hit.claims, ring)
            return hit
        del ring.cache[token]
    claims, kid = _check(ring, token, audience=audience, now=now)
    if claims["sub"] == CANARY_SUBJECT:
        raise TokenError("token_invalid")
    fresh = Verified(claims, kid, monotonic + cache_seconds, claims["exp"] + ring.document.leeway)
    if cache_seconds > 0:
        if len(ring.cache) >= CACHE_ENTRIES_MAX:
            for oldest in list(ring.cache)[: CACHE_ENTRIES_MAX // 8]:
                ring.cache.pop(oldest, None)
        ring.cache[token] = fresh
    return fresh


def verify_canary(ring: Ring, token: str, *, audience: str, now: float) -> str:
    """Return the kid of a canary that this ring vouches for. TokenError otherwise, and for every other token."""
    claims, kid = _check(ring, token, audience=audience, now=now)
    if claims["sub"] != CANARY_SUBJECT:
        raise TokenError("token_invalid")
    return kid


def _check(ring: Ring, token: str, *, audience: str, now: float) -> tuple[Mapping[str, Any], str]:
    if len(token) > TOKEN_BYTES_MAX or not token.isascii():
        raise TokenError("token_invalid")
    head, _, _ = token.partition(".")
    kid = ring.heads.get(head) or _kid(token, ring)
    key = ring.keys.get(kid)
    if key is None:
        why = ring.gone.get(kid)
        raise TokenError(f"kid_{why}", kid=kid) if why else TokenError("kid_unknown")
    try:
        claims = jwt.decode(
            token, key, algorithms=[str(key.algorithm_name)], issuer=ISSUER, audience=audience, options=_OPTIONS
        )
    except jwt.PyJWTError:
        raise TokenError("token_invalid") from None
    _check_times(claims, ring, now)
    _check_deny(claims, ring)
    if len(ring.heads) < HEADS_MAX:
        ring.heads[head] = kid
    return MappingProxyType(claims), kid


def _kid(token: str, ring: Ring) -> str:
    """Return the key id of a token's header; of one without: the legacy key's, if the ring has known one."""
    header = _header(token)
    if header is None or "crit" in header:
        raise TokenError("token_invalid")
    kid = header.get("kid")
    if "kid" not in header and any(LEGACY_KID in known for known in (ring.keys, ring.gone)):
        return LEGACY_KID
    if not isinstance(kid, str):
        raise TokenError("token_invalid")
    return kid


def _check_times(claims: Mapping[str, Any], ring: Ring, now: float) -> None:
    leeway = ring.document.leeway
    expires, issued = claims["exp"], claims["iat"]
    if not _is_time(expires) or not _is_time(issued) or not isinstance(claims["sub"], str):
        raise TokenError("token_invalid")
    if expires - issued > ring.document.ttl_max or issued > now + leeway:
        raise TokenError("token_invalid")  # a leaked key must not mint a year, nor tokens for later
    not_before = claims.get("nbf")
    if not_before is not None and (not _is_time(not_before) or not_before > now + leeway):
        raise TokenError("token_invalid")
    if expires <= now - leeway:
        raise TokenError("token_expired")


def _check_deny(claims: Mapping[str, Any], ring: Ring) -> None:
    if ring.denied_jti and claims.get("jti") in ring.denied_jti:
        raise TokenError("denied")
    if ring.denied_sub and claims["iat"] < ring.denied_sub.get(claims["sub"], 0):
        raise TokenError("denied")


def _is_time(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 40


def _header(token: str) -> dict[str, Any] | None:
    segment, dot, rest = token.partition(".")
    if not dot or rest.count(".") != 1:
        return None
    try:
        header = json.loads(base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4)))
    except (ValueError, binascii.Error, RecursionError):
        return None
    return header if isinstance(header, dict) else None
