"""Our own service token: asked from auth-billing with the pod's projected token, renewed before it ends.

Invariants: TOKEN-1 one renewal at a time, however many calls wait; TOKEN-2 a failed renewal keeps the current token
until its `exp`; TOKEN-3 when the ring says `renew_now` and our kid is not the active one, nothing is sent before a
renewal; TOKEN-4 a token refused for its revoked key is not replaced by another of that key: a signer that has not heard
of the revocation yet is asked again. Durations are measured by the monotonic clock: a wall clock may jump.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import json
import math
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from novacore.common.clock import Clock
from novacore.common.keyring import KeyRings
from novacore.common.log import get_logger
from novacore_contracts.paths import Paths

log = get_logger()

RENEW_AT = 0.8
JITTER = 0.5
"""Share of that time by which a renewal may come earlier. After a restart of all pods at once a tenth would bring all
their renewals within two hours of each day, eleven times the mean; half brings 2.3 times the mean."""
AFTER_SWITCH_SECONDS = 600
"""After a switch of the signing key, renew somewhere in the next ten minutes: not all services at once."""
REQUEST_TIMEOUT_S = 5.0
RETRY_SECONDS = (0.5, 2.0)
RENEW_WITHIN_S = 3.0
"""How long one call waits for a token that is not refused again: signers learn of a revocation before all others."""
ASK_AGAIN_SECONDS = (0.05, 0.2)


class NoTokenError(Exception):
    """There is no valid service token and none could be got. The message names the cause, never the token."""


@dataclass(frozen=True, slots=True)
class ServiceToken:
    """A token, its key id, and when to renew and drop it (monotonic seconds)."""

    token: str = field(repr=False)
    kid: str
    renew_at: float
    expires_at: float


class ServiceTokens:
    """Source of the `X-Service-Token` header."""

    def __init__(
        self,
        *,
        url: str,
        paths: Paths,
        keyrings: KeyRings,
        clock: Clock,
        session: Callable[[], aiohttp.ClientSession],
        uniform: Callable[[float, float], float] = random.uniform,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._url = url
        self._paths = paths
        self._keyrings = keyrings
        self._clock = clock
        self._session = session
        self._uniform = uniform
        self._pause = pause
        self._held: ServiceToken | None = None
        self._lock = asyncio.Lock()
        self._retry_at = 0.0
        self._failed_at = -math.inf
        self._switch: tuple[str, float] | None = None  # the active kid we follow, and when we follow it

    @property
    def kid(self) -> str | None:
        """Key id of the token in use."""
        return self._held.kid if self._held else None

    async def get(self) -> str:
        """Return a valid token, renewing it first when due. NoTokenError when there is none to be had."""
        held = self._held
        if held is not None and not self._due(held):
            return held.token
        return (await self._renew(replacing=held)).token

    async def renew(self, refused: str, code: str) -> str:
        """Return a token other than the one just refused with `kid_revoked`, `denied` or `token_expired`."""
        held = self._held
        if held is not None and held.token != refused:
            return held.token  # somebody else renewed meanwhile
        revoked = held.kid if held is not None and code == "kid_revoked" else None
        return (await self._renew(replacing=held, refused=True, revoked=revoked)).token

    async def keep_fresh(self) -> None:
        """Renew ahead of time for ever, so that no request waits for it."""
        while True:
            with contextlib.suppress(NoTokenError):  # why not, is logged where it failed
                await self.get()
            await asyncio.sleep(self._uniform(1.0, 3.0) if self._held else 0.5)

    def _due(self, held: ServiceToken) -> bool:
        now = self._clock.monotonic()
        ring = self._keyrings.ring("serviceJwt")
        if ring is not None and held.kid != ring.document.active_kid:
            if ring.document.renew_now or held.kid not in ring.keys:
                return True
            if self._switch is None or self._switch[0] != ring.document.active_kid:
                self._switch = (ring.document.active_kid, now + self._uniform(0, AFTER_SWITCH_SECONDS))
            if now >= self._switch[1]:
                return True
        return now >= held.renew_at

    async def _renew(
        self, *, replacing: ServiceToken | None, refused: bool = False, revoked: str | None = None
    ) -> ServiceToken:
        began = self._clock.monotonic()
        async with self._lock:
            held = self._held
            if held is not None and held is not replacing:
                return held
            now = self._clock.monotonic()
            if began < self._failed_at or (now < self._retry_at and not refused):
                return self._fall_back(None if refused else held, "the last attempt failed a moment ago")
            until = now + (RENEW_WITHIN_S if refused else 0.0)
            while True:
                try:
                    fresh = await self._ask()
                    if fresh.kid == revoked:
                        raise ValueError("the signer has not heard of the revocation yet")
                except (aiohttp.ClientError, TimeoutError, OSError, ValueError, KeyError) as error:
                    now = self._clock.monotonic()
                    self._retry_at = now + self._uniform(*RETRY_SECONDS)
                    log.warning("service_token_renewal_failed", reason=f"{type(error).__name__}: {error}"[:200])
                    if now >= until:
                        self._failed_at = now
                        why = f"auth-billing gave none ({type(error).__name__})"
                        return self._fall_back(None if refused else held, why)
                    await self._pause(self._uniform(*ASK_AGAIN_SECONDS))
                else:
                    self._held = fresh
                    return fresh

    def _fall_back(self, held: ServiceToken | None, why: str) -> ServiceToken:
        if held is not None and self._clock.monotonic() < held.expires_at:
            return held
        raise NoTokenError(f"no service token: {why}")

    async def _ask(self) -> ServiceToken:
        ring = self._keyrings.ring("serviceJwt")
        # A first token may come from a signer that is behind us: its key is trusted, unless it was revoked, and then we
        # ask again before we send. A pod born just after a write would else wait for a signer's mount.
        at_least = ring.document.generation if ring and self._held else 0
        bootstrap = await asyncio.to_thread(self._paths.identity_token.read_text)
        async with self._session().post(
            f"{self._url}/internal/token",
            json={"min_generation": at_least},
            headers={"Authorization": f"Bearer {bootstrap.strip()}"},
            timeout=aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S),
        ) as response:
            # Whatever stands between us may answer too, with any body or none.
            raw = await response.read()
            if response.status != 200:
                raise ValueError(f"status {response.status} {_code_of(raw)}")
            answer: dict[str, Any] = json.loads(raw)
        now = self._clock.monotonic()
        lifetime = float(answer["expires_in"])
        renew_in = lifetime * RENEW_AT * (1 - self._uniform(0, JITTER))
        token = str(answer["token"])
        log.info("service_token_renewed", kid=kid_of(token), expires_in=int(lifetime))
        return ServiceToken(token=token, kid=kid_of(token), renew_at=now + renew_in, expires_at=now + lifetime)


def _code_of(raw: bytes) -> str:
    """Return the `code` of a problem document, or nothing when the body is something else."""
    try:
        return str(json.loads(raw)["code"])[:40]
    except (ValueError, KeyError, TypeError):
        return "without a problem document"


def kid_of(token: str) -> str:
    """Return the key id in a token's header, unchecked. ValueError when there is none."""
    segment = token.partition(".")[0]
    try:
        return str(json.loads(base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4)))["kid"])
    except (ValueError, KeyError, TypeError, binascii.Error):
        raise ValueError("the token has no readable kid") from None
