"""A webhook comes in: judged on its raw bytes, stored, answered. What it means is worked out later (`worker`).

Nothing is parsed before the signature holds, and the size was capped before (the app's bound for this path). An event
that is stored already gets the same answer: Stripe must stop repeating it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from novacore.auth_billing.payments import repository
from novacore.auth_billing.payments.hints import TYPES, NotAnEventError, read_hint
from novacore.auth_billing.payments.signature import Secret, judge
from novacore.common.clock import Clock
from novacore.common.errors import unavailable, validation_error
from novacore.common.keyring import KeyRings
from novacore.common.log import get_logger
from novacore.common.metrics import Metrics

if TYPE_CHECKING:
    from novacore.common.database import Database

log = get_logger()

RING = "stripeWebhook"
_STATES = {"active": "current", "pending": "pending", "retiring": "retiring"}


class Receiver:
    """Takes Stripe's calls. `wake` is called after an event was stored."""

    def __init__(
        self, *, db: Database, keyrings: KeyRings, clock: Clock, metrics: Metrics, wake: Callable[[], None]
    ) -> None:
        self._db = db
        self._keyrings = keyrings
        self._clock = clock
        self._wake = wake
        self._received = metrics.counter("novacore_stripe_webhooks_total")
        self._signatures = metrics.counter("novacore_stripe_signature_total")
        self._seconds = metrics.histogram("novacore_stripe_webhook_duration_seconds")

    def secrets(self) -> list[Secret]:
        """Return the accepted webhook secrets, the active one first."""
        return [
            Secret(key.kid, key.state, str(key.material["secret"]))
            for key in self._keyrings.accepted(RING)
            if key.material.get("secret")
        ]

    async def take(self, body: bytes, header: str | None) -> bool:
        """Store an event; return whether it was new. 400 for a bad signature, 503 while there is no secret."""
        with self._seconds.time():
            return await self._take(body, header)

    def proves(self, body: bytes, header: str | None, *, secret_id: str) -> bool:
        """Return whether one secret is in force here: a call signed with it would pass. Stores nothing."""
        only = [secret for secret in self.secrets() if secret.id == secret_id]
        return judge(body, header, only, now_s=self._clock.now().timestamp()).passed

    async def _take(self, body: bytes, header: str | None) -> bool:
        secrets = self.secrets()
        if not secrets:
            raise unavailable("not_ready", "There is no webhook secret yet.", retry_after_s=60)
        now = self._clock.now()
        verdict = judge(body, header, secrets, now_s=now.timestamp())
        state = _STATES[verdict.secret.state] if verdict.secret else "none"
        self._signatures.labels(state, "ok" if verdict.passed else "bad").inc()
        if verdict.secret is None or not verdict.passed:
            self._received.labels("unverified", "bad_signature").inc()
            raise validation_error("The Stripe-Signature header does not fit this body and time.")
        try:
            hint = read_hint(body)
        except NotAnEventError as error:
            self._received.labels("other", "error").inc()
            log.error("stripe_event_unreadable", reason=str(error))
            raise validation_error("This is no event.") from None
        type_ = hint.type if hint.type in TYPES else "other"
        try:
            async with self._db.connection() as conn:
                new = await repository.store(conn, hint, body, via="webhook", secret_id=verdict.secret.id, now=now)
        except Exception:
            self._received.labels(type_, "error").inc()
            raise
        self._received.labels(type_, "ok" if new else "duplicate").inc()
        if new and hint.counts:
            self._wake()
        return new
