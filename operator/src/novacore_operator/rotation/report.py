"""What is told about a ring: its phase, what holds it up, and when to look again. Pure, beside `machine.plan`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from novacore_contracts.keyset import TRUSTED_KEYS_MAX
from novacore_operator.rotation import emergency, guards, machine, proof, rings, schedule
from novacore_operator.rotation.guards import GUARDS, Guards, Why
from novacore_operator.rotation.proof import Straggler
from novacore_operator.rotation.seen import Seen
from novacore_operator.rotation.triggers import Verb


class Phase(StrEnum):
    """Where a ring is. The overlap of two keys counts as idle."""

    IDLE = "idle"
    PUBLISH = "publish"
    PROVE = "prove"
    ACTIVATE = "activate"
    RETIRE = "retire"
    REVOKE = "revoke"


class Word(StrEnum):
    """Kinds of warning, as the reasons of Events name them."""

    CLOCK_SKEW = "ClockSkew"
    SCHEDULE_INVALID = "ScheduleInvalid"
    TRIGGER_REFUSED = "TriggerRefused"


@dataclass(frozen=True, slots=True)
class Report:
    """One ring, for status, conditions, Events and metrics. The sentences name pods and causes."""

    phase: Phase
    acked: str = ""  # `26/27`, of the current generation
    stragglers: tuple[Straggler, ...] = ()
    blocked: tuple[str, ...] = ()  # condition RotationBlocked
    incomplete: tuple[str, ...] = ()  # condition EmergencyIncomplete
    overdue: tuple[str, ...] = ()  # keys that should be retired and are still used
    failures: tuple[str, ...] = ()  # `ack_timeout` and its like, for the counter
    warnings: tuple[tuple[Word, str], ...] = ()  # what a person may want to mend, and its kind
    next_rotation: float | None = None
    look_again_s: float = 0.0


def report(seen: Seen, now: float, guard: Guards = GUARDS) -> Report:
    """Return what to tell about one ring at this instant."""
    if seen.document is None:
        return Report(Phase.IDLE, look_again_s=seen.timing.busy_look_s)
    phase = phase_of(seen, now)
    blocked, failures, late = _blocked(seen, now, guard)
    overdue = _overdue(seen, now, guard)
    acked = [pod for pod in seen.consumers if pod.report and pod.report.generation >= seen.good.generation]
    found = schedule.next_rotation(
        seen.policy, since=seen.good.active.since, uid=seen.uid, ring=seen.ring, seq=seen.good.active.n
    )
    return Report(
        phase=phase,
        acked=f"{len(acked)}/{len(seen.consumers)}",
        stragglers=late,
        blocked=blocked,
        incomplete=_incomplete(seen),
        overdue=overdue,
        failures=(*failures, *((Why.STILL_USED,) if overdue else ())),
        warnings=_warnings(seen),
        next_rotation=found,
        look_again_s=_look_again_s(seen, now, phase, found),
    )


def phase_of(seen: Seen, now: float) -> Phase:
    """Return the phase, by what is there: nothing stores it."""
    document = seen.good
    standby = rings.pending(document)
    if emergency.is_open(seen) or emergency.is_wanted(seen):
        return Phase.REVOKE
    unproven = standby is not None and standby.kid not in seen.memory.evidence
    relisted = now >= document.active.since + seen.timing.relist_s
    if guards.last_switch(seen) != document.active_kid and not (relisted and unproven):
        return Phase.ACTIVATE
    if standby is None and len(document.keys) < TRUSTED_KEYS_MAX:
        return Phase.PUBLISH
    if standby is not None and (standby.kid not in seen.memory.evidence or guards.due(seen, now) is not None):
        behind = any(pod.report is None or standby.kid not in pod.report.kids for pod in seen.consumers)
        return Phase.PUBLISH if behind else Phase.PROVE
    if any(_time_is_over(seen, now, key.kid) for key in rings.retiring(document)):
        return Phase.RETIRE
    return Phase.IDLE


def _time_is_over(seen: Seen, now: float, kid: str) -> bool:
    key = rings.key_of(seen.good, kid)
    return key is not None and guards.tokens_live(seen, now, key) is None


def _blocked(seen: Seen, now: float, guard: Guards) -> tuple[tuple[str, ...], tuple[str, ...], tuple[Straggler, ...]]:
    """Return what holds a rotation up for longer than a moment, the failures it counts as, and the pods."""
    standby = rings.pending(seen.good)
    if standby is None:
        return (), (), ()
    stragglers = proof.of(seen, standby.kid).stragglers if standby.kid in seen.canaries else ()
    since = {item.uid: now - seen.memory.missing.get(item.uid, now) for item in stragglers}
    late = tuple(item for item in stragglers if since[item.uid] >= seen.timing.blocked_after_s)
    failures = ("ack_timeout",) if any(age >= seen.timing.ack_timeout_s for age in since.values()) else ()
    told = tuple(str(item) for item in late)
    trigger = guards.due(seen, now)
    if trigger is not None and guard.before_switch(seen, now, trigger) is not None:
        clock = guards.clock_off(seen, now, trigger)
        if clock is not None:
            return (*told, clock.message), (*failures, str(clock.why)), late
        full = guards.too_many_retiring(seen, now, trigger)
        if full is not None:
            return (*told, full.message), failures, late
    return told, failures, late


def _overdue(seen: Seen, now: float, guard: Guards) -> tuple[str, ...]:
    """Return keys whose time is over and that something still holds."""
    found = []
    for key in rings.retiring(seen.good):
        if _time_is_over(seen, now, key.kid):
            objection = guard.before_retire(seen, now, key)
            if objection is not None:
                found.append(objection.message)
    return tuple(found)


def _incomplete(seen: Seen) -> tuple[str, ...]:
    """Return the pods that may still accept a revoked key."""
    found = {
        str(straggler)
        for stone in emergency.open_revocations(seen)
        for straggler in proof.refusal(seen, stone.kid, emergency.made_at(seen.good, stone)).stragglers
    }
    denial = emergency.open_denial(seen)
    if denial is not None:
        found.add(f"tokens of {denial.sub} may still be accepted, or its old pods still run")
    if emergency.is_wanted(seen):
        found.add("it is asked for, and not written yet")
    return tuple(sorted(found))


def _warnings(seen: Seen) -> tuple[tuple[Word, str], ...]:
    found = [(Word.CLOCK_SKEW, str(item)) for item in proof.skewed(seen, seen.timing.skew_warn_s)]
    schedule_fault = schedule.without_window(seen.policy, since=seen.good.active.since)
    if schedule_fault is not None:
        found.append((Word.SCHEDULE_INVALID, f"{seen.ring}: {schedule_fault}"))
    for trigger in emergency.undone(seen, Verb.REVOKE):
        unknown = [kid for kid in trigger.subjects if rings.key_of(seen.good, kid) is None]
        found += [
            (
                Word.TRIGGER_REFUSED,
                f"{seen.ring}: {kid} is not a trusted key, expected one of this ring's: it was not revoked",
            )
            for kid in unknown
            if kid not in rings.revoked(seen.good)
        ]
    return tuple(found)


def _look_again_s(seen: Seen, now: float, phase: Phase, due: float | None) -> float:
    """Return the seconds until something may have changed by itself."""
    timing = seen.timing
    if phase is Phase.REVOKE:
        return timing.busy_look_s
    if phase not in (Phase.IDLE, Phase.RETIRE) or machine.plan(seen, now):
        return _busy_look_s(seen, now, due)
    times = [timing.idle_look_s]
    if due is not None:
        times.append(due - now)
    for key in rings.retiring(seen.good):
        since = guards.retired_from(seen, key)
        if since is not None:
            end = since + seen.good.ttl_max + timing.overlap_margin_s
            times += [end - now, max(since, key.since) + timing.destroy_private_s - now]
    return max(min((item for item in times if item > 0), default=timing.idle_look_s), timing.busy_look_s)


def _busy_look_s(seen: Seen, now: float, due: float | None) -> float:
    """Return the pause between looks: the longer nothing has moved, the longer."""
    timing = seen.timing
    begun = [float(seen.good.issued_at), *seen.memory.asked.values()]
    if due is not None and due <= now:
        begun.append(due)
    age = now - max(begun)
    if age < timing.eager_s:
        return timing.busy_look_s
    return timing.patient_look_s if age < timing.ack_timeout_s else timing.tired_look_s
