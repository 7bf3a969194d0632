"""The ring documents of a process: from mount, push or disk; only the signature counts.

`KeyRings` polls the mounted directories each second (the kubelet swaps the link `..data`; inotify on a Secret's file
fires once and dies) and swaps one immutable `Ring`. There is one process in a pod, so what this one reports holds for
the pod.

Invariants: RING-1 the generation in use never falls, whatever is mounted, pushed or on disk; RING-2 nothing clears a
ring: a bad document is counted once and the last good one stays; RING-4 an unknown kid is 401, never a fetch.
Not here: what makes a token valid (`ring`), who may do what (`callers`), getting our own token (`tokens`).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import jwt

from novacore.common.clock import Clock, unix
from novacore.common.log import get_logger
from novacore.common.metrics import Metrics
from novacore.common.ring import (
    CACHE_SECONDS,
    COMPACT_BYTES_MAX,
    LEGACY_RING,
    DocumentError,
    Ring,
    TokenError,
    build_ring,
    claimed_generation,
    open_document,
    open_signed,
    read_legacy,
    read_roots,
    verify,
    verify_canary,
)
from novacore_contracts.identity import JWT_RINGS, RINGS, SERVICE_AUDIENCE, USER_AUDIENCE
from novacore_contracts.keyset import RingDocument, RingKey
from novacore_contracts.paths import Paths

__all__ = ["AUDIENCES", "DocumentError", "KeyRings", "Ring", "TokenError"]

log = get_logger()

AUDIENCES: Final[Mapping[str, str]] = MappingProxyType({"serviceJwt": SERVICE_AUDIENCE, "userJwt": USER_AUDIENCE})
POLL_SECONDS: Final = 1.0

_CODE_RESULT: Final = {
    "token_expired": "expired",
    "kid_unknown": "unknown_kid",
    "kid_retired": "retired",
    "kid_revoked": "retired",
    "denied": "retired",
}


class KeyRings:
    """The public rings this process verifies with, and the confidential documents of its own credentials directory."""

    def __init__(self, paths: Paths, clock: Clock, metrics: Metrics, *, rings: Iterable[str] = JWT_RINGS) -> None:
        self._paths = paths
        self._unix = unix(clock)
        self._monotonic = clock.monotonic
        self._metrics = metrics
        self._names = tuple(rings)
        self._rings: dict[str, Ring] = {}
        self._credentials: dict[str, RingDocument] = {}
        self._roots: dict[str, jwt.PyJWK] = {}
        self._legacy: jwt.PyJWK | None = None
        self._seen: dict[str, object] = {}
        self._judged: dict[Path, tuple[bytes, bytes]] = {}  # file -> content and roots: judged, and counted, once
        self._raw: dict[Path, bytes] = {}  # root and legacy keys as last read
        self._mounted: dict[str, int] = {}  # ring -> the generation that the mounted document claims
        self._caught_up = False
        self._listeners: list[Callable[[str], None]] = []
        self.last_ok: dict[str, dict[str, int]] = {name: {} for name in self._names}
        self._verifications = {
            (ring, result): metrics.counter("novacore_token_verifications_total").labels(ring, result)
            for ring in AUDIENCES
            for result in ("ok", "expired", "unknown_kid", "retired", "bad")
        }
        self._accepted = dict.fromkeys(
            AUDIENCES, 0
        )  # since the counter was read: counting there costs what a hit costs
        metrics.before_reading(self._count_accepted)

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

    @property
    def caught_up(self) -> bool:
        """Whether every ring was once at least as new as its mount: needed at a process's start, never taken back.

        A pod that starts with an older ring (disk, an unknown root key) would refuse what all others accept.
        """
        if not self._caught_up and self.ready:
            self._caught_up = all(
                self._rings[name].document.generation >= self._mounted.get(name, 0) for name in self._names
            )
        return self._caught_up

    def on_change(self, listener: Callable[[str], None]) -> None:
        """Call `listener(ring)` after a ring or credential document was replaced."""
        self._listeners.append(listener)

    def verify(self, ring: str, token: str, *, cache_seconds: float = CACHE_SECONDS) -> Mapping[str, Any]:
        """Return the claims of a valid token. TokenError with the code for the 401 body."""
        held = self._rings.get(ring)
        try:
            if held is None:
                raise TokenError("kid_unknown")
            now = self._unix()
            verified = verify(
                held, token,
                audience=AUDIENCES[ring], now=now, monotonic=self._monotonic(), cache_seconds=cache_seconds,
            )  # fmt: skip
        except TokenError as error:
            child = self._verifications[ring, _CODE_RESULT.get(error.code, "bad")]
            child.inc(exemplar={"kid": error.kid} if error.kid else None)
            raise
        self._accepted[ring] += 1
        self.last_ok[ring][verified.kid] = int(now)
        return verified.claims

    def verify_canary(self, ring: str, token: str) -> tuple[str, int]:
        """Return kid and generation for a valid canary. TokenError with the code for the 401 body.

        Neither counted nor entered in `last_ok`: those say what callers use, and an alert and a retirement rest on it.
        """
        held = self._rings.get(ring)
        if held is None:
            raise TokenError("kid_unknown")
        kid = verify_canary(held, token, audience=AUDIENCES[ring], now=self._unix())
        return kid, held.document.generation

    def signed_by_root(self, compact: bytes, *, typ: str) -> bytes:
        """Return the payload of a JWS of type `typ` that a root key signed. DocumentError otherwise."""
        self._load_roots()
        return open_signed(compact, typ=typ, roots=self._roots, what="request")

    def load(self) -> None:
        """Read what is on disk and mounted. Bad documents are counted and ignored."""
        self._load_roots()
        self._load_legacy()
        for name in self._names:
            mounted = self._paths.keyset / f"{name}.jws"
            self._try_accept(name, self._paths.state / f"{name}.jws", via="disk")
            self._try_accept(name, mounted, via="mount")
            if (compact := _read(mounted)) is not None:
                self._mounted[name] = claimed_generation(compact)
        for file in sorted(self._paths.creds.glob("*.jws")) if self._paths.creds.is_dir() else ():
            self._load_credential(file)

    def push(self, name: str, compact: bytes) -> Ring:
        """Accept a pushed public document, authenticated by its root signature. DocumentError when it is not valid.

        An older generation is not an error: the answer (the ring in use) says which one is held.
        """
        if name not in self._names:
            raise DocumentError("unknown ring")
        self._load_roots()
        self._load_legacy()
        try:
            self._accept(name, compact, via="push")
        except DocumentError:
            self._count_refusal(name)
            raise
        return self._rings[name]

    async def watch(self) -> None:
        """Poll the mounted directories for ever."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            self.poll()

    def poll(self) -> bool:
        """Load when a mounted directory changed since the last look; return whether it did."""
        paths = self._paths
        watched = (paths.keyset, paths.keyset_root, paths.service_jwt_legacy, paths.creds)
        marks = {str(path): _mark(path) for path in watched}
        if marks == self._seen:
            return False
        self._seen = dict(marks)
        self.load()
        return True

    def report(self) -> dict[str, Any]:
        """Return the `rings` object of `/readyz` and `/internal/keyset`. `kids`: those it can verify with."""
        return {
            name: {
                "generation": ring.document.generation,
                "sha256": ring.sha256,
                "active_kid": ring.document.active_kid,
                "kids": [key.kid for key in ring.document.keys if key.kid in ring.keys],
                "loaded_at": ring.loaded_at,
                "via": ring.via,
                "last_ok": dict(self.last_ok[name]),
            }
            for name, ring in self._rings.items()
        }

    def _load_roots(self) -> None:
        file = self._paths.keyset_root / "root.jwks"
        jwks = _read(file)
        if jwks is None or jwks == self._raw.get(file):
            return
        self._raw[file] = jwks
        try:
            self._roots = read_roots(jwks)
        except DocumentError as error:
            log.error("keyset_refused", reason=str(error))

    def _load_legacy(self) -> None:
        """Take a shared secret that is mounted. One that vanishes stays: its end is the document's to say."""
        file = self._paths.service_jwt_legacy / "legacy.jwk"
        jwk = _read(file)
        if jwk is None or jwk == self._raw.get(file):
            return
        self._raw[file] = jwk
        try:
            self._legacy = read_legacy(jwk)
        except DocumentError as error:
            log.error("keyset_refused", reason=str(error))
            return
        if (held := self._rings.get(LEGACY_RING)) is not None:
            self._rings[LEGACY_RING] = self._build(held.document, held.compact, via=held.via, loaded_at=held.loaded_at)

    def _build(self, document: RingDocument, compact: bytes, *, via: str, loaded_at: int) -> Ring:
        return build_ring(document, compact, via=via, loaded_at=loaded_at, legacy=self._legacy)

    def _try_accept(self, name: str, file: Path, *, via: str) -> None:
        compact = _read(file)
        roots = self._raw.get(self._paths.keyset_root / "root.jwks", b"")
        if compact is None or self._judged.get(file) == (compact, roots):
            return
        self._judged[file] = (compact, roots)
        try:
            self._accept(name, compact, via=via)
        except DocumentError as error:
            self._count_refusal(name)
            log.error("keyset_refused", ring=name, via=via, reason=str(error))

    def _count_accepted(self) -> None:
        for ring, count in self._accepted.items():
            self._accepted[ring] = 0
            self._verifications[ring, "ok"].inc(count)

    def _count_refusal(self, name: str) -> None:
        self._metrics.counter("novacore_keyset_load_errors_total").labels(name).inc()

    def _accept(self, name: str, compact: bytes, *, via: str) -> None:
        held = self._rings.get(name)
        if held is not None and held.compact == compact.strip():
            return
        document = open_document(compact, ring=name, roots=self._roots)
        if held is not None and document.generation <= held.document.generation:
            return
        ring = self._build(document, compact, via=via, loaded_at=int(self._unix()))
        self._rings[name] = ring
        self.last_ok[name] = {kid: at for kid, at in self.last_ok[name].items() if kid in ring.keys}
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
                self._count_refusal(name)
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
    """Return a file's bytes, of a huge one no more than it takes to refuse it; None without one."""
    try:
        with file.open("rb") as opened:
            return opened.read(COMPACT_BYTES_MAX + 1024)
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
