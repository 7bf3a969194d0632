"""Revoking keys, refusing one service's tokens, and fencing pods that do not follow. From any phase, without a window.

Invariants: EMERG-1 a revocation is one generation: no document refuses the old key and lets nobody sign. EMERG-2 a
standby that a pod which answers has not proven, or that was named too, never takes over: a fresh key does, minted for
this trigger. EMERG-3 an emergency is over only when each pod that takes requests has refused a canary of the revoked
key by `kid_revoked`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from novacore_contracts.keyset import Deny, RingDocument, RingKey, Tombstone
from novacore_operator.rotation import history, proof, rings, triggers
from novacore_operator.rotation.actions import (
    Action,
    Disprove,
    DropHalf,
    FencePod,
    MintHalf,
    Prove,
    ReadLive,
    Record,
    RemovePod,
    Step,
    WriteDocument,
)
from novacore_operator.rotation.history import Entry, Outcome
from novacore_operator.rotation.seen import Pod, Seen
from novacore_operator.rotation.triggers import Mode, Trigger, Verb

RINGS_WITH_CALLERS = frozenset({"serviceJwt"})
"""Whose tokens our own services carry, and renew when they are told to. Users are told by nothing but a 401."""


def token_life_s(document: RingDocument) -> int:
    """Return how long after its making a token may be accepted anywhere."""
    return document.ttl_max + 2 * document.leeway


def undone(seen: Seen, verb: Verb) -> tuple[Trigger, ...]:
    """Return the triggers of one verb that were not carried out yet."""
    last = seen.good.last_trigger
    return tuple(item for item in seen.triggers if item.verb is verb and not triggers.done(last, item))


# --- revoke -----------------------------------------------------------------------------------------------------------


def revoke(seen: Seen, now: float) -> list[Action]:
    """Return the next step towards a document that refuses the keys a person named."""
    for trigger in undone(seen, Verb.REVOKE):
        named = tuple(kid for kid in trigger.subjects if rings.key_of(seen.good, kid) is not None)
        if not named:
            continue  # gone already, or never there: `report` says so
        if trigger.mode is Mode.DRAIN:
            return _drain(seen, now, trigger, named)
        return _revoke(seen, now, trigger, named)
    return []


def _revoke(seen: Seen, now: float, trigger: Trigger, named: tuple[str, ...]) -> list[Action]:
    document = seen.good
    if document.active_kid not in named:
        return [_revocation(seen, now, trigger, named)]
    standby = rings.pending(document)
    if standby is not None and standby.kid not in named:
        usable = _usable(seen, standby, answering=True)
        if usable is None:
            return [Prove(standby.kid)]
        if usable:
            return [_revocation(seen, now, trigger, named)]
    fresh = next((half for half in seen.halves if half.why == trigger.mark and half.n > document.seq), None)
    if fresh is None:
        if not seen.live:
            return [ReadLive()]
        return [MintHalf(Step.MINT, next_number(seen), trigger.mark, seen.private_version)]
    whole = {*named, *((standby.kid,) if standby is not None else ())}
    return [_revocation(seen, now, trigger, sorted(whole), fresh)]


def _revocation(
    seen: Seen, now: float, trigger: Trigger, kids: Iterable[str], fresh: rings.Half | None = None
) -> WriteDocument:
    document = rings.revoke(
        seen.good,
        kids,
        now=int(now),
        until=int(now) + token_life_s(seen.good),
        trigger=triggers.marked(seen.good.last_trigger, trigger),
        fresh=fresh,
    )
    return WriteDocument(Step.REVOKE, document, seen.document_version, "KeyRevoked")


def _usable(seen: Seen, standby: RingKey, *, answering: bool) -> bool | None:
    """Return whether the standby may sign at once. None: nobody has been asked.

    A proof that was complete once counts here: what a pod has taken in, it does not forget. `answering`: pods that give
    no answer are left out. They are fenced anyway, and a fresh key would be refused by all pods, not by them alone.
    """
    if seen.half(standby.kid) is None:
        return False
    if standby.kid in seen.memory.evidence:
        return True
    if standby.kid not in seen.canaries:
        return None
    return proof.of(seen, standby.kid, answering=answering).complete


def _drain(seen: Seen, now: float, trigger: Trigger, named: tuple[str, ...]) -> list[Action]:
    """Switch first and have callers renew, then revoke: nobody is refused on the way."""
    document = seen.good
    asked = seen.memory.asked.get(trigger.mark, now)
    if document.active_kid in named:
        standby = rings.pending(document)
        if standby is not None and standby.kid not in named and _usable(seen, standby, answering=False):
            switched = rings.activate(document, now=int(now), trigger=document.last_trigger, renew_now=True)
            return [WriteDocument(Step.SWITCH, switched, seen.document_version, "KeyActivated")]
        if now - asked < seen.timing.drain_patience_s:
            return [Prove(standby.kid)] if standby is not None else []
        return _revoke(seen, now, trigger, named)
    if _drained(seen, now, named, asked):
        return [_revocation(seen, now, trigger, named)]
    return []


def _drained(seen: Seen, now: float, named: tuple[str, ...], asked: float) -> bool:
    """Return whether nobody carries a token of these keys any more, or was given the time to renew it."""
    keys = [key for kid in named if (key := rings.key_of(seen.good, kid)) is not None]
    if all(key.state == "pending" for key in keys):
        return True
    since = max(asked, *(key.since for key in keys))
    if seen.ring not in RINGS_WITH_CALLERS:
        return now >= since + seen.good.ttl_max + seen.timing.clock_margin_s
    if now >= since + seen.timing.drain_patience_s:
        return True
    pods = seen.serving(now)
    switched = seen.switched_at is not None
    return switched and all(
        pod.report is not None and pod.report.generation >= seen.good.generation and pod.report.token_kid not in named
        for pod in pods
    )


# --- deny -------------------------------------------------------------------------------------------------------------


def deny(seen: Seen, now: float) -> list[Action]:
    """Return the document that refuses what a stolen service has been given so far."""
    for trigger in undone(seen, Verb.DENY):
        ahead = max((pod.report.skew_s for pod in seen.signers if pod.report is not None), default=0.0)
        entry = Deny(sub=trigger.subjects[0], iat_before=math.floor(now + max(ahead, 0.0)) + 1)
        document = rings.deny(seen.good, entry, now=int(now), trigger=triggers.marked(seen.good.last_trigger, trigger))
        return [WriteDocument(Step.REVOKE, document, seen.document_version, "EmergencyStarted")]
    return []


# --- until everyone follows -------------------------------------------------------------------------------------------


def open_revocations(seen: Seen) -> tuple[Tombstone, ...]:
    """Return the revoked keys that some pod may still accept: their private half is kept until none does."""
    told = {kid for entry in seen.history if entry.outcome is Outcome.REVOKED for kid in entry.kids}
    return tuple(
        stone
        for stone in seen.good.tombstones
        if stone.why == "revoked"
        and (seen.half(stone.kid) is not None or not (stone.kid in told or _forgotten(seen, stone)))
    )


def _forgotten(seen: Seen, stone: Tombstone) -> bool:
    return history.forgotten(seen.history, made_at(seen.good, stone), length=seen.policy.history)


def made_at(document: RingDocument, stone: Tombstone) -> int:
    """Return when a tombstone was set: it ends one life of a token later."""
    return stone.until - token_life_s(document)


def open_denial(seen: Seen) -> Deny | None:
    """Return the denial whose end is not in the history yet."""
    mark = triggers.latest(seen.good.last_trigger, Verb.DENY)
    if not mark or not seen.good.deny or any(entry.trigger == mark for entry in seen.history):
        return None
    last = seen.good.deny[-1]
    return None if history.forgotten(seen.history, last.iat_before or 0, length=seen.policy.history) else last


def is_wanted(seen: Seen) -> bool:
    """Return whether a person has asked for something that only an emergency does, and it is still to be done."""
    named = (kid for trigger in undone(seen, Verb.REVOKE) for kid in trigger.subjects)
    return any(rings.key_of(seen.good, kid) is not None for kid in named) or bool(undone(seen, Verb.DENY))


def is_open(seen: Seen) -> bool:
    """Return whether an emergency is under way."""
    return bool(open_revocations(seen)) or open_denial(seen) is not None


def converge(seen: Seen, now: float) -> list[Action]:
    """Return what brings the pods to follow: canaries of the old key, fencing, and the end of the emergency."""
    found: list[Action] = [
        RemovePod(Step.DELETE_POD, pod.name, pod.uid, evict=False)
        for pod in seen.pods
        if pod.fenced and not pod.terminating
    ]
    for stone in open_revocations(seen):
        found += _follow_revocation(seen, now, stone)
    denial = open_denial(seen)
    if denial is not None:
        found += _follow_denial(seen, now, denial)
    return found


def _follow_revocation(seen: Seen, now: float, stone: Tombstone) -> list[Action]:
    half = seen.half(stone.kid)
    if half is not None and stone.kid not in seen.canaries:
        return [Disprove(stone.kid)]
    found: list[Action] = [
        RemovePod(Step.DELETE_POD, pod.name, pod.uid, evict=False) for pod in _signers_without_key(seen)
    ]
    refusal = proof.refusal(seen, stone.kid, made_at(seen.good, stone))
    if now >= made_at(seen.good, stone) + seen.timing.fence_after_s:
        found += fence(seen, now, refusal.stragglers)
    if found or not refusal.complete:
        return found
    if half is not None:
        if not seen.live:
            return [ReadLive()]
        return [DropHalf(Step.DESTROY_REVOKED, half.name, half.kid, seen.private_version)]
    return [Record(Step.RECORD_END, _end_of_revocation(seen, now, stone, refusal), seen.status_version)]


def _end_of_revocation(seen: Seen, now: float, stone: Tombstone, refusal: proof.Proof) -> Entry:
    mark = triggers.latest(seen.good.last_trigger, Verb.REVOKE)
    trigger = next((item for item in seen.triggers if item.mark == mark), None)
    since = made_at(seen.good, stone)
    return Entry(
        id=stone.kid,
        outcome=Outcome.REVOKED,
        trigger=mark,
        at=int(now),
        generation=seen.good.generation,
        kids=(stone.kid,),
        actor=trigger.actor if trigger is not None else "",
        reason=trigger.reason if trigger is not None else "",
        seconds=round(max(now - since, 0.0), 1),
        acked=refusal.share,
        acks_sha256=refusal.evidence(now).sha256,
        times=(("revoked", since),),
    )


def _follow_denial(seen: Seen, now: float, denial: Deny) -> list[Action]:
    """The service's pods go, and their projected tokens with them; the other pods must have taken the denial in."""
    since = denial.iat_before or 0
    old = [pod for pod in seen.pods if pod.service == denial.sub and pod.created_at < since]
    behind = [pod for pod in seen.serving(since) if pod.report is None or pod.report.generation < seen.good.generation]
    found: list[Action] = [
        RemovePod(Step.DELETE_POD, pod.name, pod.uid, evict=False) for pod in old if not pod.terminating
    ]
    if now >= since + seen.timing.fence_after_s:
        late = [proof.Straggler(pod.name, pod.uid, "has not taken in the denial") for pod in behind if pod not in old]
        found += fence(seen, now, late)
    if found or behind or old:
        return found
    mark = triggers.latest(seen.good.last_trigger, Verb.DENY)
    total = len(seen.serving(since))
    entry = Entry(
        id=f"deny-{denial.sub}",
        outcome=Outcome.DENIED,
        trigger=mark,
        at=int(now),
        generation=seen.good.generation,
        seconds=round(max(now - since, 0.0), 1),
        acked=f"{total}/{total}",
    )
    return [Record(Step.RECORD_END, entry, seen.status_version)]


def fence(seen: Seen, now: float, stragglers: Iterable[proof.Straggler]) -> list[Action]:
    """Take stragglers out of their Services; a pod that was made just now has as much time as the others had.

    If no pod at all answers, it is the operator that is cut off: none.
    """
    if all(pod.report is None for pod in seen.consumers):
        return []
    young = {pod.uid for pod in seen.pods if now - pod.created_at < seen.timing.fence_after_s}
    return [FencePod(Step.UNLABEL, item.name, item.uid, item.cause) for item in stragglers if item.uid not in young]


def _signers_without_key(seen: Seen) -> list[Pod]:
    """Return signers, older than the key that signs, without its private half: a new pod mounts it at once."""
    active = seen.good.active
    return [
        pod
        for pod in seen.signers
        if pod.report is not None
        and active.kid not in pod.report.signer_kids
        and pod.created_at < active.since
        and not pod.terminating
        and seen.half(active.kid) is not None
    ]


def next_number(seen: Seen) -> int:
    """Return a number that no key has had, whether it came into the document or not."""
    return max((seen.good.seq, *(half.n for half in seen.halves))) + 1
