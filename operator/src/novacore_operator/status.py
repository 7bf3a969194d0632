"""What is true: `compute(...)` returns the status of one resource. Pure.

Invariants:
STATUS-1 Ready=True only for this generation, with nothing left to write, every component at its desired revision and
available, the migration of this release done, every Secret in place.
STATUS-2 the result depends on nothing but the arguments: the same situation gives the same status, and no write.
STATUS-3 `lastTransitionTime` moves only when a condition's status does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from novacore_contracts.services import SERVICES
from novacore_operator.build.common import amount, canonical
from novacore_operator.build.persistent_volume_claim import claim_name, claimed
from novacore_operator.build.scale import pods_wanted
from novacore_operator.policies import Finding
from novacore_operator.reasons import Reason
from novacore_operator.state import (
    ClaimFacts,
    JobFacts,
    Manifest,
    Nova,
    Observed,
    PodFacts,
    Ref,
    WorkloadFacts,
    names,
    stores,
)
from novacore_operator.state.names import ANNOTATION_DESIRED, ANNOTATION_TEMPLATE

MESSAGE_CHARS = 1000
HISTORY_KEPT = 10
PODS_TROUBLE: Mapping[str, Reason] = {
    "ErrImagePull": Reason.IMAGE_PULL_FAILED,
    "ImagePullBackOff": Reason.IMAGE_PULL_FAILED,
    "ErrImageNeverPull": Reason.IMAGE_PULL_FAILED,
    "InvalidImageName": Reason.IMAGE_PULL_FAILED,
    "CrashLoopBackOff": Reason.CRASH_LOOPING,
    "CreateContainerConfigError": Reason.CRASH_LOOPING,
    "CreateContainerError": Reason.CRASH_LOOPING,
    "RunContainerError": Reason.CRASH_LOOPING,
    "Unschedulable": Reason.UNSCHEDULABLE,
}


@dataclass(frozen=True, slots=True)
class RingsView:
    """What is told of the rings of keys. Empty sentences: nothing holds a rotation up, no emergency is open."""

    rings: Mapping[str, Any]  # status.rings
    blocked: str = ""
    incomplete: str = ""


@dataclass(frozen=True, slots=True)
class View:
    """What `compute` looks at beside the observation: the plan's outcome in the words of the state layer."""

    wanted: Mapping[Ref, Manifest] = field(default_factory=dict, repr=False)
    pending: frozenset[Ref] = frozenset()  # still to be written, held back ones included
    held: Mapping[Ref, Finding] = field(default_factory=dict)
    job: Ref | None = None
    blocked: Finding | None = None  # what the spec asks for is not done, and why
    failed: Finding | None = None  # a write was refused
    returned: Finding | None = None  # what the spec asks for was taken back, and why
    attempt: str = ""  # digest of what was taken back
    last_good: int | None = None  # number of the newest stored release
    target: str | None = None  # release the spec asks for, where another one is in force
    planned: Mapping[str, Any] | None = None  # status.plan, in mode Plan
    conflicts: tuple[str, ...] = ()  # fields left to another manager, as sentences
    rings: RingsView | None = None  # None: nobody has looked at the keys yet


@dataclass(frozen=True, slots=True)
class _Part:
    name: str
    ready: bool
    desired: int
    updated: int
    available: int
    revision: str
    image: str
    reason: Reason
    message: str

    def as_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "ready": self.ready,
            "desired": self.desired,
            "updated": self.updated,
            "available": self.available,
            "revision": self.revision,
            "image": self.image,
            "reason": self.reason.value,
            "message": self.message[:MESSAGE_CHARS],
        }


Verdict = tuple[str, Reason, str]
"""Condition status, reason, message."""


def compute(nova: Nova, seen: Observed, view: View, *, now: datetime) -> dict[str, Any]:
    """Return the whole status, as it is to stand in `/status`."""
    parts = _parts(nova, seen, view)
    services = [part for part in parts if part.name not in stores.STORES]
    verdicts: dict[str, Verdict] = {
        "SecretsReady": _secrets(view),
        "DataStoresReady": _stores(parts, view),
        "MigrationsApplied": _migrations(seen, view),
        "Progressing": _progressing(nova, seen, parts, view),
        "Degraded": _degraded(nova, parts),
        "RolledBack": _rolled_back(view),
        "FieldConflict": _field_conflict(view),
        "RotationBlocked": _rotation_blocked(nova, view),
        "EmergencyIncomplete": _emergency_incomplete(nova, view),
        "Paused": _paused(nova),
    }
    verdicts = {"Ready": _ready(parts, verdicts, view, _growing(nova, seen, view)), **verdicts}
    status: dict[str, Any] = {
        "observedGeneration": nova.generation,
        "conditions": [_condition(nova, kind, verdict, now) for kind, verdict in verdicts.items()],
        "release": _release(nova, verdicts, view, now),
    }
    # Always there: the API server fills it in, and what differs from what is stored is written again.
    status["rings"] = dict(view.rings.rings if view.rings is not None else nova.status.get("rings") or {})
    history = _history(nova, verdicts, view, now)
    if history:
        status["history"] = history
    if view.planned is not None:
        status["plan"] = dict(view.planned)
    if parts:  # a blocked resource says nothing about components: nobody looked
        status["services"] = f"{sum(part.ready for part in services)}/{len(services)}"
        status["components"] = [part.as_dict() for part in parts]
    return status


def condition_of(status: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    """Return one condition of a status, empty if it has none."""
    return next((item for item in status.get("conditions", ()) if item.get("type") == kind), {})


def _condition(nova: Nova, kind: str, verdict: Verdict, now: datetime) -> dict[str, Any]:
    before = condition_of(nova.status, kind)
    same = before.get("status") == verdict[0] and "lastTransitionTime" in before
    return {
        "type": kind,
        "status": verdict[0],
        "reason": verdict[1].value,
        "message": verdict[2][:MESSAGE_CHARS],
        "lastTransitionTime": before["lastTransitionTime"] if same else _stamp(now),
        "observedGeneration": nova.generation,
    }


def _release(nova: Nova, verdicts: Mapping[str, Verdict], view: View, now: datetime) -> dict[str, Any]:
    before = nova.status.get("release", {})
    release: dict[str, Any] = {"target": view.target or nova.spec.version}
    current = nova.spec.version if verdicts["Ready"][0] == "True" else before.get("current")
    if current:
        release["current"] = current
    if view.last_good is not None:
        release["lastGood"] = view.last_good
    if view.returned is not None:
        release["takenBack"] = view.attempt
    waited = condition_of(nova.status, "Progressing").get("reason") == Reason.MAINTENANCE_WAIT
    begins = waited and verdicts["Progressing"][1] is not Reason.MAINTENANCE_WAIT
    same = nova.status.get("observedGeneration") == nova.generation and not begins
    release["since"] = before["since"] if same and "since" in before else _stamp(now)
    return release


def _history(nova: Nova, verdicts: Mapping[str, Verdict], view: View, now: datetime) -> list[dict[str, Any]]:
    """Return the last generations' ends, newest first. A generation that brings no other release adds none."""
    before = list(nova.status.get("history") or ())
    entry: dict[str, Any] = {
        "generation": nova.generation,
        "version": view.target or nova.spec.version,
        "at": _stamp(now),
    }
    if view.last_good is not None:
        entry["revision"] = view.last_good
    if view.returned is not None:
        entry |= {"outcome": "RolledBack", "reason": view.returned.reason.value}
        entry["message"] = view.returned.message[:MESSAGE_CHARS]
        known = before[:1] != [] and before[0].get("message") == entry["message"]
    elif verdicts["Ready"][0] == "True" and view.last_good is not None:
        entry |= {"outcome": "Succeeded", "reason": Reason.READY.value}
        last: dict[str, Any] = next((old for old in before if old["outcome"] == "Succeeded"), {})
        known = last.get("revision") == view.last_good
    else:
        known = True
    return before if known else [entry, *before][:HISTORY_KEPT]


def _stamp(now: datetime) -> str:
    return now.strftime("%Y-%m-%dT%H:%M:%SZ")


# --- components -------------------------------------------------------------------------------------------------------


def _parts(nova: Nova, seen: Observed, view: View) -> list[_Part]:
    parts = []
    for ref, manifest in view.wanted.items():
        if ref.kind in ("Deployment", "StatefulSet", stores.CLUSTER_KIND) and ref.name not in names.CANARIES:
            parts.append(_part(nova, ref, manifest, seen, view))
    if view.wanted:
        parts += [_external(store, seen, view) for store in stores.run_elsewhere(nova.spec)]
    order = {name: n for n, name in enumerate((*stores.STORES, *(service.name for service in SERVICES)))}
    return sorted(parts, key=lambda part: order[part.name])


def _part(nova: Nova, ref: Ref, manifest: Manifest, seen: Observed, view: View) -> _Part:
    name = ref.name.removeprefix("novacore-")
    live = seen.objects.get(ref)
    facts = live.facts if live is not None and isinstance(live.facts, WorkloadFacts) else WorkloadFacts(0, 0, 0, 0, 0)
    desired = pods_wanted(manifest, facts)
    current = live is not None and ref not in view.pending and facts.observed_generation >= live.generation
    updated = facts.updated if current else 0
    available = facts.available
    ready = current and updated == facts.total == facts.replicas == desired and available >= desired
    reason, message = (Reason.READY, "") if ready else _why_not(name, ref, facts, seen, view)
    if reason is Reason.COMPONENT_UNAVAILABLE and not nova.status.get("release", {}).get("current"):
        reason = Reason.INSTALLING  # it has never been available: nothing is wrong yet
    annotations = manifest["metadata"]["annotations"]
    return _Part(
        name=name,
        ready=ready,
        desired=desired,
        updated=updated,
        available=available,
        revision=annotations.get(ANNOTATION_TEMPLATE, annotations[ANNOTATION_DESIRED]),
        image=_image(manifest["spec"]),
        reason=reason,
        message=message,
    )


def _image(spec: Mapping[str, Any]) -> str:
    if "template" not in spec:
        return str(spec.get("imageName", "CloudNativePG's default"))
    return str(spec["template"]["spec"]["containers"][0]["image"])


def _why_not(name: str, ref: Ref, facts: WorkloadFacts, seen: Observed, view: View) -> tuple[Reason, str]:
    """Return the most telling cause: a gate, then what the kubelet says, then what the controller says."""
    held = view.held.get(ref)
    if ref not in seen.objects:
        return Reason.INSTALLING, held.message if held is not None else "is being created"
    pod = _troubled(name, seen.pods)
    if pod is not None:
        return PODS_TROUBLE[pod.trouble], f"{pod.trouble}: {pod.message}"
    said = _controller_says(facts)
    if said is not None:
        return said
    if held is not None:
        return held.reason, held.message
    return _pods_say(facts, pending=ref in view.pending)


def _pods_say(facts: WorkloadFacts, *, pending: bool) -> tuple[Reason, str]:
    """Return what the numbers of pods say of a workload that is not as wanted."""
    if facts.updated < facts.replicas or facts.total > facts.updated or pending:
        return Reason.ROLLING_OUT, f"{facts.updated} of {facts.replicas} pods are of the new revision"
    if facts.available < facts.replicas:
        return Reason.COMPONENT_UNAVAILABLE, f"{facts.available} of {facts.replicas} pods are available"
    return Reason.ROLLING_OUT, "its controller has not looked at the last change yet"


def _controller_says(facts: WorkloadFacts) -> tuple[Reason, str] | None:
    if facts.phase:
        return Reason.DATA_STORES_STARTING, f"CloudNativePG: {facts.phase}"
    if facts.stalled:
        refused = facts.stalled.startswith("FailedCreate")
        return (Reason.POD_REJECTED if refused else Reason.PROGRESS_DEADLINE_EXCEEDED), facts.stalled
    return None


def _troubled(component: str, pods: tuple[PodFacts, ...]) -> PodFacts | None:
    return next((pod for pod in pods if pod.component == component and pod.trouble in PODS_TROUBLE), None)


def _external(store: str, seen: Observed, view: View) -> _Part:
    """A store that is not ours answers when the migration of this release has used it."""
    facts = _job(seen, view)
    return _Part(
        name=store,
        ready=facts.complete,
        desired=0,
        updated=0,
        available=0,
        revision="external",
        image="external",
        reason=Reason.READY if facts.complete else Reason.DATA_STORES_STARTING,
        message="" if facts.complete else "external: proven by the migration, which has not ended yet",
    )


def _job(seen: Observed, view: View) -> JobFacts:
    live = seen.objects.get(view.job) if view.job is not None else None
    return live.facts if live is not None and isinstance(live.facts, JobFacts) else JobFacts(False, False)


# --- conditions -------------------------------------------------------------------------------------------------------


def _secrets(view: View) -> Verdict:
    missing = sorted(ref.name for ref in view.pending if ref.kind == "Secret")
    if not view.wanted:
        return "Unknown", Reason.SECRETS_PENDING, "nothing has been made"
    if missing:
        return "False", Reason.SECRETS_PENDING, f"to be written: {', '.join(missing)}"
    return "True", Reason.SECRETS_READY, "all keys and passwords are in place"


def _stores(parts: list[_Part], view: View) -> Verdict:
    if not view.wanted:
        return "Unknown", Reason.DATA_STORES_STARTING, "nothing has been made"
    late = [part for part in parts if part.name in stores.STORES and not part.ready]
    if late:
        return "False", Reason.DATA_STORES_STARTING, "; ".join(f"{part.name}: {part.message}" for part in late)
    return "True", Reason.DATA_STORES_READY, "Postgres and Redis answer"


def _migrations(seen: Observed, view: View) -> Verdict:
    if view.job is None:
        return "Unknown", Reason.MIGRATION_PENDING, "nothing has been made"
    facts = _job(seen, view)
    if facts.complete:
        return "True", Reason.MIGRATIONS_APPLIED, f"Job {view.job.name} has ended well"
    if facts.failed:
        return (
            "False",
            Reason.MIGRATION_FAILED,
            f"Job {view.job.name} failed ({facts.message}): see `kubectl logs job/{view.job.name}`, mend it, "
            "then delete the Job",
        )
    if view.job in seen.objects:
        pod = _troubled("migrate", seen.pods)
        trouble = f": {pod.trouble}: {pod.message}" if pod is not None else ""
        return "False", Reason.MIGRATION_RUNNING, f"Job {view.job.name} runs{trouble}"
    held = view.held.get(view.job)
    return "False", Reason.MIGRATION_PENDING, held.message if held is not None else "the Job is being created"


def _growing(nova: Nova, seen: Observed, view: View) -> str:
    """Return which volume is not as large as the spec asks, and what is said of it; empty when none is."""
    if not view.wanted:
        return ""
    for store, size in claimed(nova.spec).items():
        live = seen.get("PersistentVolumeClaim", nova.namespace, claim_name(store))
        if live is None or not isinstance(live.facts, ClaimFacts) or not live.facts.bound or not live.facts.capacity:
            continue
        if amount(live.facts.capacity) < amount(canonical(size)):
            said = f" ({live.facts.pending})" if live.facts.pending else ""
            return f"{live.ref} has {live.facts.capacity} of the {canonical(size)} asked for{said}"
    return ""


def _progressing(nova: Nova, seen: Observed, parts: list[_Part], view: View) -> Verdict:
    if view.blocked is not None:
        return "False", view.blocked.reason, view.blocked.message
    busy = [part for part in parts if not part.ready]
    waiting = ", ".join(part.name for part in busy) or f"{len(view.pending)} objects to write"
    under_way = bool(busy or view.pending)
    if view.returned is not None and not under_way:
        return "False", Reason.ROLLED_BACK, f"release {view.last_good} runs again"
    if view.returned is not None:
        return "True", Reason.ROLLING_BACK, f"back to release {view.last_good}: {waiting}"
    stalled = next((part for part in parts if part.reason is Reason.PROGRESS_DEADLINE_EXCEEDED), None)
    if stalled is not None:
        return "False", Reason.PROGRESS_DEADLINE_EXCEEDED, f"{stalled.name}: {stalled.message}"
    if not under_way:
        growing = _growing(nova, seen, view)
        done = "False", Reason.COMPLETE, f"generation {nova.generation} is carried out"
        return ("True", Reason.VOLUME_GROWING, growing) if growing else done
    return "True", *_step(nova, parts, waiting)


def _step(nova: Nova, parts: list[_Part], waiting: str) -> tuple[Reason, str]:
    """Return what a roll-out is at."""
    if not nova.status.get("release", {}).get("current"):
        return Reason.INSTALLING, f"{sum(part.ready for part in parts)} of {len(parts)} components are ready"
    canaries = [part.message for part in parts if part.reason is Reason.CANARY_RUNNING]
    return (Reason.CANARY_RUNNING, "; ".join(canaries)) if canaries else (Reason.ROLLING_OUT, waiting)


def _degraded(nova: Nova, parts: list[_Part]) -> Verdict:
    """Whether what once ran has less than it should: for alerts, also while a roll-out is under way."""
    short = [part for part in parts if part.available < part.desired]
    if not short:
        return "False", Reason.CAPACITY_FULL, "every component has the pods it should have"
    if not nova.status.get("release", {}).get("current"):
        return "False", Reason.INSTALLING, "it has not been wholly ready yet"
    lacks = "; ".join(f"{part.name} {part.available}/{part.desired}" for part in short)
    return "True", short[0].reason, f"fewer pods than wanted are available: {lacks}"


def _rolled_back(view: View) -> Verdict:
    if view.returned is None:
        return "False", Reason.NOT_ROLLED_BACK, "this generation has not been taken back"
    return "True", view.returned.reason, view.returned.message


def _field_conflict(view: View) -> Verdict:
    if not view.conflicts:
        return "False", Reason.NO_CONFLICT, "nobody else insists on a field of ours"
    return "True", Reason.FIELD_CONFLICT, "; ".join(view.conflicts)


def _rotation_blocked(nova: Nova, view: View) -> Verdict:
    if view.rings is None:
        return _as_before(nova, "RotationBlocked") or ("False", Reason.NOT_BLOCKED, NOT_BLOCKED)
    if not view.rings.blocked:
        return "False", Reason.NOT_BLOCKED, NOT_BLOCKED
    return "True", Reason.ROTATION_BLOCKED, view.rings.blocked


def _emergency_incomplete(nova: Nova, view: View) -> Verdict:
    if view.rings is None:
        return _as_before(nova, "EmergencyIncomplete") or ("False", Reason.NO_EMERGENCY, NO_EMERGENCY)
    if not view.rings.incomplete:
        return "False", Reason.NO_EMERGENCY, NO_EMERGENCY
    return "True", Reason.EMERGENCY_INCOMPLETE, view.rings.incomplete


NOT_BLOCKED = "no pod holds a rotation up"
NO_EMERGENCY = "no pod accepts a revoked key"


def _as_before(nova: Nova, kind: str) -> Verdict | None:
    """Return what a condition said, until somebody has looked again: a restarted operator takes nothing back."""
    before = condition_of(nova.status, kind)
    try:
        return (before["status"], Reason(before["reason"]), before["message"]) if before else None
    except ValueError:
        return None


def _paused(nova: Nova) -> Verdict:
    if nova.spec.paused:
        return "True", Reason.PAUSED, "spec.paused is true: nothing is changed or repaired"
    return "False", Reason.NOT_PAUSED, "the operator keeps the installation as the spec says"


def _ready(parts: list[_Part], verdicts: Mapping[str, Verdict], view: View, growing: str) -> Verdict:
    overruled = _overruled(view)
    if overruled is not None:
        return overruled
    for kind in ("SecretsReady", "DataStoresReady", "MigrationsApplied"):
        status, reason, message = verdicts[kind]
        if status != "True":
            return "False", _store_cause(parts, reason) if kind == "DataStoresReady" else reason, message
    bad = [part for part in parts if not part.ready]
    if bad:
        worst = next((part for part in bad if part.reason in PODS_TROUBLE.values()), bad[0])
        more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
        return "False", worst.reason, f"{worst.name}: {worst.message}{more}. {worst.reason.remedy}"
    if view.pending:
        first = ", ".join(sorted(str(ref) for ref in view.pending)[:5])
        return "False", Reason.ROLLING_OUT, f"to be written: {first}"
    if growing:
        return "False", Reason.VOLUME_GROWING, growing
    return "True", Reason.READY, f"all {len(parts)} components run at their desired revision"


def _overruled(view: View) -> Verdict | None:
    """Return why this generation is not what runs, however well that may run."""
    if view.blocked is not None:
        return "False", view.blocked.reason, view.blocked.message
    if view.returned is not None:
        return (
            "False",
            Reason.ROLLED_BACK,
            f"{view.returned.message}. Release {view.last_good} is in force: mend the spec",
        )
    if view.failed is not None:
        return "False", view.failed.reason, view.failed.message
    if view.conflicts:
        return "False", Reason.FIELD_CONFLICT, "; ".join(view.conflicts)
    return None


def _store_cause(parts: list[_Part], otherwise: Reason) -> Reason:
    """Return the cause of a store's trouble where the kubelet names one: more telling than `DataStoresStarting`."""
    causes = [part.reason for part in parts if part.name in stores.STORES and not part.ready]
    return next((cause for cause in causes if cause in PODS_TROUBLE.values()), otherwise)
