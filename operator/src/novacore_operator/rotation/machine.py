"""The rotation of one ring: `plan(seen, now)` returns what to do next, and is called again after each look and write.

It is pure and holds no state: what it decides follows from the document, the private entries, the live pods and the
history, so whoever dies after any write, the next call goes on from there. Of the writes it returns at most one is to
the document, the private Secret or the history; asks come beside it. How a rotation goes, in the order of the writes:

    W1 private half -> W2 standby: trusted, signs nothing -> every pod proves it -> W3 it signs -> W4 in the history
    -> W5 the old private half is destroyed -> W6 the old key is forgotten -> W7 in the history

Invariants: ROT-1 a valid token is refused by no pod that takes requests. ROT-2 a revoked key is accepted by no pod
after that pod has acknowledged. ROT-3 one active key, at most one pending, at most four trusted. ROT-4 generations only
grow. ROT-5 what signs is trusted by all. ROT-6 some key can always sign, but for 30 s when the standby is exposed too.
ROT-7 there is one key for each number. ROT-8 no secret is in any write but those to the private Secrets.
Not here: reading and writing (the loop), what each transition does to a document (`rings`), how long (`timing`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial

from novacore_contracts.keyset import TRUSTED_KEYS_MAX, RingDocument
from novacore_operator.rotation import emergency, guards, history, proof, rings, triggers
from novacore_operator.rotation.actions import (
    Action,
    DropHalf,
    MintHalf,
    Prove,
    Push,
    ReadLive,
    Record,
    RemovePod,
    Rescue,
    RestoreHalves,
    Step,
    WriteDocument,
    is_write,
)
from novacore_operator.rotation.guards import GUARDS, Guards
from novacore_operator.rotation.history import Entry, Outcome
from novacore_operator.rotation.schedule import OnStraggler
from novacore_operator.rotation.seen import Seen, generations
from novacore_operator.rotation.triggers import Verb

Decision = Callable[[Seen, float], list[Action]]


def plan(seen: Seen, now: float, guard: Guards = GUARDS) -> list[Action]:
    """Return the next actions for one ring. `now`: Unix time, of the instant in which `seen` was read."""
    stop = _repair(seen, now)
    if stop is not None:
        return stop
    found = _push(seen)
    decisions: tuple[Decision, ...] = (
        emergency.revoke,
        emergency.deny,
        emergency.converge,
        _restore_halves,
        _roll_back,
        partial(_switch, guard=guard),
        _record_switch,
        partial(_retire, guard=guard),
        _record_retired,
        _destroy,
        _mint,
        _prove,
        _replace_straggler,
    )
    for decide in decisions:
        step = decide(seen, now)
        found += step
        if any(is_write(action) or isinstance(action, ReadLive) for action in step):
            break
    return _without_repetition(found)


def in_turn(all_seen: Mapping[str, Seen]) -> dict[str, Seen]:
    """Return the rings with `busy_ring` set in all but the one that may begin something: emergencies first."""
    good = {ring: seen for ring, seen in all_seen.items() if seen.document is not None}
    urgent = [ring for ring, seen in good.items() if emergency.is_wanted(seen) or emergency.is_open(seen)]
    busy = [ring for ring, seen in good.items() if is_underway(seen)]
    first = next(iter((*urgent, *busy)), None)
    return {
        ring: replace(seen, busy_ring="" if first in (None, ring) else str(first)) for ring, seen in all_seen.items()
    }


def is_underway(seen: Seen) -> bool:
    """Return whether a ring is between a switch and its record, or its standby is missing or unproven."""
    standby = rings.pending(seen.good)
    full = len(seen.good.keys) >= TRUSTED_KEYS_MAX
    if standby is None:
        return not full
    return guards.last_switch(seen) != seen.good.active_kid or standby.kid not in seen.memory.evidence


# --- the document and the private halves are what they were --------------------------------------------------------


def _repair(seen: Seen, now: float) -> list[Action] | None:
    """Return how to get a good document back, or None when there is one.

    A generation below what pods claim may be a cache that is late, an old document put back by hand, or a pod that
    lies: only a live read, and the signed documents that pods hold, tell.
    """
    document, claimed = seen.document, generations(seen.pods)
    if document is not None and document.generation >= max(seen.memory.peak, claimed):
        return None
    if not seen.live:
        return [ReadLive()]
    candidates = [item for item in (seen.memory.kept, *(seen.rescued or ()), document) if item is not None]
    best = max(candidates, key=lambda item: item.generation, default=None)
    if seen.rescued is None and claimed > (best.generation if best is not None else 0):
        return [Rescue()]
    if best is None:
        return []  # nothing was ever written: the first document is minted with the installation's other material
    above = max(best.generation, seen.memory.peak)
    if document is not None and document.generation >= above:
        return None  # a claim that no signature backs
    restored = rings.repair(best, above=above, now=int(now))
    return [WriteDocument(Step.REPAIR, restored, seen.document_version, "SecretRepaired")]


def _restore_halves(seen: Seen, now: float) -> list[Action]:
    """A lost private half comes back from the operator's memory; a standby's that does not is given up."""
    document = seen.good
    standby = rings.pending(document)
    needed = [document.active_kid, *((standby.kid,) if standby is not None else ())]
    missing = tuple(kid for kid in needed if seen.half(kid) is None)
    if not missing:
        return []
    if not seen.live:
        return [ReadLive()]
    back = tuple(kid for kid in missing if kid in seen.restorable)
    if back:
        return [RestoreHalves(Step.REPAIR, back, seen.private_version)]
    if standby is not None and standby.kid in missing:
        until = int(now) + emergency.token_life_s(document)
        discarded = rings.discard_standby(document, now=int(now), until=until)
        return [WriteDocument(Step.REPAIR, discarded, seen.document_version, "SecretRepaired")]
    return []  # of the signing key: `guards.due` asks for a rotation, signers go on from their mounts


def _push(seen: Seen) -> list[Action]:
    behind = [
        pod
        for pod in seen.pods
        if pod.report is None or pod.report.generation < seen.good.generation
        if pod.phase == "Running"
    ]
    if not behind:
        return []
    signers = tuple(pod.uid for pod in behind if pod.signs)
    return [Push(signers, tuple(pod.uid for pod in behind if not pod.signs))]


# --- the way of a rotation --------------------------------------------------------------------------------------------


def _switch(seen: Seen, now: float, guard: Guards) -> list[Action]:
    standby, trigger = rings.pending(seen.good), guards.due(seen, now)
    if standby is None or trigger is None or emergency.is_open(seen):
        return []
    if guard.before_switch(seen, now, trigger) is not None:
        return [Prove(standby.kid)]
    mark = triggers.marked(seen.good.last_trigger, trigger)
    switched = rings.activate(seen.good, now=int(now), trigger=mark)
    return [WriteDocument(Step.SWITCH, switched, seen.document_version, "KeyActivated")]


def _roll_back(seen: Seen, now: float) -> list[Action]:
    """Before the switch: the rotation is called off. After it: the previous key signs again, while it still can."""
    for trigger in emergency.undone(seen, Verb.ROLLBACK):
        waiting = emergency.undone(seen, Verb.ROTATE)
        if waiting:
            mark = triggers.marked(seen.good.last_trigger, *waiting, trigger)
            document = rings.stand_down(seen.good, now=int(now), trigger=mark)
            return [WriteDocument(Step.ROLL_BACK, document, seen.document_version, "RotationRolledBack")]
        kid = previous(seen, now)
        if emergency.is_open(seen):
            continue
        if kid is None:  # done with: it must not take the next switch back, whenever that comes
            mark = triggers.refused(seen.good.last_trigger, trigger)
            document = rings.stand_down(seen.good, now=int(now), trigger=mark)
            return [WriteDocument(Step.ROLL_BACK, document, seen.document_version, "TriggerRefused")]
        if kid not in seen.canaries:
            return [Prove(kid)]
        if not proof.of(seen, kid, answering=True).complete:
            continue
        mark = triggers.marked(seen.good.last_trigger, trigger)
        document = rings.roll_back(seen.good, kid, now=int(now), trigger=mark)
        return [WriteDocument(Step.ROLL_BACK, document, seen.document_version, "RotationRolledBack")]
    return []


def previous(seen: Seen, now: float) -> str | None:
    """Return the key that a rollback would return to, None when its private half is, or is about to be, destroyed."""
    found = rings.retiring(seen.good)
    since = seen.switched_at or seen.good.active.since
    last = since + seen.timing.destroy_private_s - seen.timing.rollback_margin_s
    return found[-1].kid if found and seen.half(found[-1].kid) is not None and now < last else None


def _record_switch(seen: Seen, now: float) -> list[Action]:
    """Record a switch once all signers follow and the pods have been listed and proven again; a rollback likewise."""
    document = seen.good
    kid, t0 = document.active_kid, seen.switched_at
    taken_back = _rollback_to_tell(seen)
    if guards.last_switch(seen) == kid and not taken_back:
        return []
    due = document.active.since + seen.timing.relist_s
    if t0 is None or now < due:
        return []
    if kid not in seen.canaries:
        return [Prove(kid)]
    if not proof.of(seen, kid, any_generation=True).complete and now < due + seen.timing.ack_timeout_s:
        return [Prove(kid)]  # some pod was born meanwhile, or is mute: it is given time, then it is recorded as it is
    return [Record(Step.RECORD_SWITCH, _switch_entry(seen, now, t0, taken_back), seen.status_version)]


def _rollback_to_tell(seen: Seen) -> str:
    """Return the mark of a rollback that was the last thing done and is not in the history, or nothing."""
    last = triggers.latest(seen.good.last_trigger, *Verb)
    if triggers.was_refused(seen.good.last_trigger, last):
        return ""
    told = any(entry.trigger == last for entry in seen.history)
    return last if last == triggers.latest(seen.good.last_trigger, Verb.ROLLBACK) and not told else ""


def _switch_entry(seen: Seen, now: float, t0: float, taken_back: str) -> Entry:
    document = seen.good
    active, old = document.active, rings.retiring(document)[-1:]
    mark = taken_back or triggers.latest(document.last_trigger, Verb.ROTATE, Verb.REVOKE, Verb.SCHEDULE, Verb.REPAIR)
    trigger = next((item for item in seen.triggers if item.mark == mark), None)
    found = proof.of(seen, active.kid, any_generation=True)
    evidence = found.evidence(now)
    before = seen.memory.evidence.get(active.kid, evidence)
    asked = seen.memory.asked.get(mark, float(active.since))
    switched = old if not taken_back or any(key.n > active.n for key in old) else ()
    return Entry(
        id=rings.entry_name(seen.ring, active.n),
        outcome=Outcome.ROLLED_BACK if taken_back else Outcome.ACTIVATED,
        trigger=mark or "install",
        at=int(now),
        generation=document.generation,
        kids=(active.kid, *(key.kid for key in switched)),
        actor=trigger.actor if trigger is not None else "",
        reason=trigger.reason if trigger is not None else "",
        seconds=round(max(t0 - min(asked, active.since), 0.0), 1),
        acked=f"{evidence.passed}/{evidence.total}",
        acks_sha256=evidence.sha256,
        times=(("proven", int(before.at)), ("activated", active.since), ("t0", math.ceil(t0))),
        failures=() if found.complete else ("ack_timeout",),
    )


def _retire(seen: Seen, now: float, guard: Guards) -> list[Action]:
    for key in rings.retiring(seen.good):
        if guard.before_retire(seen, now, key) is None:
            until = int(now) + emergency.token_life_s(seen.good)
            document = rings.retire(seen.good, key.kid, now=int(now), until=until)
            return [WriteDocument(Step.RETIRE, document, seen.document_version, "KeyRetired")]
    return []


def _record_retired(seen: Seen, now: float) -> list[Action]:
    told = {entry.kids[0] for entry in seen.history if entry.outcome is Outcome.RETIRED}
    for stone in seen.good.tombstones:
        since = emergency.made_at(seen.good, stone)
        gone = history.forgotten(seen.history, since, length=seen.policy.history)
        if stone.why == "retired" and stone.kid not in told and not gone:
            entry = Entry(
                id=stone.kid,
                outcome=Outcome.RETIRED,
                trigger="",
                at=int(now),
                generation=seen.good.generation,
                kids=(stone.kid,),
            )
            return [Record(Step.RECORD_END, entry, seen.status_version)]
    return []


def _destroy(seen: Seen, now: float) -> list[Action]:
    """Private halves that sign no more go: an hour after the switch, and what no document names."""
    for half in seen.halves:
        if not _is_over(seen, half, now):
            continue
        if not seen.live:
            return [ReadLive()]
        return [DropHalf(Step.DESTROY, half.name, half.kid, seen.private_version)]
    return []


def _is_over(seen: Seen, half: rings.Half, now: float) -> bool:
    document = seen.good
    key = rings.key_of(document, half.kid)
    if key is not None:
        since = seen.switched_at
        retires = key.state == "retiring" and since is not None
        return retires and now >= max(since or 0.0, key.since) + seen.timing.destroy_private_s
    if half.kid in rings.revoked(document):
        return False  # canaries are made with it until every pod has refused one
    if half.kid in {stone.kid for stone in document.tombstones}:
        return True
    waiting = half.n > document.seq and not half.why
    return not waiting and now - half.minted_at >= seen.timing.orphan_s


def _mint(seen: Seen, now: float) -> list[Action]:
    document = seen.good
    if rings.pending(document) is not None or len(document.keys) >= TRUSTED_KEYS_MAX or emergency.is_open(seen):
        return []
    if seen.busy_ring:
        return []
    half = _adoptable(seen.halves, document)
    if half is not None:
        standby = rings.mint_standby(document, half, now=int(now))
        return [WriteDocument(Step.STANDBY, standby, seen.document_version, "StandbyPublished")]
    if not seen.live:
        return [ReadLive()]  # a number that a late cache does not know would be given twice
    return [MintHalf(Step.MINT, emergency.next_number(seen), "", seen.private_version)]


def _adoptable(halves: Iterable[rings.Half], document: RingDocument) -> rings.Half | None:
    """Return a key that was minted and came into no document: whoever minted it died in between."""
    gone = {stone.kid for stone in document.tombstones}
    found = [half for half in halves if half.n > document.seq and not half.why and half.kid not in gone]
    return min(found, key=lambda half: half.n, default=None)


def _prove(seen: Seen, now: float) -> list[Action]:
    """Look for the standby's proof until it was complete once; from then on only when it is needed."""
    standby = rings.pending(seen.good)
    if standby is None or standby.kid in seen.memory.evidence:
        return []
    del now
    return [Prove(standby.kid)]


def _replace_straggler(seen: Seen, now: float) -> list[Action]:
    """Evict one pod that has not acknowledged in time, when the resource allows it and no other pod is being made."""
    if seen.policy.on_straggler is not OnStraggler.REPLACE_POD:
        return []
    if any(pod.phase != "Running" or pod.terminating for pod in seen.pods):
        return []
    late = {uid for uid, since in seen.memory.missing.items() if now - since >= seen.timing.ack_timeout_s}
    pod = next((pod for pod in seen.consumers if pod.uid in late), None)
    return [RemovePod(Step.DELETE_POD, pod.name, pod.uid, evict=True)] if pod is not None else []


def _without_repetition(actions: Iterable[Action]) -> list[Action]:
    found: list[Action] = []
    for action in actions:
        if action not in found:
            found.append(action)
    return found
