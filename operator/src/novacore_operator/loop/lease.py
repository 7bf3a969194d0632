"""Leader election on a `coordination.k8s.io` Lease: one process writes, the others keep warm caches.

Invariants: LEASE-1 a process believes in its Lease for less time than others wait before they take it: it counts from
*before* the request that renewed it, and keeps a margin for skew. LEASE-2 losing it ends the process (a new one starts
from nothing), as controller-runtime does. LEASE-3 others judge a Lease by how long they have seen it unchanged, on
their own clock, never by the times written in it: clocks of nodes jump. LEASE-4 a Lease given up is not taken again by
the same process.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from novacore_operator.errors import Fatal, NovaError
from novacore_operator.kube import Conflict, Kube
from novacore_operator.reasons import Reason
from novacore_operator.state import Ref, names
from novacore_operator.telemetry import Log, Metrics

log = Log(__name__)

DURATION_S = 12.0
"""A crashed holder is replaced within this, twice `RETRY_S` (seen late, tried late) and one request: below 15 s."""
MARGIN_S = 2.0
RENEW_S = 2.0
RETRY_S = 0.5
ATTEMPT_S = 5.0
"""Of one request: short enough for a second one while the Lease is still ours."""


def since_boot() -> float:
    """Return the time of a clock that nobody sets, and that goes on while the machine sleeps: `monotonic` does not."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


class Lease:
    """This process's claim to be the one that writes."""

    def __init__(
        self,
        kube: Kube,
        metrics: Metrics,
        *,
        namespace: str,
        identity: str,
        clock: Callable[[], float] = since_boot,
        wall: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._kube = kube
        self._metrics = metrics
        self._namespace = namespace
        self._identity = identity
        self._clock = clock
        self._wall = wall
        self._valid_until = 0.0
        self._record: tuple[str, str] = ("", "")
        self._seen_at = 0.0
        self._released = False
        self._one_request = asyncio.Lock()
        self.held = asyncio.Event()

    def check(self) -> None:
        """Raise Fatal if the Lease may not be ours any more. The guard of every write (KUBE-1)."""
        if self._clock() >= self._valid_until:
            raise Fatal(Reason.API_UNAVAILABLE, "the Lease is not ours: nothing may be written")

    async def run(self) -> None:
        """Acquire, then renew for ever. Raises Fatal when the Lease is lost."""
        while not self.held.is_set():
            if await self._attempt():
                log.info("lease_acquired", identity=self._identity)
                self._metrics.set("leader", 1)
                self.held.set()
            else:
                await asyncio.sleep(RETRY_S)
        while True:
            await asyncio.sleep(RENEW_S if self._clock() < self._valid_until - DURATION_S / 2 else RETRY_S)
            if self._released:
                return
            if not await self._attempt() and not self._released:
                self.check()

    async def release(self) -> None:
        """Give the Lease up, so that another takes it within a second."""
        if not self.held.is_set():
            return
        self._released = True
        async with self._one_request:  # a renewal on its way would take the Lease again (LEASE-4)
            self._valid_until = 0.0
            self._metrics.set("leader", 0)
            try:
                lease = await self._kube.get(self._ref)
                if lease is not None and lease["spec"].get("holderIdentity") == self._identity:
                    lease["spec"] |= {"holderIdentity": "", "leaseDurationSeconds": 1}
                    await self._kube.write_lease(lease, create=False)
            except NovaError as error:
                log.warning("lease_not_released", reason=error.message)

    @property
    def _ref(self) -> Ref:
        return Ref("Lease", self._namespace, names.LEASE)

    async def _attempt(self) -> bool:
        """Try once to take or keep the Lease."""
        async with self._one_request:
            return False if self._released else await self._try()

    async def _try(self) -> bool:
        before = self._clock()  # LEASE-1
        try:
            async with asyncio.timeout(ATTEMPT_S):
                taken = await self._write(await self._kube.get(self._ref))
        except (NovaError, TimeoutError) as error:
            if not isinstance(error, Conflict):
                log.warning("lease_attempt_failed", reason=str(error) or "time-out")
            return False
        if taken:
            self._valid_until = before + DURATION_S - MARGIN_S
        return taken

    async def _write(self, lease: dict[str, Any] | None) -> bool:
        now = self._wall().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        mine = {"holderIdentity": self._identity, "leaseDurationSeconds": int(DURATION_S), "renewTime": now}
        if lease is None:
            body = {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"name": names.LEASE, "namespace": self._namespace},
                "spec": {**mine, "acquireTime": now, "leaseTransitions": 0},
            }
            await self._kube.write_lease(body, create=True)
            return True
        spec = lease.setdefault("spec", {})
        holder = spec.get("holderIdentity") or ""
        if holder not in ("", self._identity) and not self._stale(holder, str(spec.get("renewTime"))):
            return False
        if holder != self._identity:
            spec |= {"acquireTime": now, "leaseTransitions": int(spec.get("leaseTransitions") or 0) + 1}
        spec |= mine
        await self._kube.write_lease(lease, create=False)
        return True

    def _stale(self, holder: str, renewed: str) -> bool:
        """Return whether another's Lease has stood unchanged for longer than it lasts (LEASE-3)."""
        if (holder, renewed) != self._record:
            self._record, self._seen_at = (holder, renewed), self._clock()
        return self._clock() - self._seen_at > DURATION_S
