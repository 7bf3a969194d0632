"""What must hold before a key signs, and before it is forgotten: two ordered chains, the first objection wins.

Invariants: GUARD-1 a scheduled rotation never switches while one live pod lacks the proof. GUARD-2 a key is retired
only when its last token has ended, no pod has accepted it lately, and no pod carries a token of it.
A guard gets what was seen and answers with one sentence, or None when it does not object.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from novacore_contracts.keyset import RingKey
from novacore_operator.rotation import proof, rings, schedule, triggers
from novacore_operator.rotation.history import Outcome
from novacore_operator.rotation.schedule import OnStraggler
from novacore_operator.rotation.seen import Seen
from novacore_operator.rotation.triggers import Trigger, Verb


class Why(StrEnum):
    """The cause of an objection: also the `reason` label of failures."""

    RETIRING = "retiring"
    UNRECORDED = "unrecorded"
    BUSY = "busy"
    UNPROVEN = "unproven"
    NOT_HELD = "not_held"
    CLOCK = "clock_skew"
    TOKENS_LIVE = "tokens_live"
    SIGNER_BEHIND = "signer_behind"
    SILENT = "silent"
    STILL_USED = "retire_overdue"


@dataclass(frozen=True, slots=True)
class Objection:
    """Why not yet."""

    why: Why
    message: str
    pods: tuple[str, ...] = ()


BeforeSwitch = Callable[[Seen, float, Trigger], Objection | None]
BeforeRetire = Callable[[Seen, float, RingKey], Objection | None]


def due(seen: Seen, now: float) -> Trigger | None:
    """Return what asks for a rotation now: a person, a lost private half, or the schedule."""
    document = seen.good
    for trigger in seen.triggers:
        if trigger.verb is Verb.ROTATE and not triggers.done(document.last_trigger, trigger):
            return trigger
    standby = rings.pending(document)
    name = rings.entry_name(seen.ring, standby.n if standby is not None else document.seq + 1)
    if seen.live and seen.half(document.active_kid) is None and document.active_kid not in seen.restorable:
        return Trigger(Verb.REPAIR, seen.ring, name, reason="the private half of the signing key is lost")
    at = schedule.next_rotation(
        seen.policy, since=document.active.since, uid=seen.uid, ring=seen.ring, seq=document.active.n
    )
    if at is not None and now >= at and schedule.is_open(seen.policy, now):
        return Trigger(Verb.SCHEDULE, seen.ring, name)
    return None


# --- before a key signs -----------------------------------------------------------------------------------------------


def another_ring(seen: Seen, now: float, trigger: Trigger) -> Objection | None:
    """One ring at a time: two at once would tell nobody which of them a pod failed."""
    del now, trigger
    return Objection(Why.BUSY, f"ring {seen.busy_ring} is in the middle of a rotation") if seen.busy_ring else None


def too_many_retiring(seen: Seen, now: float, trigger: Trigger) -> Objection | None:
    """With two retiring keys the next standby would be the fifth trusted key."""
    del now, trigger
    found = rings.retiring(seen.good)
    if len(found) <= 1:
        return None
    return Objection(
        Why.RETIRING, f"{len(found)} keys are retiring, expected one at most: their tokens are still alive"
    )


def unrecorded(seen: Seen, now: float, trigger: Trigger) -> Objection | None:
    """The switch before this one must be proven once more after 30 s, and be in the history."""
    del now, trigger
    last = last_switch(seen)
    if last == seen.good.active_kid:
        return None
    return Objection(Why.UNRECORDED, "the last switch is not in the history yet")


def unproven(seen: Seen, now: float, trigger: Trigger) -> Objection | None:
    """A pod that would refuse the new key, or a signer that could not use it."""
    standby = rings.pending(seen.good)
    if standby is None:
        return Objection(Why.UNPROVEN, "there is no standby yet")
    found = proof.of(seen, standby.kid, without=passed_over(seen, now, trigger))
    if found.complete:
        return None
    names = tuple(straggler.name for straggler in found.stragglers)
    first = found.stragglers[0] if found.stragglers else "no pod answers"
    return Objection(Why.UNPROVEN, f"{found.share} pods have proven the standby; {first}", names)


def not_held(seen: Seen, now: float, trigger: Trigger) -> Objection | None:
    """One lucky look is no proof: a pod may have been between two processes."""
    standby = rings.pending(seen.good)
    proven = seen.memory.proven
    if passed_over(seen, now, trigger):
        return None
    held = standby is not None and proven is not None and proven[0] == standby.kid
    if held and proven is not None and now - proven[1] >= seen.timing.hold_s:
        return None
    return Objection(Why.NOT_HELD, f"the proof must hold for {seen.timing.hold_s:g} s")


def clock_off(seen: Seen, now: float, trigger: Trigger) -> Objection | None:
    """A clock beyond the verifiers' leeway refuses good tokens, whichever key made them."""
    del now, trigger
    found = proof.skewed(seen, seen.timing.skew_block_s)
    if not found:
        return None
    return Objection(Why.CLOCK, f"{found[0]}: mend its node's clock", tuple(pod.name for pod in found))


def passed_over(seen: Seen, now: float, trigger: Trigger) -> frozenset[str]:
    """Return the stragglers that a person, not a schedule, wants to be passed over after the timeout."""
    if seen.policy.on_straggler is not OnStraggler.FORCE or trigger.verb is not Verb.ROTATE:
        return frozenset()
    return frozenset(uid for uid, since in seen.memory.missing.items() if now - since >= seen.timing.ack_timeout_s)


# --- before a key is forgotten ----------------------------------------------------------------------------------------


def tokens_live(seen: Seen, now: float, key: RingKey) -> Objection | None:
    """Its last token was signed at t0 at the latest, when the last signer took in the switch."""
    since = retired_from(seen, key)
    if since is None:
        return Objection(Why.SIGNER_BEHIND, "not every signer has taken in the switch")
    end = since + seen.good.ttl_max + seen.timing.overlap_margin_s
    return None if now >= end else Objection(Why.TOKENS_LIVE, f"its tokens live for {end - now:.0f} s more")


def silent(seen: Seen, now: float, key: RingKey) -> Objection | None:
    """A pod that does not answer may be using it."""
    del now, key
    mute = tuple(pod.name for pod in seen.consumers if pod.report is None)
    if not mute and seen.consumers:
        return None
    return Objection(Why.SILENT, f"{mute[0] if mute else 'no pod'} does not answer: it may still use the key", mute)


def still_used(seen: Seen, now: float, key: RingKey) -> Objection | None:
    """Times are a calculation; this is what the pods have done."""
    for pod in seen.consumers:
        report = pod.report
        if report is None:
            continue
        if report.token_kid == key.kid:
            return Objection(Why.STILL_USED, f"{pod.name} still carries a token of {key.kid}", (pod.name,))
        last = report.last_ok.get(key.kid)
        if last is not None and now - (last - report.skew_s) < seen.timing.quiet_s:
            return Objection(Why.STILL_USED, f"{pod.name} accepted {key.kid} a short while ago", (pod.name,))
    return None


def retired_from(seen: Seen, key: RingKey) -> float | None:
    """Return t0 of the switch away from `key`: as recorded, else that of the latest switch, which is not before it."""
    live = seen.switched_at
    if live is None:
        return None
    for entry in seen.history:
        if entry.outcome in (Outcome.ACTIVATED, Outcome.ROLLED_BACK) and key.kid in entry.kids[1:2]:
            recorded = dict(entry.times).get("t0")
            if recorded is not None and recorded >= key.since:
                return float(recorded)
    return live


def last_switch(seen: Seen) -> str:
    """Return the kid that the newest switch in the history made active, or nothing."""
    switches = [entry for entry in seen.history if entry.outcome in (Outcome.ACTIVATED, Outcome.ROLLED_BACK)]
    return switches[-1].kids[0] if switches else ""


@dataclass(frozen=True, slots=True)
class Guards:
    """The two chains. An argument of `plan`, so that a test can show what each guard is worth."""

    switch: tuple[BeforeSwitch, ...] = (
        another_ring,
        too_many_retiring,
        unrecorded,
        unproven,
        not_held,
        clock_off,
    )
    retire: tuple[BeforeRetire, ...] = (tokens_live, silent, still_used)

    def before_switch(self, seen: Seen, now: float, trigger: Trigger) -> Objection | None:
        """Return the first objection to a switch."""
        return next((found for guard in self.switch if (found := guard(seen, now, trigger)) is not None), None)

    def before_retire(self, seen: Seen, now: float, key: RingKey) -> Objection | None:
        """Return the first objection to retiring a key."""
        return next((found for guard in self.retire if (found := guard(seen, now, key)) is not None), None)


GUARDS = Guards()
