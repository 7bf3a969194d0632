"""Thousands of spec changes, each planned and then applied: is what was planned what is written?

A *stream* is one installation in a namespace of its own that lives through many changes, one after the other; several
streams run at the same time, so that nobody waits for the slowest. A case is: a random change (`tests.kit.specs`) that
the API server accepts in a dry run; the plan of it, made by the product's preview on the live state, with a dry run for
each of its writes; the change applied; and, when the operator's own process has said how it ended, the operator's
writes out of the API server's audit log. They must be those of the plan, object by object and verb by verb, each once,
and the objects must have changed in the fields that the plan named, and in no other.
"""

from __future__ import annotations

import copy
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from novacore_contracts.releases import CURRENT
from novacore_operator.build.installation import KINDS
from novacore_operator.build.scale import SCALE_MANAGER
from novacore_operator.loop.preview import PAUSED
from novacore_operator.preview import UNMADE, Change, FieldChange, with_fields
from novacore_operator.state import Ref
from tests.api.cel_cases import CASES
from tests.kit.api import Manifest, RefusedError
from tests.kit.auditlog import Request, Tail
from tests.kit.bench import Bench
from tests.kit.nova import condition, nova
from tests.kit.operator_process import OperatorProcess, namespace_of
from tests.kit.planner import USER, Planner
from tests.kit.specs import ALL, SECRETS, Generator, Leaf, Path, changed, flat, merged, schema
from tests.kit.wait import until

SOMEBODY = "test-user"
"""Who changes specs. Not the administrator, whose name the played pods use."""
END_S = 150
LATE_S = 2
AFTER_REFUSAL_S = 30
CACHES_S = 30
TRIES = 60
ERRORS_MAX = 5
SEVERAL = 0.3
LEFT_BEHIND = ("Planned", "Paused", "MaintenanceWait")
"""Reasons of `Ready=False` that are the end of a case, beside those of a blocked spec."""
REFUSALS = ("ApplyRefused", "StorageChangeRefused")
CREATED = 201
REFUSED = 400

Write = tuple[str, str, str]
"""Verb, kind, name."""


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A case in which the plan was wrong."""

    stream: int
    number: int
    before: Manifest
    after: Manifest
    words: tuple[str, ...]

    def __str__(self) -> str:
        """As a person reads it."""
        return "\n  ".join(
            [f"stream {self.stream}, case {self.number}:", *self.words, f"from {self.before}", f"to   {self.after}"]
        )


@dataclass
class Report:
    """What the cases came to."""

    outcomes: Counter[str] = field(default_factory=Counter)  # reason of Ready
    writes: Counter[str] = field(default_factory=Counter)  # by verb
    fields: int = 0  # changed fields that were compared
    dry_runs: int = 0
    refused_candidates: int = 0
    handovers: int = 0
    reached: set[Path] = field(default_factory=set)  # leaves of the resource that some carried out case changed
    plan_s: list[float] = field(default_factory=list)
    mismatches: list[Mismatch] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @property
    def cases(self) -> int:
        """How many."""
        return len(self.plan_s)

    def percentile(self, share: float) -> float:
        """Return a percentile of the time a plan took, in milliseconds."""
        times = sorted(self.plan_s)
        return 1000 * times[min(int(len(times) * share), len(times) - 1)] if times else 0.0

    def unreached(self) -> list[str]:
        """Return the fields of the resource that no case changed."""
        return sorted(str(leaf) for leaf in ALL if leaf.path not in self.reached and leaf.path[:2] != CANARY)

    def line(self) -> str:
        """Say it in a line."""
        return (
            f"{self.cases} spec changes planned and applied {dict(self.outcomes.most_common())}: "
            f"{len(self.mismatches)} mismatches; {sum(self.writes.values())} writes {dict(self.writes)} with "
            f"{self.fields} changed fields, {self.dry_runs} dry runs; {len(ALL) - len(self.unreached())} of {len(ALL)} "
            f"fields of the resource changed; a plan with its dry runs p50 {self.percentile(0.5):.0f} ms, "
            f"p99 {self.percentile(0.99):.0f} ms, max {self.percentile(1):.0f} ms"
        )


class Statuses:
    """The last state of each resource, from one watch."""

    def __init__(self, ground: Bench) -> None:
        self._api = ground.api
        self._last: dict[str, Manifest] = {}
        self._changed = threading.Condition()
        self._stop = threading.Event()

    def __enter__(self) -> Statuses:
        items, version = self._api.version_of("NovaCoreDeployment")
        for item in items:
            self._take(item)
        threading.Thread(target=self._follow, args=(version,), name="statuses", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()

    def until(self, namespace: str, probe: Callable[[Manifest], bool], within_s: float) -> Manifest | None:
        """Return the first state that a probe likes, or None when the time is over."""

        def liked() -> bool:
            return namespace in self._last and probe(self._last[namespace])

        with self._changed:
            return self._last[namespace] if self._changed.wait_for(liked, within_s) else None

    def all(self) -> list[Manifest]:
        """Return the last state of each resource."""
        with self._changed:
            return list(self._last.values())

    def last(self, namespace: str) -> Manifest:
        """Return the last state."""
        return self._last.get(namespace, {})

    def _take(self, item: Manifest) -> None:
        with self._changed:
            self._last[item["metadata"]["namespace"]] = item
            self._changed.notify_all()

    def _follow(self, version: str) -> None:
        while not self._stop.is_set():
            for event, item in self._api.watch("NovaCoreDeployment", since=version, timeout_s=5):
                version = item["metadata"]["resourceVersion"]
                if event in ("ADDED", "MODIFIED"):
                    self._take(item)


def immutable(node: Any = None, path: Path = ()) -> list[Leaf]:
    """Return the leaves that a rule compares with what they were: some can only be chosen at the beginning."""
    node = schema() if node is None else node
    rules = [rule["rule"] for rule in node.get("x-kubernetes-validations", ())]
    found = [leaf for leaf in ALL if leaf.path[:-1] == path and any(f"oldSelf.{leaf.path[-1]}" in r for r in rules)]
    for name, part in node.get("properties", {}).items():
        found += immutable(part, (*path, name))
    return found


FIXED = frozenset(leaf.path for leaf in immutable())
STARTS = tuple(case.accepted for case in CASES if FIXED & flat(case.accepted).keys())
"""Specs that set what can only be chosen at the beginning, as the table of CEL cases has them."""


CANARY = ("rollout", "canary")
"""Left out: a canary is judged by what its pods serve, and the sweep plays no pods. That its writes are the planned ones
is shown by `tests/unit/operator/test_preview.py` and `tests/api/test_canary.py`."""


def without_canaries(spec: Manifest) -> Manifest:
    """Return a spec that makes no canary."""
    rollout = {key: value for key, value in spec.get("rollout", {}).items() if key != "canary"}
    return {**spec, "rollout": rollout} if "rollout" in spec else spec


class PlanSweep:
    """All streams of a run."""

    def __init__(self, ground: Bench, operator: OperatorProcess, planner: Planner, statuses: Statuses) -> None:
        self.ground = ground
        self.operator = operator
        self.planner = planner
        self.statuses = statuses
        self.api = ground.plane.user(SOMEBODY, "system:masters")
        self.tail = Tail(ground.audit, operator.user, USER)
        self.report = Report()
        self.lock = threading.Lock()
        self.stop = threading.Event()

    def alone(self, plans: int) -> list[float]:
        """Return how long plans take, in seconds, when nothing else is planned or applied."""
        installed = [body for body in self.statuses.all() if condition(body, "Ready").get("status") == "True"]
        times = []
        for number in range(plans):
            body = copy.deepcopy(installed[number % len(installed)])
            body["spec"]["image"]["pullPolicy"] = "Always"  # each service, and the migration
            times.append(self.planner.plan(body).seconds)
        return sorted(times)

    def run(
        self,
        *,
        cases: int,
        at_least: int,
        seed: int,
        streams: int,
        each: int,
        within_s: float,
        told: Callable[[], None],
    ) -> None:
        """Take this many cases, or as many as the time allows, but never fewer than `at_least`."""
        end = time.monotonic() + within_s
        numbers = iter(range(10_000 * seed, 10_000 * seed + 10_000))

        def enough() -> bool:
            wanted = cases if time.monotonic() < end else at_least
            return self.stop.is_set() or self.report.cases >= wanted

        def work() -> None:
            while not enough():
                with self.lock:
                    number = next(numbers)
                try:
                    Stream(self, number).run(each, enough, told)
                except Exception as error:  # the run fails with it; the other streams go on meanwhile
                    self.report.errors.append(f"stream {number}: {type(error).__name__}: {error}")
                    if len(self.report.errors) >= ERRORS_MAX:
                        self.stop.set()

        threads = [threading.Thread(target=work, name=f"stream {n}", daemon=True) for n in range(streams)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


class Stream:
    """One installation and its changes."""

    def __init__(self, sweep: PlanSweep, number: int) -> None:
        self.sweep = sweep
        self.number = number
        self.namespace = f"p-{number}"
        self.rng = random.Random(f"plan {number}")
        self.generator = Generator(self.rng)
        self.order = self.rng.sample(ALL, len(ALL))
        self.spec: Manifest = {}
        self.good: Manifest = {}  # the last that was Ready
        self.stored: Manifest = {}

    def run(self, cases: int, enough: Callable[[], bool], told: Callable[[], None]) -> None:
        """Live through this many cases. After a mismatch this installation is left: what follows would be its echo."""
        api = self.sweep.api
        api.apply(namespace_of(self.namespace))
        for name in SECRETS:
            api.apply(every_key(self.namespace, name))
        before = len(self.sweep.report.mismatches)
        for number in range(cases):
            if enough() or self.case(number):
                break
            told()
        assert len(self.sweep.report.mismatches) >= before

    def case(self, number: int) -> bool:
        """Take one case; return whether the installation is of no further use."""
        sweep = self.sweep
        spec, tried = self._accepted(number)
        planned = sweep.planner.plan(tried)
        dry = sum(request.dry_run or request.verb == "delete" for request in sweep.tail.take(USER, self.namespace))
        updates = {change.ref for change in planned.preview.changes if change.verb == "update"}
        before = {ref: sweep.ground.api.get(ref.kind, ref.name, ref.namespace) for ref in updates}
        sweep.tail.take(sweep.operator.user, self.namespace)
        made = sweep.api.apply(nova(self.namespace, **spec), manager=SOMEBODY)
        generation = made["metadata"]["generation"]
        blocked = planned.preview.blocked
        ends = {*LEFT_BEHIND, *([blocked.reason.value] if blocked else [])}
        end = sweep.statuses.until(self.namespace, lambda body: _ended(body, generation, ends), END_S)
        now = [change for change in planned.preview.changes if _at_once(made["spec"], change)]
        words = self._judged(end, now, before, planned.preview.hash)
        leaves = changed(self.stored.get("spec", {}), made["spec"])
        with sweep.lock:
            report = sweep.report
            report.plan_s.append(planned.seconds)
            report.dry_runs += dry
            wanted = _tried(planned.preview.changes, self.namespace)
            if dry != wanted:
                words.append(f"{wanted} writes planned, {dry} of them tried as a dry run")
            report.outcomes[condition(end, "Ready").get("reason", "no end")] += 1
            report.writes.update(change.verb for change in now)
            if end is not None and blocked is None:
                report.reached |= leaves
            if words:
                report.mismatches.append(Mismatch(self.number, number, self.spec, spec, tuple(words)))
        self.spec, self.stored = spec, made
        if condition(end, "Ready").get("status") == "True":
            self.good = spec
        if words or (blocked is not None and number == 0):
            return True
        self._await_caches(made, now, before)
        return False

    # --- the change ---------------------------------------------------------------------------------------------------

    def _accepted(self, number: int) -> tuple[Manifest, Manifest]:
        """Return a changed spec, and the resource as the API server would store it."""
        for attempt in range(TRIES):
            spec = without_canaries(self._with_own_port(self._next(number, attempt) if self.spec else self._start()))
            try:
                tried = self.sweep.api.apply(nova(self.namespace, **spec), manager=SOMEBODY, dry_run=True)
            except RefusedError as error:
                assert error.code == 422, error
                self.sweep.report.refused_candidates += 1
                continue
            if tried["spec"] != self.stored.get("spec"):
                return spec, tried
        raise AssertionError(f"stream {self.number}: no candidate accepted in {TRIES}, from {self.spec}")

    def _start(self) -> Manifest:
        spec: Manifest = {"version": CURRENT}
        if self.number % 2:
            spec = self.generator.naming(merged(spec, STARTS[self.number // 2 % len(STARTS)]))
        for _ in range(self.rng.choice((0, 0, 4, 12))):
            spec = self.generator.candidate(spec)
        return spec

    def _next(self, number: int, attempt: int) -> Manifest:
        # From what was Ready last, half the time: else one blocked spec would be followed by many.
        base = self.good if self.good and self.rng.random() < 0.5 else self.spec
        # The field whose turn it is; after some refusals any other: some changes are impossible from here.
        leaf = self.order[(number + attempt // 10) % len(self.order)]
        spec = self.generator.candidate(base, leaf)
        while self.rng.random() < SEVERAL:
            spec = self.generator.candidate(spec)
        return spec

    def _with_own_port(self, spec: Manifest) -> Manifest:
        """Return a spec with a node port of this stream alone: a port is given out once in a cluster."""
        if spec.get("expose", {}).get("type") != "NodePort":
            return spec
        port = 30_000 + 2 * (self.number % 1300) + self.rng.randint(0, 1)
        return {**spec, "expose": {**spec["expose"], "nodePort": port}}

    # --- the judgement ------------------------------------------------------------------------------------------------

    def _judged(
        self, end: Manifest | None, now: list[Change], before: dict[Ref, Manifest | None], plan_hash: str
    ) -> list[str]:
        """Return what is wrong, in words."""
        if end is None:
            last = self.sweep.statuses.last(self.namespace)
            ready = condition(last, "Ready")
            return [
                f"no end within {END_S} s: generation {last.get('metadata', {}).get('generation')}, Ready is {ready}"
            ]
        wanted = Counter(_write(change) for change in now)
        done, words = self._done(wanted, may_be_refused=condition(end, "Ready")["reason"] in REFUSALS)
        words += [f"planned and not written: {_said(write)}" for write in (wanted - done).elements()]
        words += [f"written and not planned: {_said(write)}" for write in (done - wanted).elements()]
        if condition(end, "Ready")["reason"] == "Planned" and end["status"]["plan"]["hash"] != plan_hash:
            words.append(f"status.plan has hash {end['status']['plan']['hash']}, the plan {plan_hash}")
        if not words:
            words += self._fields(now, before)
        return words

    def _done(self, wanted: Counter[Write], *, may_be_refused: bool) -> tuple[Counter[Write], list[str]]:
        """Return the operator's writes; those that are planned are waited for: the log may be a moment late."""
        requests: list[Request] = []

        def complete() -> bool:
            requests.extend(self.sweep.tail.take(self.sweep.operator.user, self.namespace))
            return not wanted - _named(wanted, _writes(requests))

        # A refusal is said in the first turn, and services that do not wait for what was refused go on after it.
        late = time.monotonic() + (AFTER_REFUSAL_S if may_be_refused else LATE_S)
        while not complete() and time.monotonic() < late:
            self.sweep.stop.wait(0.05)
        done = _named(wanted, _writes(requests))
        root = ("Secret", f"novacore-root-{self.namespace}")
        done.update(write for write in wanted.elements() if write[1:] == root and self._has_root())
        errors = []
        if not may_be_refused:
            errors = [f"the API server refused: {request}" for request in requests if _is_error(request)]
        self.sweep.report.handovers += sum(request.manager == SCALE_MANAGER for request in requests)
        return done, errors

    def _has_root(self) -> bool:
        return self.sweep.ground.api.get("Secret", f"novacore-root-{self.namespace}", "novacore-system") is not None

    def _fields(self, now: Iterable[Change], before: dict[Ref, Manifest | None]) -> list[str]:
        """Return where the fields that changed are not those that the plan named."""
        words = []
        once = Counter(change.ref for change in now)
        for change in now:
            old = before.get(change.ref)
            if old is None or once[change.ref] > 1:
                continue
            new = self.sweep.ground.api.get(change.ref.kind, change.ref.name, change.ref.namespace)
            if new is None:
                words.append(f"{change.ref} is gone")
                continue
            done, named = (_kept(change, found) for found in (with_fields(change, old, new).fields, change.fields))
            self.sweep.report.fields += len(done)
            words += [f"{change.ref}: planned and not so: {item}" for item in named if item not in done]
            words += [f"{change.ref}: not planned and so: {item}" for item in done if item not in named]
        return words

    def _await_caches(self, made: Manifest, now: list[Change], before: dict[Ref, Manifest | None]) -> None:
        """Wait until the planner's caches have what was written: its next plan is to be of the live state."""
        last = {change.ref: change for change in now if not change.ref.name.endswith(UNMADE)}
        versions = {ref: int(body["metadata"]["resourceVersion"]) for ref, body in before.items() if body is not None}

        def behind() -> list[str]:
            objects = self.sweep.planner.seen(made).objects
            return [
                str(ref)
                for ref, change in last.items()
                if (change.verb == "delete") != (ref not in objects)
                or (ref in objects and objects[ref].version <= versions.get(ref, 0))
            ]

        until(
            lambda: not behind(),
            within_s=CACHES_S,
            what=f"the caches have the objects of {self.namespace}",
            report=lambda: ", ".join(behind()),
        )


def every_key(namespace: str, name: str) -> Manifest:
    """Return a Secret that will do wherever a spec names one."""
    data = {
        "host": "db.example.org",
        "port": "5432",
        "user": "root",
        "username": "root",
        "password": "p" * 32,
        "database": "nova",
        "ca": "-----BEGIN CERTIFICATE-----\n",
        "apiKey": "sk-" + name,
        "webhookSecret": "whsec_" + name,
        "url": "redis://redis.example.org:6379/0",
    }
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": data}


def _ended(body: Manifest, generation: int, ends: set[str]) -> bool:
    ready, paused = condition(body, "Ready"), condition(body, "Paused")
    if ready.get("observedGeneration") != generation:
        return False
    return ready["status"] == "True" or ready["reason"] in ends or paused.get("status") == "True"


def _at_once(spec: Manifest, change: Change) -> bool:
    """Whether a change is made without anybody's doing: not in mode Plan, in a pause, or before a window."""
    waits = change.waits_for == PAUSED or change.waits_for.startswith("the maintenance window")
    refused = "the API server refuses" in change.waits_for
    return spec["mode"] == "Apply" and not waits and not refused


def _tried(changes: Iterable[Change], namespace: str) -> int:
    """Return how many dry runs a plan is good for: none to delete what the plan itself makes, a canary."""
    made: set[Ref] = set()
    count = 0
    for change in changes:
        count += change.ref.namespace == namespace and not (change.verb == "delete" and change.ref in made)
        made |= {change.ref} if change.verb == "create" else set()
    return count


def _write(change: Change) -> Write:
    return change.verb, change.ref.kind, change.ref.name


def _said(write: Write) -> str:
    return " ".join(write)


KIND_OF = {kind.plural: name for name, kind in KINDS.items()}


def _writes(requests: Iterable[Request]) -> Counter[Write]:
    """Return the writes of objects among requests. Of a handover of scale the write that follows it is counted."""
    found: Counter[Write] = Counter()
    for request in requests:
        if request.is_write and request.resource in KIND_OF and request.code < REFUSED:
            verb = "delete" if request.verb == "delete" else "create" if request.code == CREATED else "update"
            if request.manager != SCALE_MANAGER:
                found[verb, KIND_OF[request.resource], request.name] += 1
    return found


def _named(wanted: Counter[Write], done: Counter[Write]) -> Counter[Write]:
    """Return the writes under the names that the plan has for them: one may say `(made at apply)` at its end."""
    open_ends = {write for write in wanted if write[2].endswith(UNMADE)}

    def plans(write: Write) -> Write:
        fits = (one for one in open_ends if one[:2] == write[:2] and write[2].startswith(one[2].removesuffix(UNMADE)))
        return next(fits, write)

    return Counter(plans(write) for write in done.elements())


def _is_error(request: Request) -> bool:
    return request.is_write and request.code >= REFUSED and request.code != 409 and request.resource in KIND_OF


def _kept(change: Change, fields: Iterable[FieldChange]) -> list[FieldChange]:
    """Leave out the number of pods where it is an autoscaler's, who sets it in the same moments."""
    spec = (change.manifest or {}).get("spec", {})
    scaled = change.ref.kind == "Deployment" and "replicas" not in spec
    return [item for item in fields if not (scaled and item.path == "spec.replicas")]
