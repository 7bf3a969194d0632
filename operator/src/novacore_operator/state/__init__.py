"""What the operator knows at one instant, as frozen values. No I/O, no clock.

`names` has the fixed object names, `ownership` tells what of an object is ours and whether it is as we left it.
Everything `plan` and `status` decide, they decide from `Nova` (what is wanted) and `Observed` (what is).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn, cast

from novacore_operator.api.spec import Spec

Manifest = dict[str, Any]
"""A finished Kubernetes object, ready to be sent."""

Material = Mapping[str, Mapping[str, bytes]]
"""Secret name -> key -> bytes: every key and password of one installation. Never logged, never in a message."""


WRITTEN: tuple[str, ...] = ("list", "watch", "create", "patch", "delete")
"""Rights to a kind that is watched, applied, and deleted when it is wanted no more."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of object: its address, when it is written, and what the operator may do to it.

    `wave`: place in the order of writes; None: not written by a plan. `verbs`: of the operator's role, over all names;
    none: the kind has rules of its own. `watched`: one label-selected watch in each namespace.
    """

    name: str
    api_version: str
    plural: str
    wave: int | None
    verbs: tuple[str, ...] = WRITTEN
    watched: bool = True
    foreign: bool = False  # somebody else's kind: its definition may be missing, and come or go at any time

    @property
    def group(self) -> str:
        """API group, empty for the core."""
        return self.api_version.rpartition("/")[0]


@dataclass(frozen=True, slots=True, order=True)
class Ref:
    """One object's address."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        """As a person would say it: `Deployment novacore-memory`."""
        return f"{self.kind} {self.name}"


def ref_of(manifest: Manifest) -> Ref:
    """Return the address of a manifest."""
    metadata = manifest["metadata"]
    return Ref(manifest["kind"], metadata["namespace"], metadata["name"])


@dataclass(frozen=True, slots=True)
class WorkloadFacts:
    """Roll-out state of a Deployment or StatefulSet."""

    replicas: int
    observed_generation: int
    total: int
    updated: int
    available: int
    stalled: str = ""  # message of condition Progressing=False, or of ReplicaFailure
    overdue: bool = False  # the Deployment's progressDeadlineSeconds are over
    phase: str = ""  # what the operator that runs it says while it is not as wanted
    storage: str = ""  # size in the volume claim template
    ordered: bool = False  # podManagementPolicy OrderedReady


@dataclass(frozen=True, slots=True)
class JobFacts:
    """Outcome of a Job."""

    complete: bool
    failed: bool
    message: str = ""


@dataclass(frozen=True, slots=True)
class ClaimFacts:
    """A volume claim."""

    requested: str
    bound: bool
    capacity: str = ""  # what there is of it
    pending: str = ""  # why it has not grown yet, in the words of whoever makes it grow


@dataclass(frozen=True, slots=True)
class PodFacts:
    """Why a pod does not run. `trouble` is the kubelet's word (ImagePullBackOff, …), empty when there is none."""

    component: str
    ready: bool
    trouble: str
    message: str
    name: str = ""
    template: str = ""  # digest of the pod template it was made from
    restarts: int = 0
    address: str = ""  # inside the cluster


@dataclass(frozen=True, slots=True)
class ReleaseFacts:
    """A stored release: a ControllerRevision of ours. As text, a sixth of what its values take."""

    number: int
    at: str  # RFC 3339
    text: str  # JSON of `spec` and `templates` (workload -> digest of the pod template it had)

    @classmethod
    def of(cls, number: int, at: str, data: Mapping[str, Any]) -> ReleaseFacts:
        """Return the facts of a ControllerRevision's `data`."""
        kept = {"spec": data.get("spec") or {}, "templates": data.get("templates") or {}}
        return cls(number, at, json.dumps(kept, sort_keys=True, separators=(",", ":")))

    @property
    def spec(self) -> Mapping[str, Any]:
        """Return the spec as users write it."""
        return cast("Mapping[str, Any]", json.loads(self.text)["spec"])

    @property
    def templates(self) -> Mapping[str, str]:
        """Return the digest of each workload's pod template."""
        return cast("Mapping[str, str]", json.loads(self.text)["templates"])


Facts = WorkloadFacts | JobFacts | ClaimFacts | PodFacts | ReleaseFacts


@dataclass(frozen=True, slots=True)
class Live:
    """One object in the cluster, without its body.

    `desired` is the fingerprint we wrote into the annotation; `owned` is the fingerprint of the values that we still
    own (state.ownership). Both equal to those of the manifest = nothing to write.
    """

    ref: Ref
    uid: str
    version: int
    generation: int
    owner: str | None  # uid of the controller
    desired: str | None
    owned: str
    template: str | None = None
    deleting: bool = False
    facts: Facts | None = None
    proven: str = field(default="", init=False, compare=False, repr=False)
    """A memo, no fact: the hash of the manifest whose fingerprint was found to be `owned`."""

    def prove(self, hashed: str) -> None:
        """Remember that `owned` is the fingerprint of the manifest with this hash: it is dear to compute."""
        object.__setattr__(self, "proven", self.desired if self.desired == hashed else hashed)  # no second string


@dataclass(frozen=True, slots=True)
class Served:
    """What a pod has served on one route since its process began."""

    requests: int = 0
    errors: int = 0  # answered with 5xx
    within: tuple[int, ...] = ()  # answered within each bound of the histogram, ascending; the last one: all


Sample = Mapping[tuple[str, str], Served]
"""By method and route. Probes and the like are left out."""


@dataclass(frozen=True, slots=True)
class Counted:
    """Two samples of one pod."""

    begin: Sample
    now: Sample


@dataclass(frozen=True, slots=True)
class Trial:
    """What a canary and the pods beside it have served since it was ready, or since the operator began to look."""

    template: str  # digest of the canary's pod template
    elapsed_s: float
    canary: tuple[Counted, ...] = ()  # empty: its metrics could not be read
    stable: tuple[Counted, ...] = ()


class Sealed:
    """Secret bytes on their way. Raises where a log line or a truth test would take them for text."""

    __slots__ = ("_data",)

    def __init__(self, data: Mapping[str, bytes]) -> None:
        self._data = data  # nobody changes it: it is not copied

    def reveal(self) -> Mapping[str, bytes]:
        """Return the bytes, by key."""
        return self._data

    def __repr__(self) -> str:
        """Names of the keys only."""
        return f"Sealed({', '.join(sorted(self._data))})"

    def __str__(self) -> NoReturn:
        """Refuse."""
        raise TypeError("a sealed secret is not text: use reveal()")

    def __bool__(self) -> NoReturn:
        """Refuse."""
        raise TypeError("a sealed secret is neither true nor false: test for None")


@dataclass(frozen=True, slots=True)
class Nova:
    """One NovaCoreDeployment."""

    name: str
    namespace: str
    uid: str
    generation: int
    created: str  # RFC 3339, orders resources of one namespace
    version: int  # resourceVersion
    spec: Spec
    status: dict[str, Any] = field(default_factory=dict)
    asked: Mapping[str, str] = field(default_factory=dict)  # annotations by which a person asks for a rotation
    askers: Mapping[str, str] = field(default_factory=dict)  # annotation -> field manager who wrote it

    @property
    def key(self) -> tuple[str, str]:
        """Queue key."""
        return (self.namespace, self.name)


@dataclass(frozen=True, slots=True)
class Referenced:
    """A Secret that the user named in the spec. `data` is None when it is missing or may not be read."""

    name: str
    data: Sealed | None
    forbidden: bool = False


@dataclass(frozen=True, slots=True)
class Observed:
    """The cluster as far as one installation is concerned."""

    objects: Mapping[Ref, Live]
    pods: tuple[PodFacts, ...] = ()
    siblings: tuple[tuple[str, str], ...] = ()  # (created, name) of the namespace's other NovaCoreDeployments
    referenced: Mapping[str, Referenced] = field(default_factory=dict)
    operator_namespace: str = "novacore-system"
    normal: Mapping[Ref, tuple[str, str]] = field(default_factory=dict)
    """Objects whose values the API server rewrites: the hash we wrote, and the fingerprint it led to."""
    trials: Mapping[str, Trial] = field(default_factory=dict)  # by service: its canary is ready
    unserved: frozenset[str] = frozenset()  # foreign kinds that the API server does not know
    foreign: Mapping[str, Sealed] = field(default_factory=dict, repr=False)
    """Secret name -> entries that somebody else owns, of Secrets that memory does not know (OBS-3)."""

    def get(self, kind: str, namespace: str, name: str) -> Live | None:
        """Return one object, or None."""
        return self.objects.get(Ref(kind, namespace, name))


@dataclass(frozen=True, slots=True)
class PostgresAdmin:
    """How Postgres is reached by the one who may make roles."""

    host: str
    port: int
    user: str
    password: str = field(repr=False)
    database: str
    ca: str | None = None  # PEM of a foreign CA; None: the installation's own


@dataclass(frozen=True, slots=True)
class RedisLogin:
    """How a Redis that is not ours is reached."""

    host: str
    port: int
    user: str
    password: str = field(repr=False)
    ca: str
