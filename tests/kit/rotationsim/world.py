"""Time, the API server's objects with their versions, mounts that come late, and what goes wrong."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from novacore_contracts.keyset import RingDocument, RingKey
from novacore_contracts.services import SERVICES
from novacore_operator.rotation.history import Entry
from novacore_operator.rotation.rings import Half, entry_name
from novacore_operator.rotation.schedule import RingPolicy
from novacore_operator.rotation.timing import PRODUCTION, Timing
from novacore_operator.rotation.triggers import Trigger
from tests.kit.rotationsim.pods import SIGNER, SimPod, Token

RING = "serviceJwt"
START = 1_767_225_600.0  # 2026-01-01


@dataclass
class Faults:
    """How likely what goes wrong, and how late what comes late."""

    lost_push: float = 0.0
    conflict: float = 0.0
    stale_read: float = 0.0
    mount_s: tuple[float, float] = (0.0, 120.0)
    start_s: tuple[float, float] = (2.0, 10.0)
    stale_start_s: float = 2.0  # how old a mount is that a new pod begins with
    restart_s: tuple[float, float] = (5.0, 20.0)  # of a dead operator


class World:
    """Everything but the operator."""

    def __init__(
        self,
        seed: int = 1,
        *,
        replicas: int = 3,
        ttl_s: int = 86_400,
        timing: Timing = PRODUCTION,
        policy: RingPolicy | None = None,
        faults: Faults | None = None,
        guests: int = 6,
    ) -> None:
        self.draw = Random(seed)
        self.now = START
        self.timing = timing
        self.policy = policy or RingPolicy(ttl_max_s=ttl_s)
        self.faults = faults or Faults()
        self.happened: Counter[str] = Counter()
        self.minted: dict[int, set[str]] = {}  # number -> kids, over all time
        self.secrets: dict[str, str] = {}  # kid -> its private half, as bytes that must show up nowhere
        self.triggers: tuple[Trigger, ...] = ()
        self.history: tuple[Entry, ...] = ()
        self.api_down_until = 0.0
        self.outages: list[tuple[float, float]] = []
        self._arrivals: list[tuple[float, int, Callable[[], None]]] = []
        self._serial = 0
        first, second = self._mint(1), self._mint(2)
        halves = {half.name: half for half in (first, second)}
        self.document = RingDocument(
            ring=RING,
            generation=1,
            seq=2,
            issued_at=int(START),
            active_kid=first.kid,
            keys=(
                RingKey(first.kid, 1, "active", int(START) - 10_000_000, {}),
                RingKey(second.kid, 2, "pending", int(START), {}),
            ),
            ttl_max=ttl_s,
        )
        self.stored: RingDocument | None = self.document  # what the object holds: not always the newest document
        self.documents: list[tuple[float, RingDocument]] = [(START, self.document)]
        self.document_version = 1
        self.halves: dict[str, Half] = halves
        self.halves_before: dict[str, Half] = halves
        self.private_version = 1
        self.status_version = 1
        self.pods: list[SimPod] = []
        for service in SERVICES:
            for _ in range(replicas):
                pod = self.spawn(service.name, running=True)
                pod.created_at = START - 1000
                pod.active_since = START - 1000
        self.wanted = len(self.pods)
        for pod in self.pods:
            self.renew(pod)
        self.guests = [token for _ in range(guests) if (token := self.ask_token("guest")) is not None]

    # --- time -----------------------------------------------------------------------------------------------------

    def later(self, after_s: float, what: Callable[[], None]) -> None:
        """Have something happen."""
        self._serial += 1
        heapq.heappush(self._arrivals, (self.now + after_s, self._serial, what))

    def advance(self, dt: float) -> None:
        """Let time pass, and what comes with it happen, each at its time."""
        until = self.now + dt
        while self._arrivals and self._arrivals[0][0] <= until:
            at, _, what = heapq.heappop(self._arrivals)
            self.now = max(self.now, at)
            what()
        self.now = until
        for pod in self.pods:
            if pod.coming:
                pod.hear(self.now)

    def take_api_down(self, duration_s: float) -> None:
        """Nobody reaches the API server for so long: neither the operator nor a kubelet."""
        self.api_down_until = self.now + duration_s
        self.outages.append((self.now, self.api_down_until))

    @property
    def api_up(self) -> bool:
        return self.now >= self.api_down_until

    # --- objects --------------------------------------------------------------------------------------------------

    def _mint(self, n: int, why: str = "") -> Half:
        kid = f"svc-{self.draw.getrandbits(64):016x}"
        self.minted.setdefault(n, set()).add(kid)
        self.secrets[kid] = f"d-{self.draw.getrandbits(64):016x}"
        return Half(f"{entry_name(RING, n)}.jwk", n, kid, {}, self.now, why)

    def put_document(self, document: RingDocument) -> None:
        """Store the keyset, and let the kubelets bring it to the pods."""
        self.document = self.stored = document
        self.document_version += 1
        self.documents.append((self.now, document))
        for pod in self.pods:
            self._mount_document(pod, document)

    def put_back(self, document: RingDocument) -> None:
        """Somebody writes an old, validly signed document over the newest. Pods drop it; only the object changes."""
        self.stored = document
        self.document_version += 1

    def lose_document(self) -> None:
        """Somebody deletes the keyset."""
        self.stored = None
        self.document_version += 1

    def _mount_document(self, pod: SimPod, document: RingDocument) -> None:
        at = self.draw.uniform(*self.faults.mount_s)

        def arrive() -> None:
            stuck = max(pod.mount_stuck_until, pod.frozen_until) - self.now
            if stuck > 0:
                self.later(stuck + 1, arrive)
            elif self.api_up:
                pod.take_in(document, self.now)
            else:
                self.later(self.api_down_until - self.now + self.draw.uniform(0, 60), arrive)

        self.later(at, arrive)

    def put_halves(self, halves: dict[str, Half]) -> None:
        """Store the private Secret, and let the kubelets bring it to the signers."""
        self.halves_before, self.halves = self.halves, halves
        self.private_version += 1
        for pod in self.pods:
            if pod.signs:
                self._mount_halves(pod)

    def _mount_halves(self, pod: SimPod) -> None:
        def arrive() -> None:
            stuck = max(pod.mount_stuck_until, pod.frozen_until) - self.now
            if stuck > 0:
                self.later(stuck + 1, arrive)
            else:
                pod.halves = frozenset(half.kid for half in self.halves.values())

        self.later(self.draw.uniform(*self.faults.mount_s), arrive)

    def mint(self, n: int, why: str) -> None:
        """Add a private entry."""
        half = self._mint(n, why)
        self.put_halves({**self.halves, half.name: half})

    # --- pods -----------------------------------------------------------------------------------------------------

    def spawn(self, service: str, *, running: bool = False) -> SimPod:
        """Make a pod. It serves once it runs, with what was mounted then."""
        self._serial += 1
        pod = SimPod(f"{service}-{self._serial}", f"uid-{self._serial}", service, self.now)
        self.pods.append(pod)
        if running:
            self._start(pod, stale_s=0.0)
        else:
            pod.phase = "Pending"
            stale = self.draw.uniform(0, self.faults.stale_start_s)
            self.later(self.draw.uniform(*self.faults.start_s), lambda: self._start(pod, stale_s=stale))
        return pod

    def _start(self, pod: SimPod, *, stale_s: float) -> None:
        if not self.api_up:  # nothing is mounted without it
            self.later(self.api_down_until - self.now + 1, lambda: self._start(pod, stale_s=stale_s))
            return
        pod.phase = "Running"
        mounted = next(doc for at, doc in reversed(self.documents) if at <= self.now - stale_s or doc.generation == 1)
        pod.take_in(mounted, self.now)
        pod.halves = frozenset(half.kid for half in self.halves.values()) if pod.signs else frozenset()
        if mounted is not self.document:
            self._mount_document(pod, self.document)

    def remove(self, pod: SimPod, *, grace_s: float = 1.0) -> None:
        """Delete a pod; another one is made in its place. It is an endpoint until it is gone."""
        if pod.gone_at is not None:
            return
        pod.gone_at = self.now + grace_s

        def leave() -> None:
            self.pods.remove(pod)
            self.spawn(pod.service)

        self.later(grace_s, leave)

    def roll(self, services: list[str], *, each_s: float = 3.0) -> None:
        """Replace all pods of these services, one after another: first the new one, then the old one goes."""
        for number, pod in enumerate([pod for pod in self.pods if pod.service in services]):
            self.later(number * each_s, lambda pod=pod: self._replace(pod))  # type: ignore[misc]

    def _replace(self, pod: SimPod) -> None:
        if pod.gone_at is not None or pod not in self.pods:
            return
        if not self.api_up:
            self.later(self.api_down_until - self.now + 1, lambda: self._replace(pod))
            return
        new = self.spawn(pod.service)
        new.skew_s = pod.skew_s

        def leave() -> None:
            if new in self.pods and new.phase != "Running":
                self.later(2, leave)
            elif pod in self.pods and pod.gone_at is None:
                pod.gone_at = self.now + 2
                self.later(2, lambda: self.pods.remove(pod))

        self.later(self.faults.start_s[1] + 1, leave)

    # --- tokens ---------------------------------------------------------------------------------------------------

    def signers(self) -> list[SimPod]:
        return [pod for pod in self.pods if pod.service == SIGNER and pod.serves(self.now)]

    def ask_token(self, sub: str, at_least: int = 0) -> Token | None:
        """Return a token of one of the signers, as the Service chooses it: one more is tried when one refuses."""
        found = self.signers()
        self.draw.shuffle(found)
        for signer in found[:2]:
            token = signer.sign(sub, self.now, at_least=at_least)
            self.happened["token_requests"] += 1
            if token is not None:
                return token
        return None

    def renew(self, pod: SimPod) -> bool:
        """Let a caller ask for a token; it keeps the one it has if there is none to be had. A first may be of any."""
        view = pod.view
        asked_before = view is not None and pod.renew_at > 0
        token = self.ask_token(pod.service, view.document.generation if view is not None and asked_before else 0)
        if token is None:
            pod.retry_at = self.now + self.draw.uniform(0.5, 2.0)
            return False
        pod.got(token, self.now, self.draw)
        return True


def with_trigger(world: World, trigger: Trigger) -> None:
    """Annotate the resource: one value for each verb."""
    world.triggers = (*(item for item in world.triggers if item.verb is not trigger.verb), trigger)
