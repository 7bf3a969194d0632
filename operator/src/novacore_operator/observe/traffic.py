"""What canaries and the pods beside them serve, read from the pods' `/metrics`.

A comparison lives in the process that holds the Lease: a restarted operator begins it anew, at 0 s. Nothing of it is
stored, so nothing stale can be judged.
Not here: what the figures mean (policies.canary).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from novacore_contracts.metrics import QUIET_ROUTES
from novacore_contracts.services import INTERNAL_PORT
from novacore_operator.state import Counted, Live, PodFacts, Ref, Sample, Served, Trial, WorkloadFacts, names
from novacore_operator.telemetry import Log

log = Log(__name__)

LOOK_S = 5.0
"""Between two looks, hence between two status messages of a canary."""
ANSWER_S = 2.0
PAGE_BYTES_MAX = 4 << 20
REQUESTS = "http_requests_total"
SECONDS = "http_request_duration_seconds_bucket"

Read = Callable[[str], Awaitable[Sample | None]]
"""From a pod's address to what it has served; None when it does not answer."""


@dataclass(slots=True)
class _Begun:
    uid: str
    template: str
    at_s: float
    looked_s: float
    canary: dict[str, Counted] = field(default_factory=dict)
    stable: dict[str, Counted] = field(default_factory=dict)

    def trial(self) -> Trial:
        return Trial(self.template, self.looked_s - self.at_s, tuple(self.canary.values()), tuple(self.stable.values()))


class Traffic:
    """The comparisons that are under way."""

    def __init__(self, read: Read, clock: Callable[[], float] = time.monotonic) -> None:
        self._read = read
        self._clock = clock
        self._begun: dict[tuple[str, str], _Begun] = {}

    def forget(self, namespace: str) -> None:
        """Drop the comparisons of an installation whose resource is gone."""
        self._begun = {key: begun for key, begun in self._begun.items() if key[0] != namespace}

    async def trials(self, namespace: str, objects: Mapping[Ref, Live], pods: Iterable[PodFacts]) -> dict[str, Trial]:
        """Return a trial for each canary that is available; look at its pods when it is time to."""
        found = {}
        for name, service in names.CANARIES.items():
            key = (namespace, service)
            live = objects.get(Ref("Deployment", namespace, name))
            if live is None or not isinstance(live.facts, WorkloadFacts) or live.facts.available < 1:
                self._begun.pop(key, None)  # a canary that was not ready for a while begins anew
                continue
            begun = self._begun.get(key)
            now = self._clock()
            ready = [pod for pod in pods if pod.component == service and pod.ready and pod.address]
            if begun is None or (begun.uid, begun.template) != (live.uid, live.template):
                if not any(pod.template == live.template for pod in ready):
                    continue  # its Deployment was heard of first; the pod comes in a moment
                begun = self._begun[key] = _Begun(live.uid, live.template or "", now, now)
                await self._look(begun, ready)
            elif now - begun.looked_s >= LOOK_S * 0.9:
                begun.looked_s = now
                await self._look(begun, ready)
            found[service] = begun.trial()
        return found

    async def _look(self, begun: _Begun, ready: list[PodFacts]) -> None:
        samples = await asyncio.gather(*(self._read(pod.address) for pod in ready))
        for pod, sample in zip(ready, samples, strict=True):
            if sample is None:
                log.warning("traffic_not_read", pod=pod.name)
                continue
            kept = begun.canary if pod.template == begun.template else begun.stable
            before = kept.get(pod.name)
            kept[pod.name] = Counted(before.begin if before is not None else sample, sample)


async def read(address: str) -> Sample | None:
    """Return what the pod at an address has served."""
    host = f"[{address}]" if ":" in address else address
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ANSWER_S)) as session,
            session.get(f"http://{host}:{INTERNAL_PORT}/metrics", allow_redirects=False) as answer,
        ):
            if answer.status != 200:
                return None
            page = b""
            async for chunk in answer.content.iter_chunked(1 << 16):
                page += chunk
                if len(page) > PAGE_BYTES_MAX:
                    return None
        return sample_of(page.decode())
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
        return None


def sample_of(page: str) -> Sample:
    """Return what a page of metrics says of requests. ValueError when it is not such a page."""
    lines = [line for line in page.splitlines() if line.startswith((f"{REQUESTS}{{", f"{SECONDS}{{"))]
    requests: dict[tuple[str, str], list[int]] = {}
    bounds: dict[tuple[str, str], dict[float, int]] = {}
    for family in text_string_to_metric_families("\n".join(lines) + "\n"):
        for sample in family.samples:
            route = (sample.labels.get("method", ""), sample.labels.get("route", ""))
            count = int(sample.value)
            if route[1] in QUIET_ROUTES:
                continue
            if sample.name == REQUESTS:
                served = requests.setdefault(route, [0, 0])
                served[0] += count
                served[1] += count if sample.labels.get("code", "").startswith("5") else 0
            else:
                within = bounds.setdefault(route, {})
                bound = float(sample.labels["le"])
                within[bound] = within.get(bound, 0) + count
    return {
        route: Served(total, errors, tuple(count for _, count in sorted(bounds.get(route, {}).items())))
        for route, (total, errors) in requests.items()
        if total
    }
