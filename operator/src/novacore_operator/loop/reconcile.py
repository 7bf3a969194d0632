"""One turn for one resource: observe, complete the material, plan, apply, status."""

from __future__ import annotations

import secrets
import time
import uuid
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from novacore_operator import releases
from novacore_operator.api import API_VERSION, KIND
from novacore_operator.apply import Applied, Fights, Outcome, carry_out
from novacore_operator.errors import Blocked, Fatal, NovaError, Retry
from novacore_operator.kube import Kube, NotFound
from novacore_operator.loop.preview import look, outline
from novacore_operator.loop.rings import Rings, Step
from novacore_operator.loop.store import Key, Store
from novacore_operator.made import Made
from novacore_operator.observe.observer import Observer
from novacore_operator.observe.traffic import LOOK_S
from novacore_operator.plan import Plan, Verb, Why, difference, plan, setting_of
from novacore_operator.policies import Finding
from novacore_operator.reasons import Reason
from novacore_operator.rotation import mint
from novacore_operator.rotation.adopt import adopt
from novacore_operator.rotation.timing import PRODUCTION
from novacore_operator.state import Material, Nova, Observed, Ref
from novacore_operator.status import View, compute, condition_of
from novacore_operator.telemetry import Log, Metrics, context

log = Log(__name__)

RESYNC_S = 600.0
PLANNED_MAX = 50
BLOCKED_S = 20.0
"""A person acts in his own time; some of what he does (a Secret, a grant) makes no event for us."""


@dataclass(frozen=True, slots=True)
class Turn:
    """How a turn ended: when to come again, and whether it failed."""

    failed: bool = False
    again_s: float | None = RESYNC_S


@dataclass(frozen=True, slots=True)
class Because:
    """Why the release in force is the one it is."""

    target: str  # release that the spec asks for
    returned: Finding | None = None
    blocked: Finding | None = None
    attempt: str = ""
    again_s: float | None = None


PROVEN_FOR = timedelta(hours=1)
"""Certificates grow old: they are looked at again after this."""


@dataclass(frozen=True, slots=True)
class _Completed:
    """Material as it was completed."""

    setting: mint.Setting
    material: Material = field(repr=False)
    at: datetime

    def of(self, setting: mint.Setting, kept: Material, now: datetime) -> bool:
        """Return whether completing `kept` again would change nothing."""
        fresh = timedelta(0) <= now - self.at < PROVEN_FOR
        return fresh and setting == self.setting and kept == self.material


class Reconciler:
    """What one turn needs."""

    def __init__(
        self,
        kube: Kube,
        observer: Observer,
        store: Store,
        metrics: Metrics,
        *,
        identity: str,
        rings: Rings | None = None,
        gone: Callable[[Key], None] = lambda _: None,
    ) -> None:
        self._gone = gone
        self._kube = kube
        self._observer = observer
        self._store = store
        self._metrics = metrics
        self._identity = identity
        self._rings = rings if rings is not None else Rings(kube, observer, metrics)
        self._fights: dict[tuple[str, str], Fights] = {}  # by namespace and uid of the resource
        self._told: dict[tuple[str, str, str], float] = {}
        self._completed: dict[str, _Completed] = {}  # by namespace
        self._made = Made()

    async def turn(self, key: Key) -> Turn:
        """Bring one resource a step nearer, and say in its status how far it is. Fatal alone leaves."""
        nova = self._store.get(key)
        if nova is None:
            return Turn(again_s=None)
        fields = {"cr": f"{key[0]}/{key[1]}", "generation": nova.generation, "reconcile_id": uuid.uuid4().hex[:12]}
        token = context.set(fields)
        started = time.monotonic()
        result = "success"
        try:
            return await self._turn(nova)
        except Fatal:
            raise
        except Retry as error:
            result = "retry"
            log.warning("turn_failed", reason=error.reason, message=error.message)
            return Turn(failed=True, again_s=error.after_s)
        except NovaError as error:
            result = "error"
            log.warning("turn_failed", reason=error.reason, message=error.message)
            return Turn(failed=True, again_s=None)
        except Exception:
            result = "error"
            log.exception("turn_failed", reason=Reason.INTERNAL_ERROR)
            return Turn(failed=True, again_s=None)
        finally:
            self._metrics.count("reconcile_total", kind=KIND, result=result)
            self._metrics.observe("reconcile_duration_seconds", time.monotonic() - started, kind=KIND)
            if result == "success":
                self._metrics.set(
                    "last_success_timestamp_seconds", time.time(), platform=key[0], kind=KIND, name=key[1]
                )
            context.reset(token)

    async def _turn(self, nova: Nova) -> Turn:
        """Choose the release in force, and bring the installation a step nearer to it."""
        seen, found = await self._observe(nova)
        invalid = self._store.invalid(nova.key)
        if nova.spec.mode == "Plan":
            seen, found = await look(self._observer, nova, self._store.siblings(nova))
            view = self._planned_view(nova, seen, found, invalid)
            await self._say(nova, seen, view)
            return Turn() if view.planned is not None else Turn(again_s=BLOCKED_S)
        force = releases.in_force(nova, seen, invalid)
        if force.acting is not nova and force.acting is not None:
            seen, found = await self._observe(force.acting)
        keys = Step()
        if force.acting is not None:
            keys = await self._turn_keys(nova, force.acting, seen, found)
            if keys.wrote:
                seen, found = await self._observe(force.acting)
        return _sooner(await self._act(nova, force, seen, found), keys.again_s)

    async def _act(self, nova: Nova, force: releases.InForce, seen: Observed, found: Material) -> Turn:
        """Carry out the release in force, or say why not."""
        hindered = releases.hindrance(nova, force, seen) or self._too_quick(force.acting)
        if force.acting is None or hindered is not None:
            return await self._blocked(nova, seen, hindered)
        acting = force.acting
        because = Because(nova.spec.version, force.returned, force.blocked, attempt=releases.attempt(nova.spec))
        if nova.spec.paused:
            await self._say(acting, seen, self._paused_view(acting, seen, found, because))
            return Turn()
        return await self._pass(nova, acting, seen, found, because)

    def _too_quick(self, acting: Nova | None) -> Finding | None:
        """Find an installation that is not for tests under an operator whose rotations are."""
        if acting is None or acting.spec.profile != "Production" or self._rings.timing == PRODUCTION:
            return None
        return Finding(
            Reason.SPEC_INVALID,
            "spec.profile is Production and the operator runs with --timing-profile=test: set timingProfile to "
            "production in the values of its chart",
        )

    async def _turn_keys(self, nova: Nova, acting: Nova, seen: Observed, found: Material) -> Step:
        """Bring the rings of keys a step nearer, before anything else of the turn."""
        notes: list[tuple[Reason, str, bool]] = []
        keys = await self._rings.step(nova, acting, seen, found, lambda *note: notes.append(note))
        for reason, note, warning in notes:
            await self._tell(nova, reason, note, warning=warning)
        return keys

    async def _pass(self, nova: Nova, acting: Nova, seen: Observed, found: Material, because: Because) -> Turn:
        """Write what is to be written for the release in force, and say how far it is."""
        try:
            intended, adopted = self._intend(acting, seen, found, returning=because.returned is not None)
            wait_s = None
            if acting is nova:
                wait_s = releases.window_wait_s(nova, seen, intended, now=datetime.now(UTC))
            if wait_s is not None:
                acting, because = self._until_window(nova, seen, because, wait_s)
                seen, found = await self._observe(acting)
                intended, adopted = self._intend(acting, seen, found, returning=False)
        except Blocked as error:
            return await self._blocked(nova, seen, Finding(error.reason, error.message))
        if any(action.why is Why.MISSING for action in intended.actions) and not await self._still_there(nova):
            return Turn(again_s=None)
        applied = await carry_out(
            self._kube,
            self._observer,
            self._metrics,
            intended,
            live_of=seen.objects.get,
            complete=_was_complete(nova),
            fights=self._fights_of(nova),
        )
        after, _ = await self._observe(acting) if applied.outcomes else (seen, found)
        view = replace(view_of(intended, after, applied, because), conflicts=self._fights_of(nova).told())
        if acting is nova:
            after, view, back = await self._judge(nova, after, intended, view)
            if back:
                return Turn(again_s=0.0)
        await self._say(acting, after, _with_last_good(acting, after, view))
        await self._tell_repairs(nova, applied, adopted)
        looking = any(finding.reason is Reason.CANARY_RUNNING for finding in intended.held.values())
        again_s = because.again_s or (LOOK_S if looking else None)
        return _ending(applied, nova, again_s, now=datetime.now(UTC))

    async def _still_there(self, nova: Nova) -> bool:
        """Ask whether the resource exists, before anything is made for it: its end may have passed us by (CENSUS-1)."""
        body = await self._kube.find(Ref(KIND, nova.namespace, nova.name))
        if body is not None and body["metadata"]["uid"] == nova.uid:
            return True
        log.info("resource_is_gone")
        if self._store.drop(nova.key, nova.uid):
            self._gone(nova.key)
        return False

    def _intend(self, acting: Nova, seen: Observed, found: Material, *, returning: bool) -> tuple[Plan, set[str]]:
        """Complete the material and plan. Returns the plan, and the Secrets of which foreign entries were taken."""
        setting = setting_of(acting, seen)
        kept = adopt(found, seen.foreign, setting)
        adopted = {name for name, data in kept.items() if data != found.get(name, {})}
        material = self._complete(kept, setting)
        self._observer.remember(acting.namespace, material)
        return self._plan(acting, seen, material, returning=returning), adopted

    def _plan(self, acting: Nova, seen: Observed, material: Material, *, returning: bool) -> Plan:
        left = self._fights_of(acting).lost()
        canaries = not returning and releases.canaries_wanted(acting, seen)
        built = self._made.of(acting, seen, material)
        intended = plan(acting, seen, material, returning=returning, canaries=canaries, left=left, built=built)
        return replace(intended, actions=(*intended.actions, *releases.repairs(acting, seen)))

    def _paused_view(self, acting: Nova, seen: Observed, found: Material, because: Because) -> View:
        """Return the view of a paused installation: what is wanted is computed, nothing is written or remembered."""
        try:
            setting = setting_of(acting, seen)
            material = self._complete(adopt(found, seen.foreign, setting), setting)
            intended = self._plan(acting, seen, material, returning=because.returned is not None)
        except NovaError as error:
            return View(blocked=Finding(error.reason, error.message))
        view = replace(view_of(intended, seen, None, because), conflicts=self._fights_of(acting).told())
        view = _with_last_good(acting, seen, view)
        return view if view.wanted else View(blocked=Finding(Reason.PAUSED, "spec.paused is true"))

    def _complete(self, kept: Material, setting: mint.Setting) -> Material:
        """Complete the material. What came of it lately is not proven anew in each turn (MINT-1)."""
        now = datetime.now(UTC)
        known = self._completed.get(setting.namespace)
        if known is not None and known.of(setting, kept, now):
            return known.material
        material = mint.complete(kept, setting, now=now, entropy=secrets.token_bytes, timing=self._rings.timing)
        self._completed[setting.namespace] = _Completed(setting, material, now)
        return material

    def forget(self, namespace: str) -> None:
        """Drop what is kept of an installation whose resource is gone."""
        self._completed.pop(namespace, None)
        self._made.forget(namespace)
        self._rings.forget(namespace)
        self._fights = {key: fights for key, fights in self._fights.items() if key[0] != namespace}

    def _fights_of(self, nova: Nova) -> Fights:
        """Return the memory of conflicts: a new one with each generation."""
        key = (nova.namespace, nova.uid)
        fights = self._fights.get(key)
        if fights is None or fights.generation != nova.generation:
            fights = self._fights[key] = Fights(nova.generation)
        return fights

    async def _judge(self, nova: Nova, after: Observed, intended: Plan, view: View) -> tuple[Observed, View, bool]:
        """Store the release when all of it is Ready; decide on the way back when it never will be.

        Returns what is observed now, the view, and whether the way back begins.
        """
        now = datetime.now(UTC)
        if condition_of(compute(nova, after, view, now=now), "Ready")["status"] == "True":
            storing = releases.keep(nova, after, intended.wanted)
            if storing.actions:
                await carry_out(
                    self._kube, self._observer, self._metrics, storing, live_of=after.objects.get, complete=False
                )
                after, _ = await self._observe(nova)
            return after, view, False
        target = releases.way_back(nova, after) if nova.spec.rollout.auto_rollback else None
        finding = None
        if target is not None:
            finding = releases.failure(nova, after, intended, target, now=now, refused=view.failed)
        if target is None or finding is None:
            return after, view, False
        finding = Finding(finding.reason, f"generation {nova.generation} was taken back: {finding.message}")
        log.warning("rollout_taken_back", reason=finding.reason, message=finding.message, release=target.number)
        await self._say(nova, after, replace(view, returned=finding, last_good=target.number))  # REL-2
        await self._tell(nova, Reason.ROLLED_BACK, finding.message, warning=True)
        return after, view, True

    def _until_window(self, nova: Nova, seen: Observed, because: Because, wait_s: float) -> tuple[Nova, Because]:
        target = releases.way_back(nova, seen)
        if target is None:
            raise Retry(Reason.INTERNAL_ERROR, "no release to keep until the window opens")
        when = releases.opening(wait_s, datetime.now(UTC))
        waiting = Finding(
            Reason.MAINTENANCE_WAIT,
            f"the change replaces pods and waits for the maintenance window, which {when}; "
            f"release {target.number} stays in force",
        )
        return releases.with_release(nova, target), replace(because, blocked=waiting, again_s=min(wait_s + 1, RESYNC_S))

    def _planned_view(self, nova: Nova, seen: Observed, found: Material, invalid: Finding | None) -> View:
        """Return the view of mode Plan: what Apply would do, and nothing done."""
        outlined = outline(nova, seen, found, invalid)
        if outlined.blocked is not None:
            return View(blocked=outlined.blocked)
        before = nova.status.get("plan") or {}
        body = outlined.as_dict()
        same = before.get("hash") == body["hash"]
        planned = {
            "hash": body["hash"],
            "at": before["at"] if same else datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            **body["summary"],
            "actions": [
                {key: change[key] for key in ("verb", "kind", "name", "consequence")}
                for change in body["changes"][:PLANNED_MAX]
            ],
        }
        words = "nothing would change" if not outlined.changes else f"{len(outlined.changes)} objects would be written"
        finding = Finding(Reason.PLANNED, f"spec.mode is Plan: {words}; status.plan has them")
        return _with_last_good(nova, seen, View(blocked=finding, planned=planned))

    async def _observe(self, nova: Nova) -> tuple[Observed, Material]:
        return await self._observer.observe(nova, self._store.siblings(nova))

    async def _blocked(self, nova: Nova, seen: Observed, finding: Finding | None) -> Turn:
        await self._say(nova, seen, View(blocked=finding))
        return Turn(again_s=BLOCKED_S)

    async def _say(self, nova: Nova, seen: Observed, view: View) -> None:
        """Write the status if it says something new."""
        current = self._store.get(nova.key)
        if current is None or current.uid != nova.uid or current.generation != nova.generation:
            return  # the spec moved on meanwhile; the next turn says it for the new generation
        status = compute(current, seen, replace(view, rings=self._rings.view(nova)), now=datetime.now(UTC))
        ready = condition_of(status, "Ready")
        for value in ("True", "False", "Unknown"):
            self._metrics.set(
                "novacore_platform_condition",
                float(ready["status"] == value),
                platform=nova.namespace,
                name=nova.name,
                condition="Ready",
                status=value,
            )
        if status == current.status:
            return
        body: dict[str, Any] = {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "metadata": {"name": nova.name, "namespace": nova.namespace, "uid": nova.uid},
            "status": status,
        }
        before = condition_of(current.status, "Ready")
        try:
            stored = await self._kube.apply(body, force=True, subresource="status")
        except NotFound:
            return  # deleted meanwhile
        if self._store.get(nova.key) is not None:  # else deleted right after: it must not come back
            self._store.put(stored)
        log.info("status_written", ready=ready["status"], reason=ready["reason"], services=status.get("services"))
        if (before.get("status"), before.get("reason")) != (ready["status"], ready["reason"]):
            await self._tell(nova, Reason(ready["reason"]), ready["message"], warning=_is_bad(ready))

    async def _tell_repairs(self, nova: Nova, applied: Applied, adopted: Collection[str]) -> None:
        for ref in applied.repaired:
            if ref.kind == "Secret" and ref.name in adopted:
                note = f"{ref} was changed while no operator ran: what is sound in it stays, the rest is new"
                await self._tell(nova, Reason.SECRET_ADOPTED, note, warning=True)
                continue
            reason = Reason.SECRET_RESTORED if ref.kind == "Secret" else Reason.DRIFT_REPAIRED
            await self._tell(nova, reason, f"{ref} was changed or deleted and has been put back", warning=False)

    async def _tell(self, nova: Nova, reason: Reason, note: str, *, warning: bool) -> None:
        """Post an Event, the same one at most once in ten minutes. Losing one loses nothing: the condition says it."""
        mark = (nova.uid, reason.value, note)
        now = time.monotonic()
        self._told = {key: at for key, at in self._told.items() if now - at < RESYNC_S}
        if mark in self._told:
            return
        self._told[mark] = now
        body = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"namespace": nova.namespace, "generateName": f"{nova.name[:40]}-"},
            "eventTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "reportingController": "novacore.ai/operator",
            "reportingInstance": self._identity[:128],
            "action": "Reconcile",
            "reason": reason.value,
            "note": note[:1000],
            "type": "Warning" if warning else "Normal",
            "regarding": {
                "apiVersion": API_VERSION,
                "kind": KIND,
                "namespace": nova.namespace,
                "name": nova.name,
                "uid": nova.uid,
            },
        }
        try:
            await self._kube.create_event(body)
        except (Blocked, Retry, NotFound) as error:
            log.warning("event_not_posted", reason=error.message)


def _is_bad(ready: Any) -> bool:
    under_way = {Reason.INSTALLING, Reason.ROLLING_OUT, Reason.MIGRATION_PENDING, Reason.MIGRATION_RUNNING}
    under_way |= {Reason.DATA_STORES_STARTING, Reason.SECRETS_PENDING, Reason.CANARY_RUNNING}
    return ready["status"] != "True" and ready["reason"] not in under_way


def view_of(intended: Plan, after: Observed, applied: Applied | None = None, because: Because | None = None) -> View:
    """Return what the status looks at: pending is judged anew, after the writes."""
    pending = {ref for ref, manifest in intended.wanted.items() if difference(ref, manifest, after) is not None}
    pending |= {action.ref for action in intended.actions if action.verb is Verb.DELETE and action.ref in after.objects}
    refused = next(iter(applied.refused.values()), None) if applied is not None else None
    return View(
        wanted=intended.wanted,
        pending=frozenset(pending),
        held=intended.held,
        job=intended.job,
        blocked=because.blocked if because is not None else None,
        failed=Finding(refused.reason, refused.message) if refused is not None else None,
        returned=because.returned if because is not None else None,
        attempt=because.attempt if because is not None else "",
        target=because.target if because is not None else None,
    )


def _with_last_good(nova: Nova, seen: Observed, view: View) -> View:
    newest = releases.last_good(nova, seen)
    return replace(view, last_good=newest.number if newest is not None else None)


def _was_complete(nova: Nova) -> bool:
    """Return whether this generation was carried out before: what is missing now was there."""
    return (
        nova.status.get("release", {}).get("current") == nova.spec.version
        and nova.status.get("observedGeneration") == nova.generation
    )


def _ending(applied: Applied, nova: Nova, again_s: float | None, *, now: datetime) -> Turn:
    if Outcome.CONFLICT in applied.outcomes.values():
        return Turn(again_s=0.0)  # at once, without the field that was lost
    if not applied.refused:
        return Turn(again_s=again_s or _deadline_s(nova, now) or RESYNC_S)
    fatal = next((error for error in applied.refused.values() if isinstance(error, Fatal)), None)
    if fatal is not None:
        raise fatal
    if all(isinstance(error, Blocked) for error in applied.refused.values()):
        return Turn(again_s=BLOCKED_S)
    after = next((error.after_s for error in applied.refused.values() if isinstance(error, Retry)), None)
    return Turn(failed=True, again_s=after)


def _sooner(turn: Turn, again_s: float | None) -> Turn:
    """Return the end of a turn after which the keys are looked at in time. A failure has a pause of its own."""
    if again_s is None or turn.failed or turn.again_s is None:
        return turn
    return replace(turn, again_s=min(turn.again_s, again_s))


def _deadline_s(nova: Nova, now: datetime) -> float | None:
    """Return when to look again at a roll-out whose time is nearly over: a data store's end makes no event."""
    since = releases.started(nova)
    if since is None or condition_of(nova.status, "Ready").get("status") == "True":
        return None
    left = nova.spec.rollout.progress_deadline_seconds - (now - since).total_seconds()
    return left + 1 if 0 < left < RESYNC_S else None
