"""A run: a world, one operator or two, time that passes quickly when nothing happens. And a random one from a number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from novacore_operator.rotation import guards as gates
from novacore_operator.rotation import rings
from novacore_operator.rotation.actions import Step
from novacore_operator.rotation.guards import GUARDS, Guards
from novacore_operator.rotation.history import Outcome
from novacore_operator.rotation.timing import PRODUCTION, Timing
from novacore_operator.rotation.triggers import Mode, Trigger, Verb
from tests.kit.rotationsim.checks import Watch
from tests.kit.rotationsim.driver import Operator
from tests.kit.rotationsim.world import RING, Faults, World, with_trigger

BUSY_S = 1.0
WAITING_S = 8.0
IDLE_S = 60.0
TTL_S = 1800
TIMING = replace(PRODUCTION, destroy_private_s=600.0)
"""Of random runs: tokens of half an hour, so that a run has a whole overlap; all other times are those of production."""


class Run:
    """A world under an operator's eyes."""

    def __init__(self, world: World, operators: Sequence[Operator] | None = None) -> None:
        self.world = world
        self.operators = list(operators) if operators is not None else [Operator(world)]
        self.watch = Watch(world)
        self.steps = 0
        self._pause = BUSY_S

    @property
    def operator(self) -> Operator:
        return self.operators[0]

    def step(self, dt: float = BUSY_S) -> None:
        """Let `dt` pass, the operators look, and check everything."""
        self.world.advance(dt)
        before = sum(len(operator.wrote) for operator in self.operators)
        if len(self.operators) == 1:
            acted = [self.operator.turn()]
        else:  # all look before anyone writes: the worst that two can do to each other
            decided = [operator.decide() for operator in self.operators]
            for operator, actions in zip(self.operators, decided, strict=True):
                operator.act(actions)
            acted = [bool(actions) or operator.asked for operator, actions in zip(self.operators, decided, strict=True)]
        wrote = sum(len(operator.wrote) for operator in self.operators) > before
        down = [*self.world.outages, *(self.operator.down if len(self.operators) == 1 else ())]
        self.watch.step(down=down)
        self.steps += 1
        if wrote:
            self._pause = BUSY_S
        elif any(acted) or not all(operator.alive for operator in self.operators):
            self._pause = min(self._pause * 1.3, WAITING_S)
        else:
            self._pause = min(self._pause * 2, IDLE_S)

    def until(self, done: Callable[[], bool], *, within_s: float, dt: float | None = None) -> float:
        """Step until `done`; return how long it took. AssertionError, with what was found, when it took too long."""
        begin = self.world.now
        while not done():
            left = begin + within_s - self.world.now
            assert left > 0, f"not within {within_s:g} s: {self.describe()}"
            self.step(min(dt or self._pause, left))
        return self.world.now - begin

    def pass_by(self, duration_s: float, *, dt: float | None = None) -> None:
        """Let time pass."""
        end = self.world.now + duration_s
        while self.world.now < end:
            self.step(min(dt or self._pause, end - self.world.now))

    def annotate(self, trigger: Trigger) -> None:
        """Ask for something by annotation, and have the operator look soon."""
        with_trigger(self.world, trigger)
        self._pause = BUSY_S

    def rotate(self, nonce: str) -> Trigger:
        """Ask for a rotation."""
        trigger = Trigger(Verb.ROTATE, RING, nonce)
        self.annotate(trigger)
        return trigger

    # --- what is the case -----------------------------------------------------------------------------------------

    @property
    def active(self) -> str:
        return self.world.document.active_kid

    @property
    def standby(self) -> str | None:
        key = rings.pending(self.world.document)
        return key.kid if key is not None else None

    def settled(self) -> bool:
        """The last switch is in the history, a standby is proven, nothing retires, no emergency is open."""
        document, seen = self.world.document, self.operator.seen
        return (
            seen is not None
            and gates.last_switch(seen) == document.active_kid
            and self.standby in seen.memory.evidence
            and not rings.retiring(document)
            and not [half for half in self.world.halves.values() if rings.key_of(document, half.kid) is None]
            and {stone.kid for stone in document.tombstones}
            <= {entry.kids[0] for entry in self.world.history if entry.outcome in (Outcome.RETIRED, Outcome.REVOKED)}
        )

    def ready(self) -> bool:
        """The last switch is recorded and the standby proven: a rotation may begin."""
        seen = self.operator.seen
        return (
            seen is not None
            and gates.last_switch(seen) == self.world.document.active_kid
            and self.standby is not None
            and self.standby in seen.memory.evidence
        )

    def describe(self) -> str:
        """Return what a person needs to see why a run did not end."""
        document = self.world.document
        keys = [(key.n, key.state) for key in document.keys]
        stones = [(stone.kid, stone.why) for stone in document.tombstones]
        last = [f"{step}" for _, step in self.operator.wrote[-8:]]
        return f"generation {document.generation}, keys {keys}, {stones}, last {document.last_trigger!r}, wrote {last}"


@dataclass
class Result:
    """Figures of one random run."""

    seed: int
    violations: list[str]
    visible: int
    requests: int
    canaries: int
    steps: int
    switches: int
    retired: int
    revoked: int
    unfinished: str = ""
    happened: dict[str, int] = field(default_factory=dict)


def random_run(seed: int, *, guard: Guards = GUARDS, timing: Timing = TIMING) -> Result:
    """Run one rotation, or two, among faults drawn from `seed`: late mounts, lost pushes, conflicts, stale reads, a death
    at one or two writes, skewed clocks, one straggler, births and roll-outs, an outage of the API, one emergency."""
    world = World(seed, ttl_s=TTL_S, timing=timing)
    draw = world.draw
    world.faults = Faults(
        lost_push=draw.choice((0.0, 0.1, 0.5)),
        conflict=draw.choice((0.0, 0.1)),
        stale_read=draw.choice((0.0, 0.2)),
        mount_s=(0.0, draw.choice((5.0, 60.0, 120.0))),
    )
    deaths = draw.sample(list(Step)[:12], k=draw.choice((0, 1, 1, 2)))
    operator = Operator(world, guards=guard, dies={step: draw.choice(("before", "after")) for step in deaths})
    run = Run(world, [operator])
    _skew(world)
    _straggler(world)
    unfinished = ""
    try:
        run.until(run.ready, within_s=3600)
        _rotations(run, seed)
    except AssertionError as error:
        unfinished = str(error)
    outcomes = [entry.outcome for entry in world.history]
    return Result(
        seed=seed,
        violations=run.watch.violations,
        visible=len(run.watch.visible),
        requests=run.watch.requests,
        canaries=world.happened["canaries"],
        steps=run.steps,
        switches=len({document.active_kid for _, document in world.documents}) - 1,
        retired=outcomes.count(Outcome.RETIRED),
        revoked=outcomes.count(Outcome.REVOKED),
        unfinished=unfinished,
        happened=dict(world.happened),
    )


def _rotations(run: Run, seed: int) -> None:
    """One rotation, and at once the next: its key is still to be brought to the pods when things go wrong."""
    world, draw = run.world, run.world.draw
    first = run.active
    run.rotate(f"a-{seed}")
    run.until(lambda: run.active != first, within_s=3600)
    second = run.active
    _incidents(run)
    run.rotate(f"b-{seed}")
    chance = draw.random()
    if chance < 0.4:
        run.pass_by(draw.uniform(0, 400))
        _emergency(run)
    elif chance < 0.5:
        run.pass_by(draw.uniform(0, 200))
        run.annotate(Trigger(Verb.ROLLBACK, RING, f"c-{seed}"))
    run.until(lambda: run.settled() and (run.active != second or len(world.triggers) > 1), within_s=4 * 3600)


def _skew(world: World) -> None:
    """Two clocks may differ by the verifiers' leeway: all by 15 s, or one pod by 30 s."""
    if world.draw.random() < 0.5:
        for pod in world.pods:
            pod.skew_s = world.draw.uniform(-14.5, 14.5)
    else:
        pod = world.draw.choice([pod for pod in world.pods if not pod.signs])
        pod.skew_s = world.draw.choice((-29.0, 29.0))


def _straggler(world: World) -> None:
    """One pod that the operator does not reach and whose mount is stuck, that is frozen, or that is deaf."""
    pod, now = world.draw.choice(world.pods), world.now
    kind = world.draw.choice(("none", "late", "late", "frozen", "deaf"))
    if kind == "late":
        pod.mount_stuck_until = now + world.draw.uniform(100, 900)
        pod.cut_off_until = now + world.draw.uniform(0, 900)
    elif kind == "frozen":
        pod.frozen_until = now + world.draw.uniform(5, 300)
    elif kind == "deaf" and not pod.signs:
        pod.deaf_s = world.draw.uniform(20, 400)
    world.happened[f"straggler {kind}"] += 1


def _incidents(run: Run) -> None:
    world, draw = run.world, run.world.draw
    _straggler(world)
    if draw.random() < 0.3:
        world.later(draw.uniform(0, 120), lambda: world.roll([draw.choice(world.pods).service for _ in range(2)]))
        world.happened["roll-outs"] += 1
    if draw.random() < 0.3:
        victim = draw.choice(world.pods)
        world.later(draw.uniform(0, 120), lambda: world.remove(victim) if victim in world.pods else None)
        world.happened["pods lost"] += 1
    if draw.random() < 0.15:

        def outage() -> None:
            world.take_api_down(draw.uniform(10, 300))

        world.later(draw.uniform(0, 120), outage)
        world.happened["outages"] += 1


def _emergency(run: Run) -> None:
    world, draw, document = run.world, run.world.draw, run.world.document
    kind = draw.choice(("active", "active", "both", "pending", "retiring", "deny"))
    if kind == "deny":
        run.annotate(Trigger(Verb.DENY, RING, "d", (draw.choice(["memory", "gateway", "intelligence"]),)))
    else:
        states = {"active": ("active",), "both": ("active", "pending")}.get(kind, (kind,))
        kids = tuple(key.kid for key in document.keys if key.state in states) or (document.active_kid,)
        mode = draw.choice((Mode.IMMEDIATE, Mode.IMMEDIATE, Mode.DRAIN))
        run.annotate(Trigger(Verb.REVOKE, RING, "e", kids, mode, "drill"))
    world.happened[f"emergency {kind}"] += 1
