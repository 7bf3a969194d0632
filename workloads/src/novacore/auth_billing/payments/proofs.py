"""Proof, entry by entry, that this pod works with every accepted key and secret; told by id in `/readyz`.

Whoever switches a ring asks every pod first. A webhook secret is proven by a call signed here with it, which the
receiver would take; an API key by a read that Stripe answers. No value and no hash of one is told.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

from novacore.auth_billing.payments import gate as gate_
from novacore.auth_billing.payments import receiver as receiver_
from novacore.auth_billing.payments.gate import Gate
from novacore.auth_billing.payments.receiver import Receiver
from novacore.auth_billing.payments.signature import sign
from novacore.common.clock import Clock
from novacore.common.keyring import KeyRings

CANARY: Final = b'{"object": "canary"}'
UNPROVEN_PAUSE_S: Final = 5.0
PROVEN_PAUSE_S: Final = 60.0
"""A key can be expired at Stripe at any time."""

Report = dict[str, dict[str, bool]]


class Proofs:
    """Keeps `report` (ring -> entry -> whether it works here) measured."""

    def __init__(self, *, keyrings: KeyRings, gate: Gate, receiver: Receiver, clock: Clock, report: Report) -> None:
        self._keyrings = keyrings
        self._gate = gate
        self._receiver = receiver
        self._clock = clock
        self._report = report
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """A ring has changed."""
        self._woken.set()

    async def run(self, draining: asyncio.Event) -> None:
        """Measure for ever, at once after a change."""
        while not draining.is_set():
            proven = await self.measure()
            with suppress(TimeoutError):
                async with asyncio.timeout(PROVEN_PAUSE_S if proven else UNPROVEN_PAUSE_S):
                    await self._woken.wait()
            self._woken.clear()

    async def measure(self) -> bool:
        """Measure once; return whether every entry works."""
        now_s = int(self._clock.now().timestamp())
        self._report[receiver_.RING] = {
            secret.id: self._receiver.proves(CANARY, sign(CANARY, [secret.value], now_s=now_s), secret_id=secret.id)
            for secret in self._receiver.secrets()
        }
        keys = [key.kid for key in self._keyrings.accepted(gate_.RING)]
        self._report[gate_.RING] = {key_id: await self._gate.probe(key_id) for key_id in keys}
        return all(all(entries.values()) for entries in self._report.values())
