"""What Apply would do to a live installation: observe, foresee, and ask the API server by dry runs. Writes nothing.

Which release is in force is decided as in a turn (`releases.in_force`); what waits for a window, or for the end of a
pause, says so.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Protocol

from novacore_operator.api import KIND
from novacore_operator.apply import named
from novacore_operator.build.release import CONTROLLER_REVISION
from novacore_operator.build.scale import build_scale_handover
from novacore_operator.errors import Blocked, NovaError
from novacore_operator.kube import Forbidden, Kube
from novacore_operator.loop.store import Store
from novacore_operator.observe.observer import Observer
from novacore_operator.plan import plan, setting_of
from novacore_operator.policies import Finding
from novacore_operator.preview import STEPS, Change, Preview, foresee, unmade, with_fields
from novacore_operator.releases import hindrance, in_force, opening, way_back, window_wait_s, with_release
from novacore_operator.rotation import mint
from novacore_operator.rotation.adopt import adopt
from novacore_operator.state import Live, Manifest, Material, Nova, Observed, Ref, WorkloadFacts, stores
from novacore_operator.telemetry import Metrics

IN_FLIGHT = 8
WAITED_FOR = ("StatefulSet", stores.CLUSTER_KIND, "Job", "Deployment")
"""Kinds whose pods others wait for (policies.rollout)."""
PAUSED = "the end of the pause: spec.paused is true"

Siblings = tuple[tuple[str, str], ...]


class Eyes(Protocol):
    """The part of an Observer that a preview needs."""

    async def observe(self, nova: Nova, siblings: Siblings) -> tuple[Observed, Material]:
        """Return the picture and the material."""


async def look(eyes: Eyes, nova: Nova, siblings: Siblings) -> tuple[Observed, Material]:
    """Return the picture and the material; the Secrets that the last good release names are in it too."""
    seen, found = await eyes.observe(nova, siblings)
    target = way_back(nova, seen)
    if target is None:
        return seen, found
    other, _ = await eyes.observe(with_release(nova, target), siblings)
    return replace(seen, referenced={**other.referenced, **seen.referenced}), found


def outline(nova: Nova, seen: Observed, found: Material, invalid: Finding | None = None) -> Preview:
    """Return the changes without their fields. `invalid`: why the spec cannot be read."""
    now = datetime.now(UTC)
    force = in_force(nova, seen, invalid)
    hindered = hindrance(nova, force, seen)
    blocked = force.returned or force.blocked
    if force.acting is None or hindered is not None:
        return Preview((), blocked or hindered)
    try:
        changes = _changes(nova, force.acting, seen, found, returning=force.returned is not None, now=now)
    except Blocked as error:
        return Preview((), blocked or Finding(error.reason, error.message))
    if nova.spec.paused:
        changes = _waiting(changes, PAUSED)
    return Preview(changes, blocked)


def _changes(
    nova: Nova, acting: Nova, seen: Observed, found: Material, *, returning: bool, now: datetime
) -> tuple[Change, ...]:
    """Return what is written for the release in force, and then for the one that waits for a window."""
    material = _completed(acting, seen, found, now)
    if mint.roles_hash(_completed(acting, seen, found, now)) != mint.roles_hash(material):  # other passwords each time
        return unmade(foresee(acting, seen, material, returning=returning)[0])
    target = way_back(nova, seen)
    wait_s = None
    if acting is nova and target is not None:
        wait_s = window_wait_s(nova, seen, plan(nova, seen, material), now=now)
    if wait_s is None or target is None:
        return foresee(acting, seen, material, returning=returning)[0]
    kept = with_release(nova, target)
    at_once, after = foresee(kept, seen, _completed(kept, seen, found, now))
    later, _ = foresee(nova, after, material)
    return (*at_once, *_waiting(later, f"the maintenance window, which {opening(wait_s, now)}"))


def _completed(nova: Nova, seen: Observed, found: Material, now: datetime) -> Material:
    setting = setting_of(nova, seen)
    return mint.complete(adopt(found, seen.foreign, setting), setting, now=now, entropy=secrets.token_bytes)


def _waiting(changes: Iterable[Change], what: str) -> tuple[Change, ...]:
    return tuple(replace(change, waits_for=what) for change in changes)


# --- asking the API server --------------------------------------------------------------------------------------------


async def preview(kube: Kube, observer: Observer, nova: Nova, siblings: Siblings = ()) -> Preview:
    """Return the changes with their fields. Each write is tried as a dry run: what the API server refuses blocks."""
    seen, found = await look(observer, nova, siblings)
    outlined = outline(nova, seen, found)
    trial = _Trial(kube, seen)
    changes = await trial.all(outlined.changes)
    return Preview(_until_refused(changes, trial.steps), outlined.blocked or trial.refused)


def _until_refused(changes: Iterable[Change], steps: Mapping[int, Ref]) -> tuple[Change, ...]:
    """Return the changes; those that wait for a refused one say so.

    A refused write ends a turn, so later waves are never come to; earlier ones of turns to come are, unless what was
    refused is what they wait for. And no release is stored that is not Ready.
    """
    return tuple(
        replace(change, waits_for=f"{refused}, which the API server refuses")
        if (refused := _in_the_way(change, steps)) is not None
        else change
        for change in changes
    )


def _in_the_way(change: Change, steps: Mapping[int, Ref]) -> Ref | None:
    for step, refused in sorted(steps.items()):
        comes_later = change.step % STEPS > step % STEPS
        waits = refused.kind in WAITED_FOR or change.ref.kind == CONTROLLER_REVISION.name
        if change.step > step and (comes_later or waits):
            return refused
    return None


class _Trial:
    """The dry runs of one preview. `refused`: the first write that the API server does not take."""

    def __init__(self, kube: Kube, seen: Observed) -> None:
        self._kube = kube
        self._seen = seen
        self._slots = asyncio.Semaphore(IN_FLIGHT)
        self.refused: Finding | None = None
        self.steps: dict[int, Ref] = {}  # of what was refused

    async def all(self, changes: Iterable[Change]) -> tuple[Change, ...]:
        """Return the changes with their fields. Several of one object are tried in their order."""
        numbered: dict[Ref, list[tuple[int, Change]]] = {}
        for number, change in enumerate(changes):
            numbered.setdefault(change.ref, []).append((number, change))
        tried = await asyncio.gather(*(self._object(items) for items in numbered.values()))
        return tuple(change for _, change in sorted((pair for one in tried for pair in one), key=lambda pair: pair[0]))

    async def _object(self, changes: list[tuple[int, Change]]) -> list[tuple[int, Change]]:
        found, body = [], None
        for number, change in changes:
            async with self._slots:
                filled, body = await self._one(change, body)
            found.append((number, filled))
        return found

    async def _one(self, change: Change, before: Manifest | None) -> tuple[Change, Manifest | None]:
        """Return one change with its fields, and the object as it would be then."""
        live = self._seen.objects.get(change.ref)
        try:
            if change.manifest is None:
                if live is not None:
                    await self._kube.delete(change.ref, uid=live.uid, dry_run=True)
                return change, None
            if before is None and change.verb != "create":
                before = await self._kube.find(change.ref)
            after = await self._kube.apply(change.manifest, force=True, dry_run=True)
        except Forbidden:
            raise  # whoever asks may not try it: no word about the plan
        except Blocked as refusal:
            error = named(change.ref, change.manifest, refusal)
            self.refused = self.refused or Finding(error.reason, error.message)
            self.steps.setdefault(change.step, change.ref)
            return replace(change, waits_for=f"the API server refuses it: {error.message}"), before
        if before is None:
            return change, after
        after = _with_scale(change.manifest, live, before, after)
        return with_fields(change, before, after), after


def _with_scale(manifest: Manifest, live: Live | None, before: Manifest, after: Manifest) -> Manifest:
    """Return a dry run's answer with the number of pods that a second manager holds by then (build.scale)."""
    facts = live.facts if live is not None else None
    if manifest["kind"] != "Deployment" or not isinstance(facts, WorkloadFacts):
        return after
    if build_scale_handover(manifest, facts) is None:
        return after
    return {**after, "spec": {**after["spec"], "replicas": before["spec"]["replicas"]}}


# --- for a client of its own ------------------------------------------------------------------------------------------


async def preview_live(
    body: Manifest,
    *,
    kubeconfig: str | None,
    context: str | None,
    operator_namespace: str,
    limit_s: float,
) -> Preview:
    """Return the preview of a resource with a client and caches of its own. TimeoutError after `limit_s`."""
    nova, invalid = read(body)
    if invalid is not None:
        return Preview((), invalid)
    metrics = Metrics()
    kube = await Kube.connect(metrics, kubeconfig=kubeconfig, context=context)
    try:
        async with asyncio.timeout(limit_s):
            siblings = await _siblings(kube, nova)
            observer = Observer(
                kube,
                metrics,
                operator_namespace=operator_namespace,
                namespaces=(nova.namespace,),
                changed=lambda *_: None,
            )
            found = await _watched(observer, kube, nova, siblings)
    finally:
        await kube.close()
    if isinstance(found, NovaError):
        raise found
    return found


def read(body: Manifest) -> tuple[Nova, Finding | None]:
    """Return a resource as the operator reads it, and why it cannot. One that was never stored gets what it lacks."""
    store = Store()
    metadata = {"uid": "not-made-yet", "resourceVersion": "1", "generation": 1, **body["metadata"]}
    store.put({**body, "metadata": metadata})
    key = (metadata["namespace"], metadata["name"])
    nova = store.get(key)
    if nova is None:
        raise ValueError(f"{key} is not in the store that it was put into")
    return nova, store.invalid(key)


async def _siblings(kube: Kube, nova: Nova) -> Siblings:
    items, _ = await kube.list(KIND, namespace=nova.namespace)
    found = ((item["metadata"]["creationTimestamp"], item["metadata"]["name"]) for item in items)
    return tuple(sorted((created, name) for created, name in found if name != nova.name))


async def _watched(observer: Observer, kube: Kube, nova: Nova, siblings: Siblings) -> Preview | NovaError:
    """Return the preview once the caches are full. An error is returned: a TaskGroup would wrap it."""
    async with asyncio.TaskGroup() as tasks:
        watches = observer.start(tasks)
        await observer.synced()
        try:
            return await preview(kube, observer, nova, siblings)
        except NovaError as error:
            return error
        finally:
            for watch in watches:
                watch.cancel()
