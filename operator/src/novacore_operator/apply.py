"""The only module that writes objects. Carries out a plan, wave by wave, and says what became of each action.

Server-side apply, first without force: a conflict is counted before it is forced for the fields we own. A wave with a
refused write ends the pass: what mounts a Secret must not come before it (PLAN-5).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from novacore_operator.errors import NovaError, Retry
from novacore_operator.kube import Conflict, Kube
from novacore_operator.plan import Action, Plan, Verb, Why
from novacore_operator.reasons import Reason
from novacore_operator.state import Live, Manifest, Ref
from novacore_operator.state.names import ANNOTATION_DESIRED
from novacore_operator.state.ownership import fingerprint, owned_fingerprint
from novacore_operator.telemetry import Log, Metrics

log = Log(__name__)

IN_FLIGHT = 8


class Cache(Protocol):
    """Where the answers to our own writes go, so that no decision rests on a state before them (INF-1)."""

    def saw(self, body: Manifest, *, hashed: str | None = None, wanted: str | None = None) -> None:
        """Take in an object as stored; `hashed` and `wanted`: what we wrote, and the fingerprint that was expected."""

    def lost(self, ref: Ref, uid: str) -> None:
        """Take in that a delete was accepted."""


class Outcome(StrEnum):
    """What became of an action; also the metric's label."""

    CREATED = "created"
    PATCHED = "patched"
    UNCHANGED = "unchanged"
    DELETED = "deleted"
    CONFLICT = "conflict"


@dataclass(slots=True)
class Applied:
    """What a pass did. `refused` is the first error, by its action."""

    outcomes: dict[Ref, Outcome] = field(default_factory=dict)
    refused: dict[Ref, NovaError] = field(default_factory=dict)
    repaired: list[Ref] = field(default_factory=list)


async def carry_out(
    kube: Kube,
    cache: Cache,
    metrics: Metrics,
    plan: Plan,
    *,
    live_of: Callable[[Ref], Live | None],
    complete: bool,
) -> Applied:
    """Carry out a plan's actions and return what became of them. `complete`: a missing object was there before."""
    applied = Applied()
    slots = asyncio.Semaphore(IN_FLIGHT)

    async def one(action: Action) -> None:
        async with slots:
            try:
                outcome = await _write(kube, cache, metrics, action, live_of(action.ref))
            except NovaError as error:
                applied.refused[action.ref] = error
                log.warning("write_refused", object=str(action.ref), reason=error.reason, message=error.message)
                return
        applied.outcomes[action.ref] = outcome
        metrics.count("child_apply_total", kind=action.ref.kind, result=outcome.value)
        if outcome in (Outcome.CREATED, Outcome.PATCHED, Outcome.DELETED):
            log.info("object_written", object=str(action.ref), why=action.why.value, outcome=outcome.value)
        repaired = action.why is Why.DRIFT and outcome is Outcome.PATCHED
        if repaired or (complete and action.why is Why.MISSING and outcome is Outcome.CREATED):
            metrics.count("drift_corrections_total", kind=action.ref.kind)
            applied.repaired.append(action.ref)

    for wave in plan.waves():
        async with asyncio.TaskGroup() as tasks:
            for action in wave:
                tasks.create_task(one(action))
        if applied.refused:
            break
    return applied


async def _write(kube: Kube, cache: Cache, metrics: Metrics, action: Action, live: Live | None) -> Outcome:
    if action.verb is Verb.DELETE:
        if action.uid is None or not await kube.delete(action.ref, uid=action.uid):
            return Outcome.UNCHANGED
        cache.lost(action.ref, action.uid)
        return Outcome.DELETED
    manifest = action.manifest
    if manifest is None:
        raise Retry(Reason.INTERNAL_ERROR, f"{action.ref}: an apply without an object")
    body = await _applied(kube, metrics, manifest)
    wanted = fingerprint(manifest)
    if owned_fingerprint(body) != wanted:
        log.warning("object_normalised", object=str(action.ref))
    cache.saw(body, hashed=manifest["metadata"]["annotations"][ANNOTATION_DESIRED], wanted=wanted)
    if live is None:
        return Outcome.CREATED
    return Outcome.UNCHANGED if int(body["metadata"]["resourceVersion"]) == live.version else Outcome.PATCHED


async def _applied(kube: Kube, metrics: Metrics, manifest: Manifest) -> Manifest:
    try:
        return await kube.apply(manifest, force=False)
    except Conflict as conflict:
        metrics.count("child_apply_total", kind=manifest["kind"], result=Outcome.CONFLICT.value)
        log.info(
            "field_taken_back", object=f"{manifest['kind']} {manifest['metadata']['name']}", held_by=conflict.message
        )
        return await kube.apply(manifest, force=True)
