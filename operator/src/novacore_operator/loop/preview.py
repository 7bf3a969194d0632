"""What Apply would do to a live installation: observe, foresee, and ask the API server by dry runs. Writes nothing."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime

from novacore_operator.errors import Blocked, NovaError
from novacore_operator.kube import Kube
from novacore_operator.loop.store import Store
from novacore_operator.observe.observer import Observer
from novacore_operator.plan import setting_of
from novacore_operator.policies import Finding, first, maintenance
from novacore_operator.policies.admission import MAY_ACT
from novacore_operator.preview import Change, Preview, foresee, with_fields
from novacore_operator.releases import taken_back, way_back
from novacore_operator.rotation import mint
from novacore_operator.rotation.adopt import adopt
from novacore_operator.state import Manifest, Material, Nova, Observed, Ref
from novacore_operator.telemetry import Metrics

IN_FLIGHT = 8


def outline(nova: Nova, seen: Observed, found: Material) -> tuple[Preview, Mapping[Ref, Manifest]]:
    """Return the changes without their fields, and the manifests."""
    blocked = taken_back(nova) or first(MAY_ACT, nova, seen)
    if blocked is not None:
        return Preview((), blocked), {}
    now = datetime.now(UTC)
    try:
        setting = setting_of(nova, seen)
        kept = adopt(found, seen.foreign, setting)
        material = mint.complete(kept, setting, now=now, entropy=secrets.token_bytes)
    except Blocked as error:
        return Preview((), Finding(error.reason, error.message)), {}
    changes, manifests = foresee(nova, seen, material)
    window = _window(nova, seen, now)
    if window and any(change.consequence.startswith("restarts") for change in changes):
        changes = tuple(replace(change, waits_for=window) for change in changes)
    return Preview(changes), manifests


def _window(nova: Nova, seen: Observed, now: datetime) -> str:
    wait_s = maintenance.wait_s(nova.spec.maintenance.windows, now)
    if wait_s == 0 or way_back(nova, seen) is None:
        return ""
    return "the maintenance window" if wait_s is None else f"the maintenance window, in {wait_s / 3600:.1f} h"


async def preview(kube: Kube, observer: Observer, nova: Nova) -> Preview:
    """Return the changes with their fields. Each write is tried as a dry run: what the API server refuses shows."""
    seen, found = await observer.observe(nova, ())
    outlined, manifests = outline(nova, seen, found)
    slots = asyncio.Semaphore(IN_FLIGHT)

    async def fill(change: Change) -> Change:
        manifest = manifests.get(change.ref)
        if change.verb == "delete" or manifest is None:
            return change
        async with slots:
            try:
                after = await kube.apply(manifest, force=True, dry_run=True)
            except NovaError as error:
                return _refused(change, error)
            if change.verb == "create":
                return change
            before = await kube.find(change.ref)
        return with_fields(change, before, after) if before is not None else change

    return Preview(tuple(await asyncio.gather(*(fill(change) for change in outlined.changes))), outlined.blocked)


async def preview_live(
    body: Manifest,
    *,
    kubeconfig: str | None,
    context: str | None,
    operator_namespace: str,
    limit_s: float,
) -> Preview:
    """Return the preview of a resource with a client and caches of its own. TimeoutError after `limit_s`."""
    store = Store()
    body["metadata"].setdefault("uid", "not-made-yet")
    body["metadata"].setdefault("resourceVersion", "1")
    body["metadata"].setdefault("generation", 1)
    store.put(body)
    key = (body["metadata"]["namespace"], body["metadata"]["name"])
    nova = store.get(key)
    invalid = store.invalid(key)
    if nova is None or invalid is not None:
        return Preview((), invalid)
    metrics = Metrics()
    kube = await Kube.connect(metrics, kubeconfig=kubeconfig, context=context)
    try:
        async with asyncio.timeout(limit_s), asyncio.TaskGroup() as tasks:
            observer = Observer(
                kube,
                metrics,
                operator_namespace=operator_namespace,
                namespaces=(nova.namespace,),
                changed=lambda *_: None,
            )
            watches = observer.start(tasks)
            await observer.synced()
            found = await preview(kube, observer, nova)
            for watch in watches:
                watch.cancel()
            return found
    finally:
        await kube.close()


def _refused(change: Change, error: NovaError) -> Change:
    return Change(
        change.verb, change.ref, change.why, (), change.consequence, f"the API server refuses it: {error.message}"
    )
