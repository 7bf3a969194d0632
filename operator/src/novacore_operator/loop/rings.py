"""The edge of the rotation: look at a ring's Secrets and pods, have `rotation.machine` decide, ask and write.

It is a part of a resource's turn, so no other writer of the same Secrets runs beside it, and it comes before all other
writes of the turn: an emergency does not wait for a roll-out. It reads the Secrets and lists the pods past the caches,
each time it looks; between two looks, as long as nothing of this changes, it does nothing at all.

Invariants: EDGE-1 a write to a Secret that is there carries the version that was read for it; a conflict ends the look,
and the next one reads anew. EDGE-2 material that this module writes is known to the observer's memory before anything
else of the turn runs. EDGE-3 a failure here is told and tried again; it never keeps the rest of the turn from running.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from novacore_contracts.identity import JWT_RINGS
from novacore_contracts.keyset import RingDocument
from novacore_contracts.services import BY_NAME
from novacore_operator.build.installation import stamped
from novacore_operator.build.secret import build_secret
from novacore_operator.errors import Fatal, NovaError
from novacore_operator.kube import Conflict, Kube
from novacore_operator.observe.observer import Observer
from novacore_operator.observe.pods import Address, Answer, Pods, addresses, pod_of
from novacore_operator.observe.projection import decoded, owned_data
from novacore_operator.reasons import Reason
from novacore_operator.rotation import claims, forms, halves, history, machine, mint, proof, report, schedule, told
from novacore_operator.rotation import triggers as asked_for
from novacore_operator.rotation.actions import (
    Action,
    Disprove,
    DropHalf,
    FencePod,
    MintHalf,
    Prove,
    Push,
    Record,
    RemovePod,
    Rescue,
    RestoreHalves,
    WriteDocument,
    is_write,
)
from novacore_operator.rotation.forms import Jwk
from novacore_operator.rotation.history import Entry, Outcome
from novacore_operator.rotation.seen import OPERATOR, SIGNER, Memory, Seen
from novacore_operator.rotation.timing import PRODUCTION, Timing
from novacore_operator.rotation.triggers import Trigger, Verb
from novacore_operator.state import Manifest, Material, Nova, Observed, Ref, WorkloadFacts, names
from novacore_operator.state.names import ANNOTATION_DESIRED, LABEL_MANAGED_BY, LABEL_SERVING, MANAGER
from novacore_operator.state.ownership import fingerprint
from novacore_operator.status import RingsView
from novacore_operator.telemetry import Log, Metrics

log = Log(__name__)

PRIVATE: Mapping[str, str] = dict(mint.JWT_RINGS)
LOOKS_MAX = 8
"""Looks in one turn: each write asks for another one, so that what is new goes to the pods at once."""
ASKS_MAX = 5
SINCE = "0.2.0"
"""Release whose pods answer what is asked here."""
KILL_S = 1
POKE_EACH_S = 1.5
POKE_MANAGER = f"{MANAGER}-poke"
ANNOTATION_POKED = "novacore.ai/poked"

Tell = Callable[[Reason, str, bool], None]


@dataclass(frozen=True, slots=True)
class Step:
    """What a step led to: whether anything was written, and when to look again (None: when something changes)."""

    wrote: bool = False
    again_s: float | None = None


@dataclass(slots=True)
class _Kept:
    """What is remembered of one installation."""

    memory: dict[str, Memory] = field(default_factory=dict)
    history: dict[str, tuple[Entry, ...]] = field(default_factory=dict)
    view: RingsView | None = None
    marks: object = None
    next_at: float = 0.0
    phases: dict[str, tuple[str, float]] = field(default_factory=dict)
    failures: dict[str, frozenset[str]] = field(default_factory=dict)
    poked: dict[str, float] = field(default_factory=dict)  # pod uid -> when, by the monotonic clock


@dataclass(frozen=True, slots=True)
class _Turn:
    """One resource's turn. `acting`: the release in force; `found`: the material, as this turn has left it."""

    nova: Nova
    acting: Nova
    seen: Observed
    found: dict[str, Mapping[str, bytes]] = field(repr=False)
    kept: _Kept
    triggers: tuple[Trigger, ...]
    tell: Tell


@dataclass(frozen=True, slots=True)
class _Look:
    """What one look saw. A version is empty where there is no object."""

    at: float
    root: Jwk = field(repr=False)
    keyset: Mapping[str, bytes]
    keyset_version: str
    private: Mapping[str, Mapping[str, bytes]] = field(repr=False)  # ring -> entries that count
    private_version: Mapping[str, str]
    pods: tuple[Address, ...]
    answers: Mapping[str, Answer]

    @property
    def answering(self) -> list[Address]:
        """The pods that told what they hold: nobody waits for the others twice in one look."""
        return [pod for pod in self.pods if pod.uid in self.answers]

    def document(self, ring: str) -> RingDocument | None:
        """Return a ring's document, if our root key signed it."""
        return forms.read_document(self.keyset.get(f"{ring}.jws"), self.root, ring)


@dataclass(slots=True)
class _Asked:
    """What was asked of the pods in one look at one ring."""

    canaries: dict[str, dict[tuple[str, str], str]] = field(default_factory=dict)
    rescued: tuple[RingDocument, ...] | None = None
    pushed: bool = False


class Rings:
    """The rotation of all installations."""

    def __init__(
        self, kube: Kube, observer: Observer, metrics: Metrics, *, pods: Pods | None = None, timing: Timing = PRODUCTION
    ) -> None:
        self._kube = kube
        self._observer = observer
        self._metrics = metrics
        self._pods = pods if pods is not None else Pods()
        self._kept: dict[tuple[str, str], _Kept] = {}
        self.timing = timing

    def forget(self, namespace: str) -> None:
        """Drop what is kept of an installation whose resource is gone."""
        for key in [key for key in self._kept if key[0] == namespace]:
            del self._kept[key]
        for metric in SERIES:
            self._metrics.remove(metric, platform=namespace)

    def view(self, nova: Nova) -> RingsView | None:
        """Return what is to be told in the status; None before the first look."""
        kept = self._kept.get((nova.namespace, nova.uid))
        return kept.view if kept is not None else None

    async def step(self, nova: Nova, acting: Nova, seen: Observed, found: Material, tell: Tell) -> Step:
        """Bring the rings a step nearer to what they should be (EDGE-3). `acting`: the release in force."""
        if not _concerns(nova, acting, seen, found):
            return Step()
        kept = self._kept.setdefault((nova.namespace, nova.uid), _Kept())
        marks = _marks(nova, seen)
        now = time.monotonic()
        if marks == kept.marks and now < kept.next_at:
            return Step(again_s=kept.next_at - now)
        again_s, wrote = self.timing.busy_look_s, False
        try:
            triggers, wrong = asked_for.read(nova.asked, JWT_RINGS, actors=nova.askers)
            for sentence in wrong:
                tell(Reason.TRIGGER_REFUSED, sentence, True)
            wrote, again_s = await self._steps(_Turn(nova, acting, seen, dict(found), kept, triggers, tell))
        except Conflict as error:
            log.info("ring_conflict", message=error.message)
            wrote = True  # perhaps, before it
        except Fatal:
            raise
        except NovaError as error:
            log.warning("rings_failed", reason=error.reason, message=error.message)
            tell(Reason.ROTATION_FAILED, error.message, True)
            again_s, wrote = self.timing.patient_look_s, True
        except Exception as error:  # whatever a pod answers, the rest of the turn goes on; the stack is in the log
            log.exception("rings_failed", reason=Reason.INTERNAL_ERROR)
            tell(Reason.INTERNAL_ERROR, f"keys: {type(error).__name__}: see the operator's log", True)
            again_s, wrote = self.timing.patient_look_s, True
        kept.marks = marks if not wrote else None  # its own writes change the marks: the next turn takes them in
        kept.next_at = time.monotonic() + again_s
        return Step(wrote, again_s)

    async def _steps(self, turn: _Turn) -> tuple[bool, float]:
        kept, wrote = turn.kept, False
        for _ in range(LOOKS_MAX):
            look = await self._look(turn)
            written, rings = await self._once(turn, look)
            await self._poke(turn, look)
            wrote = wrote or written
            if not written:
                break
        reports = {ring: report.report(one, look.at) for ring, one in rings.items()}
        for ring, one in rings.items():
            self._say(turn, one, reports[ring])
        kept.view = RingsView(
            rings={ring: told.ring_status(rings[ring], one, kept.history[ring]) for ring, one in reports.items()},
            blocked=told.sentences({ring: one.blocked for ring, one in reports.items()}),
            incomplete=told.sentences({ring: one.incomplete for ring, one in reports.items()}),
        )
        return wrote, min(one.look_again_s for one in reports.values())

    async def _once(self, turn: _Turn, look: _Look) -> tuple[bool, dict[str, Seen]]:
        """Look at each ring once. Returns whether anything was written, and what was seen."""
        all_seen = machine.in_turn({ring: self._seen(turn, look, ring) for ring in JWT_RINGS})
        for ring in _urgent_first(all_seen):
            asked = _Asked()
            one = all_seen[ring]
            actions: list[Action] = []
            for _ in range(ASKS_MAX):
                one = replace(one, canaries=asked.canaries, rescued=asked.rescued)
                one = replace(one, memory=proof.remember(one, look.at))
                actions = machine.plan(one, look.at)
                again = await self._ask(ring, actions, one, look, asked)
                if not again or any(is_write(action) for action in actions):
                    break
            turn.kept.memory[ring] = one.memory
            all_seen[ring] = one
            # Fencing first: whoever takes no more requests may be removed later.
            writes = sorted(filter(is_write, actions), key=lambda action: not isinstance(action, FencePod))
            if any([await self._written(turn, look, ring, action) for action in writes]):
                return True, all_seen
        return False, all_seen

    # --- looking ------------------------------------------------------------------------------------------------------

    async def _look(self, turn: _Turn) -> _Look:
        space = turn.nova.namespace
        wanted = [Ref("Secret", space, name) for name in (names.KEYSET, *PRIVATE.values())]
        listing = self._kube.list("Pod", namespace=space, labels=f"{LABEL_MANAGED_BY}={MANAGER}")
        bodies, (listed, _) = await asyncio.gather(asyncio.gather(*(self._kube.get(ref) for ref in wanted)), listing)
        pods = addresses(listed)
        root = mint.sound_es256(_root_entry(space, turn.found), "root-") or {}  # `_concerns` has seen it
        keyset, *private = bodies
        documents = decoded(keyset) if keyset is not None else {}
        answers = await self._pods.claims(pods)
        look = _Look(
            at=time.time(),
            root=root,
            keyset={name: documents[name] for ring in JWT_RINGS if (name := f"{ring}.jws") in documents},
            keyset_version=_version(keyset),
            private={},
            private_version={ring: _version(body) for ring, body in zip(PRIVATE, private, strict=True)},
            pods=pods,
            answers=answers,
        )
        entries = {
            ring: _entries(body, ring, look.document(ring) if body is not None else None)
            for ring, body in zip(PRIVATE, private, strict=True)
        }
        return replace(look, private=entries)

    def _seen(self, turn: _Turn, look: _Look, ring: str) -> Seen:
        given = turn.acting.spec.secrets.rings.of(ring)
        document = look.document(ring)
        ttl = document.ttl_max if document is not None else mint.ttl_max_s(ring, self.timing)
        share = given.ack_timeout_seconds / PRODUCTION.ack_timeout_s
        past = turn.kept.history.setdefault(ring, told.read_history(turn.nova.status, ring))
        kept_halves = halves.read(ring, turn.found.get(PRIVATE[ring], {}))
        return Seen(
            ring=ring,
            uid=turn.nova.uid,
            policy=schedule.policy_of(given, ttl_max_s=ttl),
            timing=replace(self.timing, ack_timeout_s=self.timing.ack_timeout_s * share),
            document=document,
            document_version=look.keyset_version,
            halves=halves.read(ring, look.private[ring]),
            private_version=look.private_version[ring],
            pods=tuple(pod_of(pod, ring, look.answers.get(pod.uid)) for pod in look.pods),
            live=True,
            expected_pods=_expected(turn.acting, turn.seen),
            triggers=tuple(trigger for trigger in turn.triggers if trigger.ring == ring),
            history=past,
            memory=turn.kept.memory.get(ring, Memory()),
            restorable=frozenset(half.kid for half in kept_halves),
        )

    # --- asking -------------------------------------------------------------------------------------------------------

    async def _ask(self, ring: str, actions: list[Action], seen: Seen, look: _Look, asked: _Asked) -> bool:
        """Ask what `plan` wants to know. Returns whether it should look at the answers."""
        again = False
        for action in actions:
            if isinstance(action, Push) and not asked.pushed:
                asked.pushed = True
                await self._push(ring, action, look)
            elif isinstance(action, Prove) and action.kid not in asked.canaries:
                asked.canaries[action.kid] = await self._prove(ring, action.kid, look)
                again = True
            elif isinstance(action, Disprove) and action.kid not in asked.canaries:
                asked.canaries[action.kid] = await self._disprove(ring, action.kid, seen, look)
                again = True
            elif isinstance(action, Rescue) and asked.rescued is None:
                raw = await self._pods.documents(look.pods, ring)
                documents = (forms.read_document(one, look.root, ring) for one in raw)
                asked.rescued = tuple(one for one in documents if one is not None)
                again = True
        return again

    async def _push(self, ring: str, push: Push, look: _Look) -> None:
        compact = look.keyset.get(f"{ring}.jws")
        if compact is None:
            return
        for uids in (push.signers, push.others):  # signers first: callers renew at them
            await self._pods.push((pod for pod in look.pods if pod.uid in uids), ring, compact)

    async def _prove(self, ring: str, kid: str, look: _Look) -> dict[tuple[str, str], str]:
        request = claims.canary_request(ring, kid, look.root, now=time.time())
        signers = [pod for pod in look.answering if pod.service == SIGNER]

        async def one(signer: Address) -> dict[tuple[str, str], str]:
            token = await self._pods.canary(signer, request)
            if token is None:
                return {}
            answers = await self._pods.try_canary(look.answering, ring, token)
            return {(signer.uid, uid): answer for uid, answer in answers.items()}

        found: dict[tuple[str, str], str] = {}
        for answers in await asyncio.gather(*(one(signer) for signer in signers)):
            found |= answers
        return found

    async def _disprove(self, ring: str, kid: str, seen: Seen, look: _Look) -> dict[tuple[str, str], str]:
        half = seen.half(kid)
        raw = look.private[ring].get(half.name) if half is not None else None
        if raw is None:
            return {}
        token = claims.canary(ring, json.loads(raw), now=time.time(), ttl_max_s=seen.good.ttl_max)
        answers = await self._pods.try_canary(look.answering, ring, token)
        return {(OPERATOR, uid): answer for uid, answer in answers.items()}

    async def _written(self, turn: _Turn, look: _Look, ring: str, action: Action) -> bool:
        """Write, and return whether that changed anything. What is refused of one pod keeps no other from its turn."""
        if not isinstance(action, FencePod | RemovePod):
            await self._write(turn, look, ring, action)
            return True
        try:
            return await self._treat(turn, ring, action)
        except Fatal:
            raise
        except NovaError as error:
            log.warning("pod_not_treated", pod=action.name, reason=error.reason, message=error.message)
            turn.tell(Reason.ROTATION_FAILED, f"{ring}: {action.name}: {error.message}", True)
            return False

    # --- writing ------------------------------------------------------------------------------------------------------

    async def _write(self, turn: _Turn, look: _Look, ring: str, action: Action) -> None:
        if isinstance(action, WriteDocument):
            data = {**_sound(turn.found.get(names.KEYSET, {}), look), **_sound(look.keyset, look)}
            data[f"{ring}.jws"] = forms.sign_document(action.document, look.root)
            await self._put(turn, names.KEYSET, data, action.version)
            log.info("ring_document_written", ring=ring, step=str(action.step), generation=action.document.generation)
            turn.tell(Reason(action.event), _document_note(ring, action), action.event in WARNINGS)
        elif isinstance(action, MintHalf | RestoreHalves | DropHalf):
            await self._put(turn, PRIVATE[ring], _private(turn, look, ring, action), action.version)
            log.info("ring_private_written", ring=ring, step=str(action.step))
        elif isinstance(action, Record):
            self._record(turn, ring, action.entry)

    async def _treat(self, turn: _Turn, ring: str, action: FencePod | RemovePod) -> bool:
        ref = Ref("Pod", turn.nova.namespace, action.name)
        if isinstance(action, FencePod):
            await self._fence(turn.nova.namespace, action)
            turn.tell(Reason.POD_FENCED, f"{ring}: {action.name} {action.cause}: it takes no more requests", True)
            return True
        if action.evict:
            done = await self._kube.evict(ref, uid=action.uid)
        else:
            done = await self._kube.delete(ref, uid=action.uid, grace_s=KILL_S)
        log.info("pod_removed" if done else "pod_not_removed", pod=action.name, evicted=action.evict)
        return done

    async def _put(self, turn: _Turn, name: str, data: Mapping[str, bytes], version: str) -> None:
        """Write a Secret, and have the memory and the caches know it (EDGE-1, EDGE-2)."""
        manifest = stamped(build_secret(turn.acting, name, data))
        hashed, wanted = manifest["metadata"]["annotations"][ANNOTATION_DESIRED], fingerprint(manifest)
        sent = {**manifest, "metadata": {**manifest["metadata"], **({"resourceVersion": version} if version else {})}}
        body = await self._kube.apply(sent, force=True)
        turn.found[name] = dict(data)
        self._observer.amend(turn.nova.namespace, name, turn.found[name])
        self._observer.saw(body, hashed=hashed, wanted=wanted)

    async def _poke(self, turn: _Turn, look: _Look) -> None:
        """Have the kubelet look at the mounts of signers that lack a private half: by itself it does so each minute.

        A changed annotation makes it sync the pod at once.
        """
        now = time.monotonic()
        there = {pod.uid for pod in look.pods}
        turn.kept.poked = {uid: at for uid, at in turn.kept.poked.items() if uid in there}
        for ring in PRIVATE:
            kids = {half.kid for half in halves.read(ring, look.private[ring])}
            for pod in look.pods:
                if pod.service != SIGNER or pod.fenced or pod.terminating or pod.phase != "Running":
                    continue
                report_ = pod_of(pod, ring, look.answers.get(pod.uid)).report
                poked_at = turn.kept.poked.get(pod.uid, -POKE_EACH_S)
                if report_ is None or kids <= report_.signer_kids or now - poked_at < POKE_EACH_S:
                    continue
                turn.kept.poked[pod.uid] = now
                metadata = {"name": pod.name, "namespace": turn.nova.namespace, "uid": pod.uid}
                annotations = {ANNOTATION_POKED: f"{ring}/{look.private_version[ring]}/{int(now)}"}
                body = {"apiVersion": "v1", "kind": "Pod", "metadata": {**metadata, "annotations": annotations}}
                try:  # a manager of its own: an apply under ours would take the label of a fenced pod away
                    await self._kube.apply(body, force=True, manager=POKE_MANAGER)
                except Fatal:
                    raise
                except NovaError as error:  # then its mount is as late as mounts are
                    log.info("pod_not_poked", pod=pod.name, reason=error.reason, message=error.message)

    async def _fence(self, namespace: str, action: FencePod) -> None:
        body: Manifest = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": action.name,
                "namespace": namespace,
                "uid": action.uid,
                "labels": {LABEL_SERVING: "false"},
            },
        }
        await self._kube.apply(body, force=True)
        log.warning("pod_fenced", pod=action.name, cause=action.cause)

    # --- telling ------------------------------------------------------------------------------------------------------

    def _record(self, turn: _Turn, ring: str, entry: Entry) -> None:
        """Append to the history, which the turn's status writes, and tell of it with the hash of the entry."""
        length = turn.acting.spec.secrets.rings.of(ring).history
        past = turn.kept.history[ring] = history.append(turn.kept.history[ring], entry, length=length)
        hashed = past[-1].hash
        log.info("ring_recorded", ring=ring, outcome=str(entry.outcome), id=entry.id, hash=hashed)
        where = {"platform": turn.nova.namespace, "ring": ring}
        if entry.outcome in told.SWITCHES:
            t0 = dict(entry.times).get("t0", entry.at)
            self._metrics.set("novacore_secret_last_rotation_timestamp_seconds", t0, **where)
            if entry.trigger != "install":
                self._metrics.observe("novacore_secret_rotation_duration_seconds", entry.seconds, **where)
            note = f"{ring}: {entry.id} {entry.outcome}, proven by {entry.acked} pods; entry {hashed}"
            turn.tell(Reason.ROTATION_RECORDED, note, False)
        elif entry.outcome in (Outcome.REVOKED, Outcome.DENIED):
            self._metrics.observe("novacore_secret_revoke_convergence_seconds", entry.seconds, **where)
            note = f"{ring}: {entry.id}: every pod follows ({entry.acked}), after {entry.seconds:g} s; entry {hashed}"
            turn.tell(Reason.EMERGENCY_COMPLETE, note, False)

    def _say(self, turn: _Turn, seen: Seen, found: report.Report) -> None:
        """Post what is to be told beside the status: warnings, failures, figures."""
        for word, sentence in found.warnings:
            turn.tell(Reason(word.value), sentence, True)
        for sentence in found.blocked:
            turn.tell(Reason.ROTATION_BLOCKED, f"{seen.ring}: {sentence}", True)
        for sentence in found.overdue:
            turn.tell(Reason.RETIRE_OVERDUE, f"{seen.ring}: {sentence}", True)
        where = {"platform": turn.nova.namespace, "ring": seen.ring}
        before, failures = turn.kept.failures.get(seen.ring, frozenset()), frozenset(found.failures)
        for failure in sorted(failures - before):
            self._metrics.count("novacore_secret_rotation_failures_total", reason=str(failure), **where)
            turn.tell(Reason.ROTATION_FAILED, f"{seen.ring}: {failure}", True)
        turn.kept.failures[seen.ring] = failures
        self._metrics.set("novacore_secret_consumers_pending", len(found.stragglers), **where)
        self._metrics.set("novacore_secret_rotation_interval_seconds", seen.policy.interval_s or 0.0, **where)
        self._metrics.set("novacore_secret_next_rotation_timestamp_seconds", found.next_rotation or 0.0, **where)
        phase, since = turn.kept.phases.get(seen.ring, ("", 0.0))
        if phase != found.phase:
            since = time.time()
        turn.kept.phases[seen.ring] = (str(found.phase), since)
        for each in report.Phase:
            self._metrics.set(
                "novacore_secret_phase_started_timestamp_seconds",
                since if each == found.phase else 0.0,
                phase=str(each),
                **where,
            )


SERIES = tuple(
    f"novacore_secret_{name}"
    for name in (
        "last_rotation_timestamp_seconds",
        "rotation_interval_seconds",
        "next_rotation_timestamp_seconds",
        "phase_started_timestamp_seconds",
        "consumers_pending",
        "rotation_failures_total",
        "rotation_duration_seconds",
        "revoke_convergence_seconds",
    )
)
WARNINGS = frozenset({"KeyRevoked", "RotationRolledBack", "SecretRepaired", "EmergencyStarted"})


def _concerns(nova: Nova, acting: Nova, seen: Observed, found: Material) -> bool:
    """Return whether there is anything to look at: an installation that stands, or a person who asks."""
    stands = bool(nova.status.get("release", {}).get("current")) or bool(nova.asked)
    if nova.spec.paused or not stands or not acting.spec.since(SINCE) or not any(pod.address for pod in seen.pods):
        return False
    private = any(found.get(name) for name in PRIVATE.values())  # else the first material is not there yet
    return private and mint.sound_es256(_root_entry(nova.namespace, found), "root-") is not None


def _marks(nova: Nova, seen: Observed) -> object:
    """Return what, when it changes, calls for a look before its time."""
    live = (seen.get("Secret", nova.namespace, name) for name in (names.KEYSET, *PRIVATE.values()))
    versions = tuple((one.uid, one.version) if one is not None else None for one in live)
    return versions, tuple(sorted(nova.asked.items())), nova.spec.secrets


def _urgent_first(all_seen: Mapping[str, Seen]) -> list[str]:
    """Return the rings, first the one that keeps the others waiting."""
    busy = next((seen.busy_ring for seen in all_seen.values() if seen.busy_ring), "")
    return sorted(all_seen, key=lambda ring: ring != busy)


def _root_entry(namespace: str, found: Material) -> bytes | None:
    return found.get(names.root_secret(namespace), {}).get(mint.ROOT_KEY)


def _version(body: Manifest | None) -> str:
    return str(body["metadata"]["resourceVersion"]) if body is not None else ""


def _entries(body: Manifest | None, ring: str, document: RingDocument | None) -> dict[str, bytes]:
    """Return the private entries that count: ours, and those of others only for keys that the document names.

    Whoever can write the Secret must not be able to have a key of his own made the next standby.
    """
    if body is None:
        return {}
    mine, everything = owned_data(body).reveal(), decoded(body)
    named = {key.kid for key in document.keys} if document is not None else set()
    known = {half.name for half in halves.read(ring, everything) if half.name in mine or half.kid in named}
    return {name: value for name, value in everything.items() if name in known}


def _sound(keyset: Mapping[str, bytes], look: _Look) -> dict[str, bytes]:
    """Return the documents that our root key signed."""
    return {
        name: value
        for ring in JWT_RINGS
        if (value := keyset.get(name := f"{ring}.jws")) is not None
        and forms.read_document(value, look.root, ring) is not None
    }


def _private(turn: _Turn, look: _Look, ring: str, action: MintHalf | RestoreHalves | DropHalf) -> dict[str, bytes]:
    """Return a private Secret's entries after a write."""
    data = dict(look.private[ring])
    if isinstance(action, MintHalf):
        name, value = halves.mint(ring, action.n, why=action.why, now=time.time(), entropy=secrets.token_bytes)
        data[name] = value
    elif isinstance(action, RestoreHalves):
        known = turn.found.get(PRIVATE[ring], {})
        data |= {half.name: known[half.name] for half in halves.read(ring, known) if half.kid in action.kids}
    else:
        data.pop(action.name, None)
    return data


def _expected(acting: Nova, seen: Observed) -> int:
    total = 0
    for service in acting.spec.enabled_services():
        live = seen.get("Deployment", acting.namespace, BY_NAME[service.name].full_name)
        if live is not None and isinstance(live.facts, WorkloadFacts):
            total += live.facts.replicas
    return total


def _document_note(ring: str, action: WriteDocument) -> str:
    document = action.document
    mark = asked_for.latest(document.last_trigger, *Verb)
    asked = f", asked for by {mark}" if mark else ""
    return f"{ring}: generation {document.generation}, key {document.active_kid} signs{asked}"
