"""The only module that writes objects. Carries out a plan, wave by wave, and says what became of each action.

Server-side apply, first without force: a conflict is counted before it is forced for the fields we own. A wave with a
refused write ends the pass: what mounts a Secret must not come before it (PLAN-5).
Invariant APPLY-1: a field over which another manager has fought five times in ten minutes is not forced again until the
spec changes: two that overwrite each other for ever help nobody. A conflict whose forced write is refused is no fight.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from novacore_operator.build.persistent_volume_claim import PERSISTENT_VOLUME_CLAIM
from novacore_operator.build.scale import SCALE_MANAGER, build_scale_handover
from novacore_operator.errors import Blocked, NovaError, Retry
from novacore_operator.kube import Conflict, Kube
from novacore_operator.plan import Action, Plan, Verb, Why
from novacore_operator.reasons import Reason
from novacore_operator.state import Live, Manifest, Ref, WorkloadFacts, ref_of
from novacore_operator.state.names import ANNOTATION_DESIRED
from novacore_operator.state.ownership import fingerprint, owned_fingerprint
from novacore_operator.telemetry import Log, Metrics

log = Log(__name__)

IN_FLIGHT = 8
FIGHTS_MAX = 5
FIGHT_S = 600.0


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


class Fights:
    """Who else writes fields of ours, in one installation and under one generation (APPLY-1)."""

    def __init__(self, generation: int = 0, clock: Callable[[], float] = time.monotonic) -> None:
        self.generation = generation
        self._clock = clock
        self._times: dict[tuple[Ref, str, str], list[float]] = {}
        self._lost: dict[tuple[Ref, str], str] = {}

    def record(self, ref: Ref, holders: Iterable[tuple[str, str]]) -> None:
        """Count conflicts: each a field and the manager that holds it."""
        now = self._clock()
        for field_path, manager in holders:
            key = (ref, field_path, manager)
            times = [at for at in self._times.get(key, ()) if now - at < FIGHT_S]
            self._times[key] = [*times, now]
            if len(self._times[key]) >= FIGHTS_MAX:
                self._lost[ref, field_path] = manager

    def forgive(self, ref: Ref, holders: Iterable[tuple[str, str]]) -> None:
        """Take back what was counted last: the field was not taken from anybody, so nobody fights over it."""
        for field_path, manager in holders:
            times = self._times.get((ref, field_path, manager))
            if times:
                times.pop()

    def lost(self) -> Mapping[Ref, frozenset[str]]:
        """Return the fields that are left to others, by object."""
        found: dict[Ref, set[str]] = {}
        for ref, field_path in self._lost:
            found.setdefault(ref, set()).add(field_path)
        return {ref: frozenset(paths) for ref, paths in found.items()}

    def told(self) -> tuple[str, ...]:
        """Return the same as sentences."""
        return tuple(
            f'{ref}: "{manager}" sets {field_path} again and again; it is left alone until the spec changes'
            for (ref, field_path), manager in sorted(self._lost.items())
        )


async def carry_out(
    kube: Kube,
    cache: Cache,
    metrics: Metrics,
    plan: Plan,
    *,
    live_of: Callable[[Ref], Live | None],
    complete: bool,
    fights: Fights | None = None,
) -> Applied:
    """Carry out a plan's actions and return what became of them. `complete`: a missing object was there before."""
    fights = fights if fights is not None else Fights()
    applied = Applied()
    slots = asyncio.Semaphore(IN_FLIGHT)

    async def one(action: Action) -> None:
        async with slots:
            try:
                outcome = await _write(kube, cache, metrics, action, live=live_of(action.ref), fights=fights)
            except NovaError as refusal:
                error = named(action.ref, action.manifest, refusal)
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


def named(ref: Ref, manifest: Manifest | None, error: NovaError) -> NovaError:
    """Return a refusal by the name that says what to do: of a volume that cannot grow."""
    if ref.kind != PERSISTENT_VOLUME_CLAIM.name or manifest is None or "resize" not in error.message:
        return error
    size = manifest["spec"]["resources"]["requests"]["storage"]
    return Blocked(
        Reason.STORAGE_CHANGE_REFUSED,
        f"{ref} cannot grow to {size}: set allowVolumeExpansion: true on its StorageClass, if its provisioner "
        f"can do it ({error.message})",
    )


async def _write(
    kube: Kube, cache: Cache, metrics: Metrics, action: Action, *, live: Live | None, fights: Fights
) -> Outcome:
    if action.verb is Verb.DELETE:
        if action.uid is None or not await kube.delete(action.ref, uid=action.uid):
            return Outcome.UNCHANGED
        cache.lost(action.ref, action.uid)
        return Outcome.DELETED
    manifest = action.manifest
    if manifest is None:
        raise Retry(Reason.INTERNAL_ERROR, f"{action.ref}: an apply without an object")
    await _hand_over_scale(kube, manifest, live)
    body = await _applied(kube, metrics, manifest, fights)
    if body is None:
        return Outcome.CONFLICT
    wanted = fingerprint(manifest)
    if owned_fingerprint(body) != wanted:
        log.warning("object_normalised", object=str(action.ref))
    cache.saw(body, hashed=manifest["metadata"]["annotations"][ANNOTATION_DESIRED], wanted=wanted)
    if live is None:
        return Outcome.CREATED
    return Outcome.UNCHANGED if int(body["metadata"]["resourceVersion"]) == live.version else Outcome.PATCHED


async def _hand_over_scale(kube: Kube, manifest: Manifest, live: Live | None) -> None:
    """Let a second manager hold `replicas` before we stop naming it, so that it does not fall back to one pod."""
    if live is None or not isinstance(live.facts, WorkloadFacts) or manifest["kind"] != "Deployment":
        return
    handover = build_scale_handover(manifest, live.facts)
    if handover is not None and live.desired != manifest["metadata"]["annotations"][ANNOTATION_DESIRED]:
        with contextlib.suppress(Conflict):  # the autoscaler holds it already
            await kube.apply(handover, force=False, manager=SCALE_MANAGER)


async def _applied(kube: Kube, metrics: Metrics, manifest: Manifest, fights: Fights) -> Manifest | None:
    """Return the object as stored, or None when the field that is in the way is left to its holder from now on."""
    try:
        return await kube.apply(manifest, force=False)
    except Conflict as conflict:
        metrics.count("child_apply_total", kind=manifest["kind"], result=Outcome.CONFLICT.value)
        log.info(
            "field_taken_back", object=f"{manifest['kind']} {manifest['metadata']['name']}", held_by=conflict.message
        )
        ref = ref_of(manifest)
        fights.record(ref, conflict.holders)
        if fights.lost().get(ref, frozenset()) & {path for path, _ in conflict.holders}:
            return None  # others that were lost before are not in this manifest
        try:
            return await kube.apply(manifest, force=True)
        except NovaError:
            fights.forgive(ref, conflict.holders)
            raise
