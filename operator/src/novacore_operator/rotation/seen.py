"""What the operator knows of one ring at one instant, and what it remembers between two looks. Frozen values.

`Seen` is read anew for each `machine.plan`: pods are listed live, and asked, in the same instant. `Memory` holds only
what may be lost: with an empty one a rotation takes longer, never a wrong turn.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any

from novacore_contracts.keyset import RingDocument
from novacore_operator.rotation.history import Entry
from novacore_operator.rotation.rings import Half
from novacore_operator.rotation.schedule import RingPolicy
from novacore_operator.rotation.timing import Timing
from novacore_operator.rotation.triggers import Trigger

SIGNER = "auth-billing"
PASSED = "ok"
"""Answer to a canary that was accepted; every other answer is the code of the 401."""

KID_REVOKED = "kid_revoked"
OPERATOR = "operator"
"""Who signed a canary of a revoked key."""

NOTHING: Mapping[Any, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Report:
    """One pod's claims about one ring, from its `/readyz`. `skew_s`: its clock less ours, amid the request."""

    generation: int
    active_kid: str
    kids: frozenset[str]
    last_ok: Mapping[str, float] = field(default_factory=lambda: NOTHING)
    token_kid: str | None = None
    skew_s: float = 0.0
    signer_kids: frozenset[str] = frozenset()  # private halves it holds
    active_since: float | None = None  # a signer's: when it took in that `active_kid` is the active one


@dataclass(frozen=True, slots=True)
class Pod:
    """One pod of a consumer, from the live list, and its answer of this instant (None: it gave none)."""

    name: str
    uid: str
    service: str
    phase: str = "Running"
    terminating: bool = False
    endpoint: bool = True  # it is Ready, and requests are sent to it
    fenced: bool = False  # we took it out of its Service
    created_at: float = 0.0
    report: Report | None = None

    @property
    def signs(self) -> bool:
        """Whether it hands out tokens."""
        return self.service == SIGNER


Canaries = Mapping[tuple[str, str], str]
"""(uid of who signed it, uid of who was asked) -> answer."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """A complete proof of one key, as it was at one instant."""

    kid: str
    passed: int
    total: int
    sha256: str
    at: float


@dataclass(frozen=True, slots=True)
class Memory:
    """What one operator process remembers of a ring."""

    peak: int = 0  # highest generation of a document that was signed by our root key
    kept: RingDocument | None = None  # last good document
    evidence: Mapping[str, Evidence] = field(default_factory=lambda: NOTHING)  # kid -> its last complete proof
    proven: tuple[str, float] | None = None  # kid, and since when every look has found it proven
    missing: Mapping[str, float] = field(default_factory=lambda: NOTHING)  # pod uid -> since when it lacks a proof
    asked: Mapping[str, float] = field(default_factory=lambda: NOTHING)  # mark of a trigger -> when it was first seen


@dataclass(frozen=True)
class Seen:
    """Everything `plan` decides from. A version is that of the object the value was read from; writes rest on it."""

    ring: str
    uid: str  # of the resource
    policy: RingPolicy
    timing: Timing
    document: RingDocument | None  # None: missing, or no root key of ours signed it
    document_version: str
    halves: tuple[Half, ...]
    private_version: str
    pods: tuple[Pod, ...]
    live: bool = False  # document and private Secret were read from the API server for this look, not from a cache
    expected_pods: int = 0  # replicas wanted of all consumers; 0: not known
    canaries: Mapping[str, Canaries] = field(default_factory=lambda: NOTHING)  # kid -> answers; no kid: not asked
    triggers: tuple[Trigger, ...] = ()
    history: tuple[Entry, ...] = ()
    status_version: str = ""  # of the resource, whose status holds the history
    memory: Memory = Memory()
    restorable: frozenset[str] = frozenset()  # kids whose private half the operator still holds
    rescued: tuple[RingDocument, ...] | None = None  # validly signed documents that pods returned; None: not asked
    busy_ring: str = ""  # another ring that is in the middle of something: nothing is begun here meanwhile

    @property
    def good(self) -> RingDocument:
        """The document, where the caller knows that there is one."""
        assert self.document is not None
        return self.document

    def half(self, kid: str) -> Half | None:
        """Return the private entry of a key."""
        return next((half for half in self.halves if half.kid == kid), None)

    @cached_property
    def consumers(self) -> tuple[Pod, ...]:
        """The pods that count: all but finished ones, those we fenced, and those that left their Service."""
        return tuple(
            pod
            for pod in self.pods
            if pod.phase not in ("Succeeded", "Failed") and not pod.fenced and (pod.endpoint or not pod.terminating)
        )

    def serving(self, since: float) -> tuple[Pod, ...]:
        """Return the consumers that take requests, or may do so again with what they held at `since`.

        A younger pod that is not Ready yet mounts a newer document before it is.
        """
        return tuple(
            pod for pod in self.consumers if pod.phase != "Pending" and (pod.endpoint or pod.created_at < since)
        )

    @cached_property
    def signers(self) -> tuple[Pod, ...]:
        """Those of the consumers that sign."""
        return tuple(pod for pod in self.consumers if pod.signs)

    @cached_property
    def switched_at(self) -> float | None:
        """t0, by our clock: when the last signer took in who signs now. None while one has not, or there is none."""
        times: list[float] = []
        for pod in self.signers:
            report = pod.report
            if report is None or report.active_kid != self.good.active_kid or report.active_since is None:
                return None
            times.append(report.active_since - report.skew_s)
        return max((self.good.active.since, *times)) if times else None


def generations(pods: Iterable[Pod]) -> int:
    """Return the highest generation that any pod claims, 0 if none answers."""
    return max((pod.report.generation for pod in pods if pod.report is not None), default=0)
