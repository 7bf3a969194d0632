"""Every field that the operator owns is put back, whoever changed it; every field that it does not own stays.

The matrix is generated: for each object that the operator applied, the leaf fields that its field manager holds, one
representative for each (kind, path). Somebody else changes the value by a patch; either the API server refuses every
change that we can think of (immutable fields), or the operator puts the old value back.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from novacore_operator.build.installation import KINDS as PRODUCT_KINDS
from tests.api.owned import MISSING, Field, changes, owned_fields
from tests.kit.api import JSON_PATCH, Api, Manifest, RefusedError
from tests.kit.nova import await_ready
from tests.kit.operator_process import SYSTEM, OperatorProcess
from tests.kit.wait import until

KINDS = (
    "ServiceAccount", "Service", "ConfigMap", "Secret", "PersistentVolumeClaim", "Deployment", "StatefulSet", "Job",
    "PodDisruptionBudget", "NetworkPolicy", "ControllerRevision", "CronJob", "HorizontalPodAutoscaler", "Ingress",
)  # fmt: skip
REPAIR_S = 5
SOMEBODY = "somebody"
FOREIGN = {"labels": {"example.org/team": "blue"}, "annotations": {"example.org/note": "mine"}}
FOREIGN_FIELDS = 2


@dataclass
class Tried:
    """What became of the change of one field."""

    field: Field
    outcome: str = ""  # repaired, refused, lost
    seconds: float = 0.0
    how: str = ""


def applied_objects(api: Api, namespace: str) -> list[Manifest]:
    """Return every object that the operator applied for the installation of a namespace."""
    found = [item for kind in KINDS for item in api.list(kind, namespace)]
    found += [item for item in api.list("Secret", SYSTEM) if item["metadata"]["name"] == f"novacore-root-{namespace}"]
    return [item for item in found if any(owned_fields(item))]


def representatives(objects: list[Manifest]) -> list[Field]:
    """Return one field for each pair of the matrix."""
    pairs: dict[tuple[str, str], Field] = {}
    for item in objects:
        for field in owned_fields(item):
            pairs.setdefault(field.pair, field)
    return [pairs[pair] for pair in sorted(pairs)]


def values(api: Api, namespace: str) -> dict[tuple[str, str, str], object]:
    """Return all values that the operator owns, by kind, name and path."""
    return {
        (field.kind, field.name, str(field.steps)): field.value(item)
        for item in applied_objects(api, namespace)
        for field in owned_fields(item)
    }


def change(api: Api, field: Field) -> Tried:
    """Let somebody change a field, and wait until it is as it was."""
    body = api.must(field.kind, field.name, field.namespace)
    before = field.value(body)
    for patch in changes(field, body):
        try:
            changed = api.patch(field.kind, field.name, field.namespace, patch, how=JSON_PATCH, manager=SOMEBODY)
        except RefusedError:
            continue
        if field.value(changed) != before:
            return _repaired(api, field, before, str(patch))
    return Tried(field, "refused")


def _repaired(api: Api, field: Field, before: object, how: str) -> Tried:
    began = time.monotonic()

    def back() -> bool:
        live = api.get(field.kind, field.name, field.namespace)
        return live is not None and field.value(live) == before and field in owned_fields(live)

    try:
        until(back, within_s=REPAIR_S, what=str(field), every_s=0.005)
    except AssertionError:
        return Tried(field, "lost", REPAIR_S, how)
    return Tried(field, "repaired", time.monotonic() - began, how)


def mark_as_somebody(api: Api, item: Manifest) -> None:
    """Put somebody's label and annotation on an object."""
    metadata = item["metadata"]
    api.patch(item["kind"], metadata["name"], metadata["namespace"], {"metadata": FOREIGN}, manager=SOMEBODY)


def unmarked(api: Api, objects: list[Manifest]) -> list[str]:
    """Return somebody's labels and annotations that are not as he left them."""
    lost = []
    for item in objects:
        metadata = api.must(item["kind"], item["metadata"]["name"], item["metadata"]["namespace"])["metadata"]
        lost += [
            f"{item['kind']} {metadata['name']}: {part}.{key}"
            for part, values in FOREIGN.items()
            for key, value in values.items()
            if metadata.get(part, {}).get(key) != value
        ]
    return lost


@pytest.mark.invariant("PLAN-3")
def test_every_owned_field_is_put_back_and_no_foreign_one_is_touched(
    api: Api, operator: OperatorProcess, installation: str, say: Callable[[str], None]
) -> None:
    objects = applied_objects(api, installation)
    for item in objects:
        mark_as_somebody(api, item)
    before = values(api, installation)
    tried = [change(api, field) for field in representatives(objects)]

    times = sorted(one.seconds for one in tried if one.outcome == "repaired")
    lost = [one for one in tried if one.outcome == "lost"]
    foreign = unmarked(api, objects)
    say(
        f"drift: {len(tried)} (kind, field) pairs on {len(objects)} objects: {len(times)} repaired, "
        f"{sum(one.outcome == 'refused' for one in tried)} refused by the API server, {len(lost)} lost; "
        f"p50 {1000 * times[len(times) // 2]:.0f} ms, p99 {1000 * times[len(times) * 99 // 100]:.0f} ms, "
        f"max {1000 * times[-1]:.0f} ms; foreign fields changed: {len(foreign)} of {len(objects) * FOREIGN_FIELDS}"
    )
    here = {name for name, kind in PRODUCT_KINDS.items() if kind.wave is not None and not kind.foreign}
    assert here <= set(KINDS), "add the new kind"
    assert {item["kind"] for item in objects} >= {"Deployment", "StatefulSet", "Secret", "NetworkPolicy", "Job"}
    assert len(times) > 200, "hardly a change was made: the matrix would prove nothing"
    assert not lost, "\n".join(f"not put back: {' '.join(one.field.pair)} after {one.how}" for one in lost)
    await_ready(api, installation, report=operator.report)
    assert values(api, installation) == before
    assert MISSING not in before.values()
    assert foreign == []


def test_every_deleted_object_comes_back_with_the_same_content(
    api: Api, operator: OperatorProcess, installation: str, say: Callable[[str], None]
) -> None:
    await_ready(api, installation)
    before = values(api, installation)
    times = []
    for item in applied_objects(api, installation):
        kind, metadata = item["kind"], item["metadata"]
        if kind == "ControllerRevision":
            continue  # history: who deletes a stored release wants it gone

        def back(kind: str = kind, metadata: Manifest = metadata) -> bool:
            live = api.get(kind, metadata["name"], metadata["namespace"])
            return live is not None and live["metadata"]["uid"] != metadata["uid"]

        api.delete(kind, metadata["name"], metadata["namespace"])
        began = time.monotonic()
        until(back, within_s=REPAIR_S, what=f"{kind} {metadata['name']} is back", report=operator.report)
        times.append(time.monotonic() - began)
    await_ready(api, installation, report=operator.report)
    times.sort()
    say(
        f"drift: {len(times)} objects deleted and back; p50 {1000 * times[len(times) // 2]:.0f} ms, "
        f"p99 {1000 * times[len(times) * 99 // 100]:.0f} ms, max {1000 * times[-1]:.0f} ms"
    )
    assert values(api, installation) == before
