"""Which release is in force: the one the spec asks for, or the last good one. Pure.

A *release* is what a spec says an installation is; how and when it is brought about (`mode`, `paused`, `rollout`,
`maintenance`, `secrets`) is not part of it. One that was wholly Ready is kept as a ControllerRevision.

Invariants:
REL-1 a release is stored only after the installation was Ready with it, and the same release is never stored twice in
a row.
REL-2 a roll-out is taken back only to a stored release, once, and the decision stands in the status before anything is
written for it: a restarted operator goes on with the way back, and only another attempt begins anew.
REL-3 only a release other than the last good one is taken back: what was once wholly Ready is repaired in place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

from pydantic import ValidationError

from novacore_operator.api.spec import Spec
from novacore_operator.build.common import labels, manifest
from novacore_operator.build.release import CONTROLLER_REVISION
from novacore_operator.plan import Action, Plan, Verb, Why, difference, replaces_pods
from novacore_operator.policies import Finding, first, maintenance
from novacore_operator.policies.admission import MAY_ACT
from novacore_operator.reasons import Reason
from novacore_operator.state import (
    JobFacts,
    Manifest,
    Nova,
    Observed,
    Ref,
    ReleaseFacts,
    WorkloadFacts,
    names,
)
from novacore_operator.state.names import ANNOTATION_DESIRED, ANNOTATION_TEMPLATE, LABEL_COMPONENT
from novacore_operator.state.ownership import desired_hash, digest
from novacore_operator.status import condition_of

KEPT = 10
NEVER_S = 1e9
"""Pause before a window that never opens."""
CRASHES = 2
"""Restarts of one container after which a new revision counts as crash-looping."""
CANARY_FAILED = frozenset({Reason.CANARY_WORSE, Reason.CANARY_UNREAD})
HOW = frozenset({"mode", "paused", "rollout", "maintenance", "secrets"})
"""Fields of the spec that are not part of a release."""
WHEN = frozenset({"mode", "paused", "maintenance", "secrets"})
"""Fields whose change is no new attempt: who pauses a resource does not ask for the failed release again."""


@dataclass(frozen=True, slots=True)
class Release:
    """A stored release."""

    number: int
    ref: Ref
    uid: str
    at: str
    spec: Spec
    templates: Mapping[str, str]

    @property
    def content(self) -> str:
        """Digest of what it says."""
        return content(self.spec)


def content(spec: Spec) -> str:
    """Return the digest of what a spec says an installation is."""
    return digest({key: value for key, value in plain(spec).items() if key not in HOW})


def attempt(spec: Spec) -> str:
    """Return the digest of what is tried: a release, and how it is rolled out."""
    return digest({key: value for key, value in plain(spec).items() if key not in WHEN})


def plain(spec: Spec) -> dict[str, Any]:
    """Return a spec as users write it."""
    return spec.model_dump(mode="json", by_alias=True, exclude_none=True)


def stored(nova: Nova, seen: Observed) -> list[Release]:
    """Return the stored releases, newest first. One that this operator cannot read any more is left out."""
    found = []
    for ref, live in seen.objects.items():
        # Without an owner: somebody took the reference away, and `repairs` puts it back.
        if not isinstance(live.facts, ReleaseFacts) or live.owner not in (nova.uid, None) or live.deleting:
            continue
        spec = _readable(live.facts)
        if spec is not None:
            found.append(Release(live.facts.number, ref, live.uid, live.facts.at, spec, live.facts.templates))
    return sorted(found, key=lambda release: release.number, reverse=True)


@lru_cache(maxsize=32)
def _readable(facts: ReleaseFacts) -> Spec | None:
    """Return the spec of a stored release if this operator can read it. Each turn asks for the same few again."""
    try:
        return Spec.model_validate(facts.spec)
    except ValidationError:
        return None


def with_release(nova: Nova, release: Release) -> Nova:
    """Return the resource as it would be with a stored release: what is from there, how from here."""
    kept = {key: getattr(nova.spec, key) for key in HOW}
    if maintenance.window_invalid(nova.spec.maintenance.windows) is not None:
        del kept["maintenance"]  # it blocks the spec; the last good release must not be blocked with it
    if maintenance.rings_invalid(nova.spec) is not None:
        del kept["secrets"]
    return replace(nova, spec=release.spec.model_copy(update=kept))


# --- the way back -----------------------------------------------------------------------------------------------------


def taken_back(nova: Nova) -> Finding | None:
    """Return why this spec was taken back, or None when it was not (REL-2)."""
    said = condition_of(nova.status, "RolledBack")
    if said.get("status") != "True" or nova.status.get("release", {}).get("takenBack") != attempt(nova.spec):
        return None
    try:
        reason = Reason(said["reason"])
    except ValueError:
        reason = Reason.ROLLED_BACK
    return Finding(reason, said["message"])


def last_good(nova: Nova, seen: Observed) -> Release | None:
    """Return the newest stored release."""
    return next(iter(stored(nova, seen)), None)


def way_back(nova: Nova, seen: Observed) -> Release | None:
    """Return the last good release if it is another than the one asked for (REL-3)."""
    newest = last_good(nova, seen)
    return newest if newest is not None and newest.content != content(nova.spec) else None


@dataclass(frozen=True, slots=True)
class InForce:
    """The release to act for, and why it is not the one that the spec asks for."""

    acting: Nova | None  # None: nothing is done, and `blocked` says why
    blocked: Finding | None = None  # why the spec is not carried out
    returned: Finding | None = None  # why it was taken back


def in_force(nova: Nova, seen: Observed, invalid: Finding | None = None) -> InForce:
    """Decide which release is in force. `invalid`: why the spec cannot be read.

    A spec that is blocked or was taken back leaves the last good release in force, a closed maintenance window does so
    later (`window_wait_s`), and nobody touches a namespace that is another resource's.
    """
    blocked = invalid or first(MAY_ACT, nova, seen)
    if blocked is not None and blocked.reason is Reason.NAMESPACE_TAKEN:
        return InForce(None, blocked)
    returned = taken_back(nova)
    if returned is not None:
        blocked = None  # what was taken back may lack what it likes
    elif blocked is None:
        return InForce(nova)
    target = last_good(nova, seen)
    if target is None:
        lost = Finding(Reason.RELEASE_MISSING, "the release to return to is gone: mend the spec")
        return InForce(None, blocked or lost, returned)
    return InForce(with_release(nova, target), blocked, returned)


def hindrance(nova: Nova, force: InForce, seen: Observed) -> Finding | None:
    """Return why nothing is done at all. `seen`: with what the release in force looks at."""
    if force.acting is None:
        return force.blocked
    found = first(MAY_ACT, force.acting, seen) if force.acting is not nova else None
    return found and (force.blocked or found)


def canaries_wanted(nova: Nova, seen: Observed) -> bool:
    """Return whether a canary goes before each service: only where there is a good release to go back to.

    Hence not at first install, not for repairs, and not for the last good release itself.
    """
    return nova.spec.rollout.canary.enabled and way_back(nova, seen) is not None


def failure(
    nova: Nova, seen: Observed, intended: Plan, before: Release, *, now: datetime, refused: Finding | None
) -> Finding | None:
    """Find what shows that this roll-out will not end well: the migration, a pod, or the time that is over.

    Of the workloads only those count whose pods are other ones than under the last good release: going back would not
    mend the rest.
    """
    job = seen.objects.get(intended.job) if intended.job is not None else None
    if job is not None and isinstance(job.facts, JobFacts) and job.facts.failed:
        why = _pod_words("migrate", seen, "", of=job.ref.name) or job.facts.message
        return Finding(Reason.MIGRATION_FAILED, f"migrate: Job {job.ref.name} failed: {why}")
    changed = {
        ref: wanted
        for ref, wanted in intended.wanted.items()
        if ref.kind in ("Deployment", "StatefulSet")
        and wanted["metadata"]["annotations"][ANNOTATION_TEMPLATE] != before.templates.get(ref.name)
    }
    for ref, wanted in changed.items():
        if difference(ref, wanted, seen) is None:
            found = _workload_failure(ref, wanted, seen)
            if found is not None:
                return found
    for finding in intended.held.values():
        if finding.reason in CANARY_FAILED:
            return finding
    return _overdue(nova, seen, changed, now=now, refused=refused)


def _workload_failure(ref: Ref, wanted: Manifest, seen: Observed) -> Finding | None:
    component = wanted["metadata"]["labels"][LABEL_COMPONENT]
    template = wanted["metadata"]["annotations"][ANNOTATION_TEMPLATE]
    canary = ref.name in names.CANARIES
    who = f"{component}: canary" if canary else component
    for pod in seen.pods:
        # A store's pod does not name its template: the stamp would have restarted the stores of 0.1.0.
        unnamed = pod.template == "" and not canary
        if pod.component != component or pod.ready or not (unnamed or pod.template == template):
            continue
        if pod.trouble == "ImagePullBackOff":
            return Finding(Reason.IMAGE_PULL_FAILED, f"{who}: {pod.message}")
        if pod.trouble == "CrashLoopBackOff" and pod.restarts >= CRASHES:
            return Finding(Reason.CRASH_LOOPING, f"{who}: {pod.message}")
    facts = seen.objects[ref].facts
    if isinstance(facts, WorkloadFacts) and facts.overdue:
        words = _pod_words(component, seen, template) or facts.stalled
        return Finding(Reason.PROGRESS_DEADLINE_EXCEEDED, f"{who}: not available in time: {words}")
    return None


def _pod_words(component: str, seen: Observed, template: str, *, of: str = "") -> str:
    """Return what the first pod in trouble says. `of`: the Job it belongs to; those that failed earlier stay, too."""
    return next(
        (
            f"{pod.trouble}: {pod.message}"
            for pod in seen.pods
            if pod.component == component and pod.trouble and template in ("", pod.template) and pod.name.startswith(of)
        ),
        "",
    )


def _overdue(
    nova: Nova, seen: Observed, changed: Mapping[Ref, Manifest], *, now: datetime, refused: Finding | None
) -> Finding | None:
    """Find what has no deadline of its own: a store that does not start, a write that is refused again and again."""
    since = started(nova)
    limit = timedelta(seconds=nova.spec.rollout.progress_deadline_seconds)
    if since is None or now - since <= limit:
        return None
    if refused is not None:
        return Finding(refused.reason, refused.message)
    for ref, wanted in changed.items():
        live = seen.objects.get(ref)
        if ref.kind != "StatefulSet" or live is None or not isinstance(live.facts, WorkloadFacts):
            continue
        if live.facts.updated < live.facts.replicas or live.facts.available < live.facts.replicas:
            component = wanted["metadata"]["labels"][LABEL_COMPONENT]
            words = _pod_words(component, seen, "") or "is not available"
            return Finding(Reason.PROGRESS_DEADLINE_EXCEEDED, f"{component}: {words}")
    return None


def started(nova: Nova) -> datetime | None:
    """Return when the operator first acted on this generation, or None if it has not yet."""
    since = nova.status.get("release", {}).get("since")
    if since is None or nova.status.get("observedGeneration") != nova.generation:
        return None
    return datetime.fromisoformat(since)


# --- when -------------------------------------------------------------------------------------------------------------


def window_wait_s(nova: Nova, seen: Observed, intended: Plan, *, now: datetime) -> float | None:
    """Return how long a change has to wait for a maintenance window, or None when it need not."""
    windows = nova.spec.maintenance.windows
    if not windows or _has_begun(nova) or not replaces_pods(intended, seen) or way_back(nova, seen) is None:
        return None  # no other release: the first installation, or the last good release itself
    wait = maintenance.wait_s(windows, now)
    if wait == 0:
        return None
    return NEVER_S if wait is None else wait


def _has_begun(nova: Nova) -> bool:
    """Return whether the roll-out of this generation is under way: it does not stop when a window closes."""
    progressing = condition_of(nova.status, "Progressing")
    return bool(progressing.get("status") == "True" and progressing.get("observedGeneration") == nova.generation)


def opening(wait_s: float, now: datetime) -> str:
    """Return when a window opens, in words that are the same in each turn until then."""
    if wait_s >= NEVER_S:
        return "never opens again"
    return f"opens at {now + timedelta(seconds=wait_s + 59):%Y-%m-%dT%H:%MZ}"


# --- the store --------------------------------------------------------------------------------------------------------


def repairs(nova: Nova, seen: Observed) -> tuple[Action, ...]:
    """Return the writes that put back what somebody changed about stored releases."""
    actions = []
    for release in stored(nova, seen):
        facts = seen.objects[release.ref].facts
        if isinstance(facts, ReleaseFacts):
            body = build_release(nova, release.number, facts.spec, facts.templates)
            if difference(release.ref, body, seen) is not None:
                actions.append(Action(Verb.APPLY, release.ref, Why.DRIFT, 1, manifest=body))
    return tuple(actions)


def keep(nova: Nova, seen: Observed, wanted: Mapping[Ref, Manifest]) -> Plan:
    """Return the writes that store the present release, and that forget the oldest (REL-1). Call it when Ready."""
    known = stored(nova, seen)
    if known and known[0].content == content(nova.spec):
        return Plan((), {})
    taken = [live.facts.number for live in seen.objects.values() if isinstance(live.facts, ReleaseFacts)]
    templates = {
        ref.name: body["metadata"]["annotations"][ANNOTATION_TEMPLATE]
        for ref, body in wanted.items()
        if ref.kind in ("Deployment", "StatefulSet")
    }
    revision = build_release(nova, max(taken, default=0) + 1, plain(nova.spec), templates)
    ref = Ref("ControllerRevision", nova.namespace, revision["metadata"]["name"])
    actions = [Action(Verb.APPLY, ref, Why.MISSING, 1, manifest=revision)]
    actions += [Action(Verb.DELETE, old.ref, Why.UNWANTED, 2, uid=old.uid) for old in known[KEPT - 1 :]]
    return Plan(tuple(actions), {})


def build_release(nova: Nova, number: int, spec: Mapping[str, Any], templates: Mapping[str, str]) -> Manifest:
    """Return the ControllerRevision that stores a release of a resource."""
    body = manifest(
        CONTROLLER_REVISION,
        nova,
        names.release(number),
        component="release",
        revision=number,
        data={"spec": dict(spec), "templates": dict(templates)},
    )
    body["metadata"]["labels"] = labels(nova, "release", version=str(spec["version"]))
    body["metadata"]["annotations"] = {ANNOTATION_DESIRED: desired_hash(body)}
    return body
