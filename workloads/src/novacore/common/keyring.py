"""Verifying tokens against root-signed ring documents.

A ring document comes by mount, push or disk; only its signature counts. `KeyRings` polls the mounted directories each
second (the kubelet swaps the link `..data`; inotify on a Secret's file fires once and dies) and swaps one immutable
`Ring`.

Invariants: RING-1 the generation in use never falls, whatever is mounted; RING-2 nothing clears a ring: a bad document
is counted and the last good one stays; RING-3 the algorithm comes from the key, never from the token; RING-4 an
unknown kid is 401, never a fetch. Not here: who may do what (`callers`), getting our own token (`tokens`).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import jwt
from jwt.api_jws import PyJWS

from novacore.common.clock import Clock
from novacore.common.log import get_logger
from novacore.common.metrics import Metrics
from novacore_contracts.identity import (
    ISSUER,
    RINGS,
    SERVICE_AUDIENCE,
    SIGNING_ALGORITHM,
    TOKEN_BYTES_MAX,
    USER_AUDIENCE,
)
from novacore_contracts.keyset import DOCUMENT_BYTES_MAX, JWS_TYPE, RingDocument, RingDocumentError, RingKey
from novacore_contracts.paths import Paths

log = get_logger()

AUDIENCES: Final[Mapping[str, str]] = MappingProxyType({"serviceJwt": SERVICE_AUDIENCE, "userJwt": USER_AUDIENCE})
CACHE_ENTRIES_MAX: Final = 4096
CACHE_SECONDS: Final = 300
POLL_SECONDS: Final = 1.0

_CODE_RESULT: Final = {
    "token_expired": "expired",
    "kid_unknown": "unknown_kid",
    "kid_retired": "retired",
    "kid_revoked": "retired",
}


class TokenError(Exception):
    """A token is refused. `code` is the machine code of the 401 body; nothing else may be said to the client."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class DocumentError(Exception):
    """A ring document is refused. The message names the reason, never the content."""


@dataclass(slots=True)
class Ring:
    """One accepted document, ready to verify with. Replaced as a whole; its cache dies with it."""

    document: RingDocument
    compact: bytes = field(repr=False)
    loaded_at: int
    via: str
    keys: Mapping[str, jwt.PyJWK] = field(repr=False)
    gone: Mapping[str, str]  # kid -> "retired" | "revoked"
    denied_jti: frozenset[str]
    denied_sub: Mapping[str, int]  # sub -> tokens issued before this are refused
    cache: dict[str, tuple[Mapping[str, Any], str, float]] = field(default_factory=dict, repr=False)

    @property
    def sha256(self) -> str:
        """Hash of the signed bytes: two pods with the same hash hold the same document."""
        return hashlib.sha256(self.compact).hexdigest()


def read_roots(jwks: bytes) -> dict[str, jwt.PyJWK]:
    """Return the root keys of a `root.jwks` by kid. DocumentError when it is not one."""
    try:
        keys = json.loads(jwks)["keys"]
        return {str(key["kid"]): jwt.PyJWK(key, algorithm=SIGNING_ALGORITHM) for key in keys}
    except (ValueError, KeyError, TypeError, jwt.PyJWTError) as error:
        raise DocumentError(f"root.jwks: {type(error).__name__}") from None


def open_document(compact: bytes, *, ring: str, roots: Mapping[str, jwt.PyJWK]) -> RingDocument:
    """Return the document inside a compact JWS. DocumentError unless a root signed exactly this ring's document."""
    compact = compact.strip()
    if len(compact) > DOCUMENT_BYTES_MAX * 4 // 3 + 1024:
        raise DocumentError(f"{ring}: {len(compact)} bytes are too many")
    header = _header(compact.decode("ascii", "replace"))
    if header is None or header.get("typ") != JWS_TYPE or "crit" in header:
        raise DocumentError(f"{ring}: not a ring document")
    root = roots.get(str(header.get("kid")))
    if root is None:
        raise DocumentError(f"{ring}: signed by no root key we know")
    try:
        payload = PyJWS().decode(compact, root, algorithms=[SIGNING_ALGORITHM])
        document = RingDocument.from_bytes(payload)
    except jwt.PyJWTError:
        raise DocumentError(f"{ring}: the signature does not hold") from None
    except RingDocumentError as error:
        raise DocumentError(str(error)) from None
    if document.ring != ring:
        raise DocumentError(f"{ring}: the document is of ring {document.ring[:20]!r}")
    return document


def build_ring(document: RingDocument, compact: bytes, *, via: str, loaded_at: int) -> Ring:
    """Return a ring from a checked document. DocumentError when a key's material is unusable."""
    keys: dict[str, jwt.PyJWK] = {}
    for key in document.keys:
        if not {"kty", "crv", "x", "y"} <= key.material.keys() or key.material.get("alg") != SIGNING_ALGORITHM:
            raise DocumentError(f"{document.ring}: key {key.n} is no {SIGNING_ALGORITHM} key")
        try:
            keys[key.kid] = jwt.PyJWK({**key.material, "kid": key.kid}, algorithm=SIGNING_ALGORITHM)
        except jwt.PyJWTError:
            raise DocumentError(f"{document.ring}: key {key.n} cannot be read") from None
    gone = {tombstone.kid: tombstone.why for tombstone in document.tombstones}
    return Ring(
        document=document,
        compact=compact.strip(),
        loaded_at=loaded_at,
        via=via,
        keys={kid: key for kid, key in keys.items() if kid not in gone},
        gone=gone,
        denied_jti=frozenset(deny.jti for deny in document.deny if deny.jti),
        denied_sub={deny.sub: deny.iat_before or 0 for deny in document.deny if deny.sub},
    )


def verify(
    ring: Ring, token: str, *, audience: str, now: float, cache_seconds: float = CACHE_SECONDS
) -> tuple[Mapping[str, Any], str]:
    """Return claims and kid of a token that this ring vouches for at Unix time `now`. TokenError otherwise."""
    hit = ring.cache.get(token)
    if hit is not None:
        claims, kid, until = hit
        if now < until:
            _check_times(claims, ring, now)
            _check_deny(claims, ring)
            return claims, kid
        del ring.cache[token]
    if len(token) > TOKEN_BYTES_MAX:
        raise TokenError("token_invalid")
    header = _header(token)
    if header is None or "crit" in header:
        raise TokenError("token_invalid")
    named = header.get("kid")
    if not isinstance(named, str):
        raise TokenError("token_invalid")
    kid, key = named, ring.keys.get(named)
    if key is None:
        why = ring.gone.get(kid)
        raise TokenError(f"kid_{why}" if why else "kid_unknown")
    try:
        claims = jwt.decode(
            token,
            key,
            algorithms=[SIGNING_ALGORITHM],
            issuer=ISSUER,
            audience=audience,
            # Times are checked below, by our clock: PyJWT reads its own and accepts a token without `exp`.
            options={
                "require": ["exp", "iat", "sub", "iss", "aud"],
                "verify_exp": False,
                "verify_iat": False,
                "verify_nbf": False,
                "strict_aud": True,
            },
        )
    except jwt.PyJWTError:
        raise TokenError("token_invalid") from None
    claims = MappingProxyType(claims)
    _check_times(claims, ring, now)
    _check_deny(claims, ring)
    if len(ring.cache) >= CACHE_ENTRIES_MAX:
        for oldest in list(ring.cache)[: CACHE_ENTRIES_MAX // 8]:
            ring.cache.pop(oldest, None)
    ring.cache[token] = (claims, kid, min(now + cache_seconds, float(claims["exp"]) + ring.document.leeway))
    return claims, kid


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
    if claims.get("jti") in ring.denied_jti or claims["iat"] < ring.denied_sub.get(claims["sub"], 0):
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


class KeyRings:
    """The public rings this process verifies with, and the confidential documents of its own credentials directory."""

    def __init__(
        self, paths: Paths, clock: Clock, metrics: Metrics, *, rings: Iterable[str] = ("serviceJwt", "userJwt")
    ) -> None:
        self._paths = paths
        self._clock = clock
        self._metrics = metrics
        self._names = tuple(rings)
        self._rings: dict[str, Ring] = {}
        self._credentials: dict[str, RingDocument] = {}
        self._roots: dict[str, jwt.PyJWK] = {}
        self._seen: dict[str, object] = {}
        self._listeners: list[Callable[[str], None]] = []
        self.last_ok: dict[str, dict[str, int]] = {name: {} for name in self._names}
        self._verifications = {
            (ring, result): metrics.counter("novacore_token_verifications_total").labels(ring, result)
            for ring in AUDIENCES
            for result in ("ok", "expired", "unknown_kid", "retired", "bad")
        }

    def ring(self, name: str) -> Ring | None:
        """Return the ring in use, or None before the first valid document."""
        return self._rings.get(name)

    def credential(self, name: str) -> RingKey | None:
        """Return the active entry of a confidential ring (`postgres`, `redis`, …), or None while it is not mounted."""
        document = self._credentials.get(name)
        return document.active if document else None

    def accepted(self, name: str) -> tuple[RingKey, ...]:
        """Return all entries of a confidential ring, the active one first, then pending, then retiring.

        For a kind of which several values are good at once; empty while it is not mounted.
        """
        document = self._credentials.get(name)
        order = ("active", "pending", "retiring")
        return tuple(sorted(document.keys, key=lambda key: order.index(key.state))) if document else ()

    def revoked(self, name: str) -> frozenset[str]:
        """Return the ids of a confidential ring's entries that were revoked: they leaked, and are trusted no more."""
        document = self._credentials.get(name)
        return frozenset(mark.kid for mark in document.tombstones if mark.why == "revoked") if document else frozenset()

    def material(self, name: str) -> dict[str, Any] | None:
        """Return the material of a confidential ring's active entry, or None while it is not mounted."""
        key = self.credential(name)
        return dict(key.material) if key else None

    def credential_generation(self, name: str) -> int:
        """Return the generation of a confidential ring in use; 0 before the first."""
        document = self._credentials.get(name)
        return document.generation if document else 0

    @property
    def ready(self) -> bool:
        """Whether every public ring has been seen once."""
        return all(name in self._rings for name in self._names)

    def on_change(self, listener: Callable[[str], None]) -> None:
        """Call `listener(ring)` after a ring or credential document was replaced."""
        self._listeners.append(listener)

    def verify(self, ring: str, token: str, *, cache_seconds: float = CACHE_SECONDS) -> Mapping[str, Any]:
        """Return the claims of a valid token. TokenError with the code for the 401 body."""
        held = self._rings.get(ring)
        try:
            if held is None:
                raise TokenError("kid_unknown")
            now = self._clock.now().timestamp()
            claims, kid = verify(held, token, audience=AUDIENCES[ring], now=now, cache_seconds=cache_seconds)
        except TokenError as error:
            self._verifications[ring, _CODE_RESULT.get(error.code, "bad")].inc()
            raise
        self._verifications[ring, "ok"].inc()
        self.last_ok[ring][kid] = int(now)
        return claims

    def load(self) -> None:
        """Read what is on disk and mounted. Bad documents are counted and ignored."""
        self._load_roots()
        for name in self._names:
            for file, via in (
                (self._paths.state / f"{name}.jws", "disk"),
                (self._paths.keyset / f"{name}.jws", "mount"),
            ):
                if (compact := _read(file)) is not None:
                    self._try_accept(name, compact, via=via)
        for file in sorted(self._paths.creds.glob("*.jws")) if self._paths.creds.is_dir() else ():
            self._load_credential(file)

    def push(self, name: str, compact: bytes) -> Ring:
        """Accept a pushed public document, authenticated by its root signature. DocumentError when it is not valid.

        An older generation is not an error: the answer (the ring in use) says which one is held.
        """
        if name not in self._names:
            raise DocumentError("unknown ring")
        self._load_roots()
        self._accept(name, compact, via="push")
        return self._rings[name]

    async def watch(self) -> None:
        """Poll the mounted directories for ever."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            self.poll()

    def poll(self) -> bool:
        """Load when a mounted directory changed since the last look; return whether it did."""
        marks = {str(path): _mark(path) for path in (self._paths.keyset, self._paths.keyset_root, self._paths.creds)}
        if marks == self._seen:
            return False
        self._seen = dict(marks)
        self.load()
        return True

    def report(self) -> dict[str, Any]:
        """Return the `rings` object of `/readyz` and `/internal/keyset`."""
        return {
            name: {
                "generation": ring.document.generation,
                "sha256": ring.sha256,
                "active_kid": ring.document.active_kid,
                "kids": [key.kid for key in ring.document.keys],
                "loaded_at": ring.loaded_at,
                "via": ring.via,
                "last_ok": dict(self.last_ok[name]),
            }
            for name, ring in self._rings.items()
        }

    def _load_roots(self) -> None:
        jwks = _read(self._paths.keyset_root / "root.jwks")
        if jwks is None:
            return
        try:
            self._roots = read_roots(jwks)
        except DocumentError as error:
            log.error("keyset_refused", reason=str(error))

    def _try_accept(self, name: str, compact: bytes, *, via: str) -> None:
        try:
            self._accept(name, compact, via=via)
        except DocumentError as error:
            self._metrics.counter("novacore_keyset_load_errors_total").labels(name).inc()
            log.error("keyset_refused", ring=name, via=via, reason=str(error))

    def _accept(self, name: str, compact: bytes, *, via: str) -> None:
        held = self._rings.get(name)
        if held is not None and held.compact == compact.strip():
            return
        document = open_document(compact, ring=name, roots=self._roots)
        if held is not None and document.generation <= held.document.generation:
            return
        now = int(self._clock.now().timestamp())
        ring = build_ring(document, compact, via=via, loaded_at=now)
        self._rings[name] = ring
        kids = ring.keys.keys()
        self.last_ok[name] = {kid: at for kid, at in self.last_ok[name].items() if kid in kids}
        self._metrics.gauge("novacore_keyring_version").labels(name).set(document.generation)
        log.info("keyset_loaded", ring=name, generation=document.generation, via=via)
        if via != "disk":
            self._persist(name, ring)
        self._notify(name)

    def _persist(self, name: str, ring: Ring) -> None:
        """Keep the highest document, so that a container restart on a stale mount cannot revive a revoked key."""
        try:
            self._paths.state.mkdir(parents=True, exist_ok=True)
            part = self._paths.state / f".{name}.part"
            part.write_bytes(ring.compact)
            part.replace(self._paths.state / f"{name}.jws")
        except OSError as error:
            log.error("keyset_not_kept", error=error, ring=name)

    def _load_credential(self, file: Path) -> None:
        name = file.stem
        compact = _read(file)
        if compact is None:
            return
        try:
            document = open_document(compact, ring=name, roots=self._roots)
        except DocumentError as error:
            if name in RINGS:
                self._metrics.counter("novacore_keyset_load_errors_total").labels(name).inc()
            log.error("credential_refused", ring=name, reason=str(error))
            return
        if document.generation > self.credential_generation(name):
            self._credentials[name] = document
            if name in RINGS:
                self._metrics.gauge("novacore_keyring_version").labels(name).set(document.generation)
            log.info("credential_loaded", ring=name, generation=document.generation)
            self._notify(name)

    def _notify(self, name: str) -> None:
        for listener in self._listeners:
            listener(name)


def _read(file: Path) -> bytes | None:
    try:
        return file.read_bytes()
    except OSError:
        return None


def _mark(path: Path) -> object:
    """Return something that differs after the kubelet, or a person, changed the directory."""
    try:
        return os.readlink(path / "..data")  # noqa: PTH115 - 1.7 µs; Path.readlink builds an object each second
    except OSError:
        pass
    try:
        return tuple(sorted((entry.name, entry.stat().st_mtime_ns, entry.stat().st_size) for entry in os.scandir(path)))
    except OSError:
        return None
