"""What Apply would do, as values for people and machines. Pure.

`foresee` carries out plan after plan on what was observed, as if each write succeeded and each pod became ready, until
nothing is left to do: the plans are those of `plan`, there is no second code path.
Invariants: PREVIEW-1 the foreseen writes are the writes that Apply then does, one for one, when all goes well.
PREVIEW-2 values of Secrets never appear.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from novacore_operator import releases
from novacore_operator.build.scale import pods_wanted
from novacore_operator.made import Made
from novacore_operator.plan import Action, Verb, Why, plan
from novacore_operator.policies import Finding
from novacore_operator.state import (
    ClaimFacts,
    Counted,
    Facts,
    JobFacts,
    Live,
    Manifest,
    Material,
    Nova,
    Observed,
    Ref,
    ReleaseFacts,
    Trial,
    WorkloadFacts,
    names,
    stores,
)
from novacore_operator.state.names import ANNOTATION_DESIRED, ANNOTATION_TEMPLATE, LABEL_COMPONENT
from novacore_operator.state.ownership import fingerprint

PASSES = 40
STEPS = 10
"""More than there are waves."""
HIDDEN = "<hidden>"
ALLOCATED = "(allocated at apply)"
UNMADE = "(made at apply)"
"""Stands in a name for what follows from passwords that do not exist yet. No name of Kubernetes has brackets."""
PARALLEL_KEYS = ("name", "containerPort", "port", "mountPath", "type", "ip")
"""Keys by which the items of a list are told apart, the first that they have."""


@dataclass(frozen=True, slots=True)
class FieldChange:
    """One field. `old` or `new` is None where it is absent; values of Secrets are given as `<hidden>`."""

    path: str  # as kubectl explain writes it: spec.template.spec.containers[gateway].image
    old: Any
    new: Any


@dataclass(frozen=True, slots=True)
class Change:
    """One object."""

    verb: str  # create | update | delete
    ref: Ref
    why: str  # plan.Why
    fields: tuple[FieldChange, ...] = ()
    consequence: str = ""  # `restarts memory (2 pods)`, `no restart: …`, empty when there is nothing to say
    waits_for: str = ""  # what must happen first, empty when it would be written at once
    manifest: Manifest | None = field(default=None, repr=False, compare=False)  # what would be applied; None: a delete
    step: int = field(default=0, repr=False, compare=False)
    """Changes of one step are written at the same time; a refused one holds those of later steps."""


@dataclass(frozen=True, slots=True)
class Preview:
    """All of it. `blocked`: why the spec is not carried out; the changes are then those that are made all the same."""

    changes: tuple[Change, ...]
    blocked: Finding | None = None

    @property
    def hash(self) -> str:
        """Return 16 hex digits that are the same for the same changes, also where their fields were not looked at.

        What they wait for is no part of it: a window comes nearer, and the plan is the same.
        """
        said = [(change.verb, str(change.ref), change.why, change.consequence) for change in self.changes]
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16]

    def as_dict(self) -> dict[str, Any]:
        """Return the stable form of `-o json`."""
        return {
            "apiVersion": "novacore.ai/plan/v1",
            "hash": self.hash,
            "blocked": {"reason": self.blocked.reason.value, "message": self.blocked.message} if self.blocked else None,
            "summary": {
                verb: sum(change.verb == verb for change in self.changes) for verb in ("create", "update", "delete")
            },
            "changes": [_plain(change) for change in self.changes],
        }


def _plain(change: Change) -> Mapping[str, Any]:
    return {
        "verb": change.verb,
        "kind": change.ref.kind,
        "namespace": change.ref.namespace,
        "name": change.ref.name,
        "why": change.why,
        "fields": [{"path": field.path, "old": field.old, "new": field.new} for field in change.fields],
        "consequence": change.consequence,
        "waitsFor": change.waits_for,
    }


# --- what will be written ---------------------------------------------------------------------------------------------


def foresee(
    nova: Nova, seen: Observed, material: Material, *, returning: bool = False
) -> tuple[tuple[Change, ...], Observed]:
    """Return the changes in the order of their writes, and what would be observed after them."""
    changes: list[Change] = []
    first_held: Mapping[Ref, Finding] | None = None
    present, made = seen, Made(kept=1)
    for number in range(PASSES):
        present = replace(present, trials=_passed(present))
        canaries = not returning and releases.canaries_wanted(nova, present)
        intended = plan(
            nova, present, material, returning=returning, canaries=canaries, built=made.of(nova, present, material)
        )
        first_held = intended.held if first_held is None else first_held
        actions = [*intended.actions, *releases.repairs(nova, present)]
        if not actions:
            actions = list(releases.keep(nova, present, intended.wanted).actions) if not intended.held else []
        if not actions:
            return tuple(changes), present
        actions.sort(key=lambda action: action.wave)
        for action in actions:
            held = first_held.get(action.ref)
            change = _change(action, seen, held.message if held is not None else "")
            changes.append(replace(change, step=number * STEPS + action.wave))
        present = _after(present, actions)
    raise ValueError(f"no end in {PASSES} passes: {actions}")


def unmade(changes: Iterable[Change]) -> tuple[Change, ...]:
    """Return the changes without the part of the migration Job's name that follows from roles not made yet."""
    return tuple(
        replace(change, ref=replace(change.ref, name=f"{change.ref.name.rpartition('-')[0]}-{UNMADE}"))
        if change.ref.kind == "Job" and change.verb == "create"
        else change
        for change in changes
    )


def _after(seen: Observed, actions: Iterable[Action]) -> Observed:
    """Return what would be observed when every action has succeeded and everything has settled."""
    objects = dict(seen.objects)
    version = max((live.version for live in objects.values()), default=0)
    for action in actions:
        if action.verb is Verb.DELETE or action.manifest is None:
            objects.pop(action.ref, None)
            continue
        version += 1
        objects[action.ref] = _applied(action.ref, action.manifest, objects.get(action.ref), version)
    return replace(seen, objects=objects)


def _passed(seen: Observed) -> Mapping[str, Trial]:
    """Return the trials as they would be when every canary that there is had served long enough, and well."""
    canaries = ((names.CANARIES[ref.name], live) for ref, live in seen.objects.items() if ref.name in names.CANARIES)
    return {service: Trial(live.template or "", math.inf, (Counted({}, {}),)) for service, live in canaries}


def _applied(ref: Ref, manifest: Manifest, before: Live | None, version: int) -> Live:
    metadata = manifest["metadata"]
    annotations = metadata.get("annotations", {})
    generation = (before.generation if before is not None else 0) + 1
    return Live(
        ref=ref,
        uid=before.uid if before is not None else f"foreseen-{ref}",
        version=version,
        generation=generation,
        owner=next((owner["uid"] for owner in metadata.get("ownerReferences", ())), None),
        desired=annotations.get(ANNOTATION_DESIRED),
        owned=fingerprint(manifest),
        template=annotations.get(ANNOTATION_TEMPLATE),
        facts=_settled(ref, manifest, before.facts if before is not None else None, generation),
    )


def _settled(ref: Ref, manifest: Manifest, before: Facts | None, generation: int) -> Facts | None:
    if ref.kind in ("Deployment", "StatefulSet"):
        n = pods_wanted(manifest, before if isinstance(before, WorkloadFacts) else WorkloadFacts(1, 0, 1, 1, 1))
        templates = manifest["spec"].get("volumeClaimTemplates") or [{}]
        size = templates[0].get("spec", {}).get("resources", {}).get("requests", {}).get("storage", "")
        ordered = manifest["spec"].get("podManagementPolicy") == "OrderedReady"
        return WorkloadFacts(n, generation, n, n, n, storage=size, ordered=ordered)
    if ref.kind == stores.CLUSTER_KIND:
        n = manifest["spec"]["instances"]
        return WorkloadFacts(n, generation, n, n, n)
    if ref.kind == "Job":
        return JobFacts(complete=True, failed=False)
    if ref.kind == "PersistentVolumeClaim":
        size = manifest["spec"]["resources"]["requests"]["storage"]
        return ClaimFacts(size, bound=True, capacity=size)
    if ref.kind == "ControllerRevision":
        return ReleaseFacts.of(manifest["revision"], "", manifest["data"])
    return None


def _change(action: Action, seen: Observed, waits_for: str) -> Change:
    live = seen.objects.get(action.ref)
    verb = "delete" if action.verb is Verb.DELETE else "create" if live is None else "update"
    why = Why.CHANGED if action.why is Why.MISSING and live is not None else action.why
    consequence = _consequence(verb, action, live)
    manifest = None if verb == "delete" else action.manifest
    return Change(verb, action.ref, why.value, consequence=consequence, waits_for=waits_for, manifest=manifest)


def _consequence(verb: str, action: Action, live: Live | None) -> str:
    """Return what a write means for pods and data."""
    if action.ref.kind in ("Deployment", "StatefulSet"):
        return _workload_consequence(verb, action, live)
    words = {
        ("PersistentVolumeClaim", "update"): "the volume grows, the data stay",
        (stores.CLUSTER_KIND, "create"): "CloudNativePG starts postgres",
        (stores.CLUSTER_KIND, "update"): "CloudNativePG carries it out; it may restart postgres",
        ("Job", "create"): "runs the migration",
        ("Job", "delete"): "its log goes with it",
    }
    return words.get((action.ref.kind, verb), "")


def _workload_consequence(verb: str, action: Action, live: Live | None) -> str:
    store = action.ref.kind == "StatefulSet"
    pods = live.facts.replicas if live is not None and isinstance(live.facts, WorkloadFacts) else 0
    if action.ref.name in names.CANARIES and verb != "update":
        service = names.CANARIES[action.ref.name]
        return f"starts a canary of {service} (1 pod)" if verb == "create" else f"stops the canary of {service}"
    if verb == "delete" or action.manifest is None:
        return f"stops {_pods(pods)}" + (", the volume is kept" if store else "")
    metadata = action.manifest["metadata"]
    component = metadata["labels"][LABEL_COMPONENT]
    wanted = action.manifest["spec"].get("replicas", pods or 1)
    if live is None:
        return f"starts {component} ({_pods(wanted)})"
    if live.template != metadata["annotations"][ANNOTATION_TEMPLATE]:
        return f"restarts {component} ({_pods(pods)}{'; it does not answer meanwhile' if store else ''})"
    return f"no restart: {component} goes from {pods} to {_pods(wanted)}" if wanted != pods else "no restart"


def _pods(n: int) -> str:
    return "1 pod" if n == 1 else f"{n} pods"


# --- which fields -----------------------------------------------------------------------------------------------------


def with_fields(change: Change, before: Manifest, after: Manifest) -> Change:
    """Return a change with the fields that differ between the live object and what a dry run made of it."""
    named = _allocated(change.manifest) if change.ref.kind == "Service" else frozenset()
    found = []
    for path, old, new in _differences(_comparable(before), _comparable(after), ""):
        if change.ref.kind == "Secret" and path.startswith("data."):
            found.append(FieldChange(path, HIDDEN, HIDDEN))
        elif change.ref.kind == "Service" and path.endswith(".nodePort") and new is not None and path not in named:
            found.append(FieldChange(path, old, ALLOCATED))
        else:
            found.append(FieldChange(path, old, new))
    return replace(change, fields=tuple(found))


def _allocated(manifest: Manifest | None) -> frozenset[str]:
    """Return the paths of a Service's node ports that are ours; others are the API server's choice in that moment."""
    ports = manifest["spec"].get("ports", ()) if manifest is not None else ()
    return frozenset(f"spec.ports[{port['name']}].nodePort" for port in ports if "nodePort" in port)


def _comparable(body: Manifest) -> Manifest:
    metadata = {k: body["metadata"][k] for k in ("labels", "annotations", "ownerReferences") if k in body["metadata"]}
    annotations = {k: v for k, v in metadata.get("annotations", {}).items() if k != ANNOTATION_DESIRED}
    rest = {k: v for k, v in body.items() if k not in ("metadata", "status", "apiVersion", "kind")}
    return {**rest, "metadata": {**metadata, "annotations": annotations}}


def _differences(old: Any, new: Any, path: str) -> Iterable[tuple[str, Any, Any]]:
    if old == new:
        return
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            yield from _differences(old.get(key), new.get(key), f"{path}.{key}" if path else str(key))
    elif isinstance(old, list) and isinstance(new, list) and (key := _list_key([*old, *new])):
        by_old, by_new = ({item[key]: item for item in items} for items in (old, new))
        for name in [*by_old, *(name for name in by_new if name not in by_old)]:
            yield from _differences(by_old.get(name), by_new.get(name), f"{path}[{name}]")
    else:
        yield path, old, new


def _list_key(items: list[Any]) -> str | None:
    if not items or not all(isinstance(item, dict) for item in items):
        return None
    return next((key for key in PARALLEL_KEYS if all(key in item for item in items)), None)
