"""The operator's edge, as the loop will be: look, remember, `plan`, ask, plan again, write. It decides nothing."""

from __future__ import annotations

from dataclasses import replace

from novacore_contracts.keyset import RingDocument
from novacore_operator.rotation import history, machine, proof
from novacore_operator.rotation.actions import (
    Action,
    Disprove,
    DropHalf,
    FencePod,
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
from novacore_operator.rotation.rings import Half
from novacore_operator.rotation.seen import OPERATOR, Memory, Pod, Report, Seen
from tests.kit.rotationsim.pods import SimPod, Token
from tests.kit.rotationsim.world import RING, World

LOOKS_MAX = 5
TURNS_MAX = 3


class Conflict(Exception):  # noqa: N818 - as the API server calls it
    """409: the object is no longer the one that was read."""


class Died(Exception):  # noqa: N818 - no error of anybody
    """The operator's process is gone."""


class Operator:
    """One process. `dies`: step -> `before` or `after` that write, once."""

    def __init__(self, world: World, *, guards: Guards = GUARDS, dies: dict[Step, str] | None = None) -> None:
        self.world = world
        self.guards = guards
        self.dies = dict(dies or {})
        self.memory = Memory()
        self.kept_halves: dict[str, Half] = {}
        self.back_at = 0.0
        self.seen: Seen | None = None
        self.asked = False  # the last look sent something to the pods
        self.wrote: list[tuple[float, Step]] = []
        self.down: list[tuple[float, float]] = []
        self._proven: dict[str, dict[tuple[str, str], str]] = {}
        self._pods: tuple[Pod, ...] = ()
        self._wanted: list[str] = []
        self._known: dict[str, tuple[tuple[object, ...], Pod]] = {}

    @property
    def alive(self) -> bool:
        return self.world.now >= self.back_at

    def turn(self) -> bool:
        """Look and act until no document was written: what is new goes to the pods at once. Return whether it acted."""
        acted = False
        for _ in range(TURNS_MAX):
            generation = self.world.document.generation
            acted = self._look_and_act() or acted
            if self.world.document.generation == generation:
                break
        return acted

    def _look_and_act(self) -> bool:
        actions = self.decide()
        self.act(actions)
        return bool(actions) or self.asked

    def decide(self) -> list[Action]:
        """Look, ask and look again, until `plan` has nothing more to ask. Return what it wants written."""
        world = self.world
        if not self.alive or not world.api_up:
            return []
        live = False
        rescued: tuple[RingDocument, ...] | None = None
        self._proven = {}
        for kid in self._wanted:  # what the last look asked for, it will ask for again
            self._prove(kid)
        self._pods = tuple(self._pod(pod) for pod in world.pods)
        pushed = False
        actions: list[Action] = []
        for _ in range(LOOKS_MAX):
            seen = self._look(live=live, rescued=rescued)
            self.memory = proof.remember(seen, world.now)
            self.seen = seen = replace(seen, memory=self.memory)
            actions = machine.plan(seen, world.now, self.guards)
            again = False
            for action in actions:
                if isinstance(action, Push) and not pushed:
                    pushed = True
                    self._push(action)
                elif isinstance(action, Prove) and action.kid not in self._proven:
                    self._prove(action.kid)
                    again = True
                elif isinstance(action, Disprove) and action.kid not in self._proven:
                    self._disprove(action.kid)
                    again = True
                elif isinstance(action, ReadLive) and not live:
                    live = again = True
                elif isinstance(action, Rescue) and rescued is None:
                    rescued = tuple(
                        pod.claimed.document for pod in world.pods if pod.reachable(world.now) and pod.claimed
                    )
                    again = True
            if not again or any(is_write(action) for action in actions):
                break
        self.asked = pushed or bool(self._proven)
        self._wanted = [action.kid for action in actions if isinstance(action, Prove)]
        return actions

    def act(self, actions: list[Action]) -> None:
        """Write."""
        world = self.world
        try:
            for action in actions:
                if is_write(action):
                    self._write(action)
        except Conflict:
            world.happened["conflicts"] += 1
        except Died as death:
            self._die(death)

    def _die(self, death: Died) -> None:
        world = self.world
        when, step = str(death).split()
        del self.dies[Step(step)]
        world.happened[f"died {when} {step}"] += 1
        world.happened["crashes"] += 1
        self.memory, self.kept_halves, self.seen, self._wanted = Memory(), {}, None, []
        self.back_at = world.now + world.draw.uniform(*world.faults.restart_s)
        self.down.append((world.now, self.back_at))

    # --- looking --------------------------------------------------------------------------------------------------

    def _look(self, *, live: bool, rescued: tuple[RingDocument, ...] | None) -> Seen:
        world = self.world
        document, version = world.stored, world.document_version
        halves, private_version = world.halves, world.private_version
        if not live and world.faults.stale_read and world.draw.random() < world.faults.stale_read:
            world.happened["stale_reads"] += 1
            if world.draw.random() < 0.5 and len(world.documents) > 1:
                document, version = world.documents[-2][1], version - 1
            else:
                halves, private_version = world.halves_before, private_version - 1
        elif not live:
            self.kept_halves |= {half.kid: half for half in halves.values()}
        return Seen(
            ring=RING,
            uid="uid-of-the-resource",
            policy=world.policy,
            timing=world.timing,
            document=document,
            document_version=str(version),
            halves=tuple(halves.values()),
            private_version=str(private_version),
            pods=self._pods,
            live=live,
            expected_pods=world.wanted,
            canaries=self._proven,
            triggers=world.triggers,
            history=world.history,
            status_version=str(world.status_version),
            memory=self.memory,
            restorable=frozenset(self.kept_halves),
            rescued=rescued,
        )

    def _pod(self, pod: SimPod) -> Pod:
        """Return what the live list and the pod's own answer say. The same pod is the same value as before."""
        answers = pod.reachable(self.world.now)
        kid = pod.token.kid if pod.token is not None else None
        state = (answers, pod.claimed, kid, pod.halves, pod.active_since, pod.last_ok is pod.told, pod.phase)
        facts = (*state, pod.gone_at is None, pod.fenced, pod.skew_s)
        known = self._known.get(pod.uid)
        if known is not None and known[0] == facts:
            return known[1]
        pod.told = pod.last_ok
        made = self._made(pod, kid if answers else None, answers=answers)
        self._known[pod.uid] = ((*facts[:5], True, *facts[6:]), made)
        return made

    @staticmethod
    def _made(pod: SimPod, kid: str | None, *, answers: bool) -> Pod:
        report = None
        if answers and pod.claimed is not None:
            report = Report(
                generation=pod.claimed.document.generation,
                active_kid=pod.claimed.document.active_kid,
                kids=pod.claimed.trusted,
                last_ok=pod.last_ok,
                token_kid=kid,
                skew_s=pod.skew_s,
                signer_kids=pod.halves,
                active_since=pod.active_since if pod.signs else None,
            )
        return Pod(
            name=pod.name,
            uid=pod.uid,
            service=pod.service,
            phase=pod.phase,
            terminating=pod.gone_at is not None,
            endpoint=not pod.fenced and pod.phase == "Running",
            fenced=pod.fenced,
            created_at=pod.created_at,
            report=report,
        )

    # --- asking ---------------------------------------------------------------------------------------------------

    def _push(self, push: Push) -> None:
        world = self.world
        document = self.seen.document if self.seen is not None else None
        for uid in (*push.signers, *push.others):
            pod = next((pod for pod in world.pods if pod.uid == uid), None)
            if pod is None or document is None or not pod.reachable(world.now):
                continue
            if world.draw.random() < world.faults.lost_push:
                world.happened["lost_pushes"] += 1
                continue
            world.happened["pushes"] += 1
            pod.take_in(document, world.now)

    def _prove(self, kid: str) -> None:
        world = self.world
        answers: dict[tuple[str, str], str] = {}
        up = [pod for pod in world.pods if pod.reachable(world.now)]
        for signer in up:
            canary = signer.canary(kid, world.now) if signer.signs else None
            if canary is not None:
                for pod in up:
                    answers[signer.uid, pod.uid] = pod.verify(canary, world.now)
        world.happened["canaries"] += len(answers)
        self._proven[kid] = answers

    def _disprove(self, kid: str) -> None:
        world = self.world
        iat = int(world.now)
        canary = Token(kid, iat, iat + min(60, world.document.ttl_max), "canary")
        answers: dict[tuple[str, str], str] = {}
        for pod in world.pods:
            if pod.reachable(world.now):
                answers[OPERATOR, pod.uid] = code = pod.verify(canary, world.now)
                if code == "kid_revoked":
                    pod.refused_canary_of.add(kid)
        world.happened["negative_canaries"] += len(answers)
        self._proven[kid] = answers

    # --- writing --------------------------------------------------------------------------------------------------

    def _write(self, action: Action) -> None:
        world = self.world
        step = action.step  # type: ignore[union-attr]
        if self.dies.get(step) == "before":
            raise Died(f"before {step}")
        if world.faults.conflict and world.draw.random() < world.faults.conflict:
            if isinstance(action, WriteDocument):
                world.document_version += 1  # somebody labelled the object meanwhile
            elif isinstance(action, MintHalf | DropHalf | RestoreHalves):
                world.private_version += 1
            elif isinstance(action, Record):
                world.status_version += 1
        self._carry_out(action)
        secret = [half for half in world.secrets.values() if half in repr(action)]
        assert not secret, f"I8: a private half in {step}"
        self.wrote.append((world.now, step))
        world.happened[f"write {step}"] += 1
        if self.dies.get(step) == "after":
            raise Died(f"after {step}")

    def _carry_out(self, action: Action) -> None:
        world = self.world
        if isinstance(action, WriteDocument):
            self._expect(action.version, world.document_version)
            world.put_document(action.document)
        elif isinstance(action, MintHalf):
            self._expect(action.version, world.private_version)
            world.mint(action.n, action.why)
        elif isinstance(action, DropHalf):
            self._expect(action.version, world.private_version)
            world.put_halves({name: half for name, half in world.halves.items() if name != action.name})
            self.kept_halves.pop(action.kid, None)
        elif isinstance(action, RestoreHalves):
            self._expect(action.version, world.private_version)
            back = {self.kept_halves[kid].name: self.kept_halves[kid] for kid in action.kids}
            world.put_halves(world.halves | back)
        elif isinstance(action, Record):
            self._expect(action.version, world.status_version)
            world.status_version += 1
            world.history = history.append(world.history, action.entry, length=world.policy.history)
        elif isinstance(action, FencePod | RemovePod):
            pod = next((pod for pod in world.pods if pod.uid == action.uid), None)
            if pod is None:
                return
            if isinstance(action, FencePod):
                pod.fenced = True
                world.happened["fenced"] += 1
            else:
                world.remove(pod)

    @staticmethod
    def _expect(read: str, is_now: int) -> None:
        if read != str(is_now):
            raise Conflict
