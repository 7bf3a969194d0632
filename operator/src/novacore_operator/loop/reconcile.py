"""One turn for one resource: observe, complete the material, plan, apply, status."""

from __future__ import annotations

import secrets
import time
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from novacore_operator.api import API_VERSION, KIND
from novacore_operator.apply import Applied, carry_out
from novacore_operator.errors import Blocked, Fatal, NovaError, Retry
from novacore_operator.kube import Kube, NotFound
from novacore_operator.loop.store import Key, Store
from novacore_operator.observe.observer import Observer
from novacore_operator.plan import Plan, Verb, difference, plan, setting_of
from novacore_operator.policies import Finding, first
from novacore_operator.policies.admission import MAY_ACT
from novacore_operator.reasons import Reason
from novacore_operator.rotation import mint
from novacore_operator.rotation.adopt import adopt
from novacore_operator.state import Material, Nova, Observed
from novacore_operator.status import View, compute, condition_of
from novacore_operator.telemetry import Log, Metrics, context

log = Log(__name__)

RESYNC_S = 600.0
BLOCKED_S = 20.0
"""A person acts in his own time; some of what he does (a Secret, a grant) makes no event for us."""


@dataclass(frozen=True, slots=True)
class Turn:
    """How a turn ended: when to come again, and whether it failed."""

    failed: bool = False
    again_s: float | None = RESYNC_S


class Reconciler:
    """What one turn needs."""

    def __init__(self, kube: Kube, observer: Observer, store: Store, metrics: Metrics, *, identity: str) -> None:
        self._kube = kube
        self._observer = observer
        self._store = store
        self._metrics = metrics
        self._identity = identity
        self._told: dict[tuple[str, str, str], float] = {}

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
        seen, found = await self._observer.observe(nova, self._store.siblings(nova))
        blocked = self._store.invalid(nova.key) or first(MAY_ACT, nova, seen)
        if blocked is not None:
            await self._say(nova, seen, View(blocked=blocked))
            return Turn(again_s=BLOCKED_S)
        if nova.spec.paused:
            await self._say(nova, seen, _paused_view(nova, seen, found))
            return Turn()
        try:
            found = adopt(found, seen.foreign, setting_of(nova, seen))
        except Blocked as error:
            await self._say(nova, seen, View(blocked=Finding(error.reason, error.message)))
            return Turn(again_s=BLOCKED_S)
        material = mint.complete(found, setting_of(nova, seen), now=datetime.now(UTC), entropy=secrets.token_bytes)
        self._observer.remember(nova.namespace, material)
        intended = plan(nova, seen, material)
        applied = await carry_out(
            self._kube,
            self._observer,
            self._metrics,
            intended,
            live_of=seen.objects.get,
            complete=nova.status.get("release", {}).get("current") == nova.spec.version
            and nova.status.get("observedGeneration") == nova.generation,
        )
        after, _ = await self._observer.observe(nova, self._store.siblings(nova)) if applied.outcomes else (seen, found)
        await self._say(nova, after, view_of(intended, after, applied))
        await self._tell_repairs(nova, applied)
        return _ending(applied)

    async def _say(self, nova: Nova, seen: Observed, view: View) -> None:
        """Write the status if it says something new."""
        current = self._store.get(nova.key)
        if current is None or current.uid != nova.uid or current.generation != nova.generation:
            return  # the spec moved on meanwhile; the next turn says it for the new generation
        status = compute(current, seen, view, now=datetime.now(UTC))
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
            self._store.put(await self._kube.apply(body, force=True, subresource="status"))
        except NotFound:
            return  # deleted meanwhile
        log.info("status_written", ready=ready["status"], reason=ready["reason"], services=status.get("services"))
        if (before.get("status"), before.get("reason")) != (ready["status"], ready["reason"]):
            await self._tell(nova, Reason(ready["reason"]), ready["message"], warning=_is_bad(ready))

    async def _tell_repairs(self, nova: Nova, applied: Applied) -> None:
        for ref in applied.repaired:
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
    under_way |= {Reason.DATA_STORES_STARTING, Reason.SECRETS_PENDING}
    return ready["status"] != "True" and ready["reason"] not in under_way


def view_of(intended: Plan, after: Observed, applied: Applied | None = None) -> View:
    """Return what the status looks at: pending is judged anew, after the writes."""
    pending = {ref for ref, manifest in intended.wanted.items() if difference(ref, manifest, after) is not None}
    pending |= {action.ref for action in intended.actions if action.verb is Verb.DELETE and action.ref in after.objects}
    refused = next(iter(applied.refused.values()), None) if applied is not None else None
    return View(
        wanted=intended.wanted,
        pending=frozenset(pending),
        held=intended.held,
        job=intended.job,
        failed=Finding(refused.reason, refused.message) if refused is not None else None,
    )


def _paused_view(nova: Nova, seen: Observed, found: Material) -> View:
    """Return the view of a paused installation: what is wanted is computed, nothing is written."""
    try:
        setting = setting_of(nova, seen)
        kept = adopt(found, seen.foreign, setting)
        complete = mint.complete(kept, setting, now=datetime.now(UTC), entropy=secrets.token_bytes)
        intended = plan(nova, seen, complete)
    except NovaError as error:
        return View(blocked=Finding(error.reason, error.message))
    view = view_of(intended, seen)
    return view if view.wanted else View(blocked=Finding(Reason.PAUSED, "spec.paused is true"))


def _ending(applied: Applied) -> Turn:
    if not applied.refused:
        return Turn()
    fatal = next((error for error in applied.refused.values() if isinstance(error, Fatal)), None)
    if fatal is not None:
        raise fatal
    if all(isinstance(error, Blocked) for error in applied.refused.values()):
        return Turn(again_s=BLOCKED_S)
    after = next((error.after_s for error in applied.refused.values() if isinstance(error, Retry)), None)
    return Turn(failed=True, again_s=after)
