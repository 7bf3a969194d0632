"""One run from the queue to its end, apart from any socket.

Two tasks per run: one reads the model into `Windows`, one takes whole sentences out, has them judged and writes them to
the run's log. So the model never waits for the policy, and nothing unjudged is ever in the log (POLICY-1).
No database connection is held while the model writes.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass, field
from uuid import UUID

from novacore.common import context
from novacore.common.clock import Clock
from novacore.common.database import Database
from novacore.common.errors import ServiceError
from novacore.common.log import get_logger
from novacore.common.metrics import Metrics
from novacore.common.peers import PeerError, Peers
from novacore.intelligence import repository
from novacore.intelligence.events import RunEvent
from novacore.intelligence.followups import Ended, FollowUps
from novacore.intelligence.meter import ModelMeter
from novacore.intelligence.policy import Policy, PolicySilentError
from novacore.intelligence.providers import Chain, FailureKind, Generation, Piece, ProviderError, Usage
from novacore.intelligence.providers.chain import Started
from novacore.intelligence.repository import RunEnd
from novacore.intelligence.runlog import RunLog, RunLogs
from novacore.intelligence.runs import Status, after, billed
from novacore.intelligence.settings import IntelligenceSettings
from novacore.intelligence.windows import Windows

log = get_logger()

END_RETRY_S = (0.2, 0.5, 1.0, 2.0, 5.0)
END_PATIENCE_S = 60.0
"""How long the end of a run waits for Postgres before it is left to the sweep of whichever replica comes first."""
CHECKPOINT_TIMEOUT_S = 2.0

SENTENCES: dict[str, str] = {
    "provider_error": "The model provider failed.",
    "deadline": "The model took too long.",
    "upstream_down": "A service the answer needs is not reachable.",
}
ABORTS: dict[Status, str] = {
    Status.BLOCKED: "policy",
    Status.FAILED: "error",
    Status.INTERRUPTED: "drain",
    Status.CANCELLED: "client",
}


@dataclass(slots=True, eq=False)
class LiveRun:
    """A run that is generated here."""

    id: UUID
    session_id: UUID
    user_id: UUID
    priority: int
    generation: Generation
    reserved: int
    model: str
    policy_version: int
    request_id: str
    traceparent: str
    began: float
    log: RunLog
    status: Status = Status.QUEUED
    produced: int = 0
    cancel: asyncio.Event = field(default_factory=asyncio.Event)
    stopped_as: Status | None = None
    lost: bool = False  # ended by another replica: nothing of it may be written any more
    ending: bool = False  # the verdict is made
    closed: bool = False  # and written
    out_of_queue: asyncio.Event = field(default_factory=asyncio.Event)
    first_byte: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    over: asyncio.Event = field(default_factory=asyncio.Event)  # the steps after the end were tried, too


@dataclass(slots=True)
class _Writing:
    """What the two tasks of a run share."""

    windows: Windows = field(default_factory=Windows)
    more: asyncio.Event = field(default_factory=asyncio.Event)
    finished: bool = False
    usage: Usage | None = None
    failure: ProviderError | None = None
    silent: bool = False
    blocked: bool = False
    sent: list[str] = field(default_factory=list)
    first_at: float | None = None
    last_at: float = 0.0
    due: asyncio.Event = field(default_factory=asyncio.Event)  # a quota checkpoint


class Executor:
    """All runs of this replica. Enter it to start, leave it to drain."""

    def __init__(
        self,
        *,
        db: Database,
        peers: Peers,
        chain: Chain,
        policy: Policy,
        logs: RunLogs,
        followups: FollowUps,
        settings: IntelligenceSettings,
        metrics: Metrics,
        meter: ModelMeter,
        clock: Clock,
    ) -> None:
        self._db = db
        self._peers = peers
        self._chain = chain
        self._policy = policy
        self._logs = logs
        self._followups = followups
        self._runs = settings.runs
        self._meter = meter
        self._clock = clock
        self._aborts = metrics.counter("novacore_stream_aborts_total")
        self._group: asyncio.TaskGroup | None = None
        self._draining_since: float | None = None
        self.live: dict[UUID, LiveRun] = {}

    async def __aenter__(self) -> Executor:
        """Accept runs from now on."""
        self._group = asyncio.TaskGroup()
        await self._group.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        """Let the runs finish in what is left of the drain, interrupt the others, wait until all are over."""
        self.begin_drain()
        await self.drained()
        assert self._group is not None
        await self._group.__aexit__(None, None, None)
        self._group = None

    def launch(self, run: LiveRun) -> None:
        """Take over an accepted run."""
        if self._group is None:
            raise RuntimeError("the executor is not running")
        self.live[run.id] = run
        self._group.create_task(self._guard(run), name=f"run-{run.id}")

    def stop(self, run_id: UUID, status: Status) -> bool:
        """Ask a run of this replica to end as `status`. False when it is not here."""
        run = self.live.get(run_id)
        if run is None:
            return False
        run.stopped_as = run.stopped_as or status
        run.cancel.set()
        return True

    def lose(self, run_id: UUID) -> None:
        """Another replica ended this run: stop, and write nothing more."""
        run = self.live.get(run_id)
        if run is not None and not run.ending:
            run.lost = True
            run.cancel.set()

    def begin_drain(self) -> None:
        """Start the clock of the drain."""
        if self._draining_since is None:
            self._draining_since = self._clock.monotonic()

    async def drained(self) -> None:
        """Wait for the live runs; those still there at the end of the drain are interrupted and billed."""
        assert self._draining_since is not None
        left_s = self._draining_since + self._runs.drain_s - self._clock.monotonic()
        waiting = [asyncio.ensure_future(run.over.wait()) for run in self.live.values()]
        if waiting and left_s > 0:
            await asyncio.wait(waiting, timeout=left_s)
        for run_id in list(self.live):
            self.stop(run_id, Status.INTERRUPTED)
        for waiter in waiting:
            waiter.cancel()

    async def _guard(self, run: LiveRun) -> None:
        """Run it; a fault of ours ends it as failed instead of leaving it without an end."""
        with context.bind(request_id=run.request_id, traceparent=run.traceparent, user_id=run.user_id):
            try:
                await self._run(run)
            except Exception as error:  # top of a task
                log.error("run_crashed", error=error)
                await self._crashed(run)
            finally:
                self.live.pop(run.id, None)
                self._logs.close(run.id)
                for event in (run.out_of_queue, run.first_byte, run.ended, run.over):
                    event.set()

    async def _crashed(self, run: LiveRun) -> None:
        end = RunEnd(
            Status.FAILED, run.generation.prompt_tokens, run.produced,
            billed(Status.FAILED, prompt=run.generation.prompt_tokens, completion=run.produced), "",
            error_code="provider_error",
        )  # fmt: skip
        try:
            ended = await self._followups.end(run.id, run.user_id, end)
        except ServiceError:
            return  # the sweep ends it
        if ended is not None and not run.log.closed:
            await self._write_end(run, ended, settled=False)

    async def _run(self, run: LiveRun) -> None:
        writing = _Writing()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._generate(run, writing))
            keeper = tasks.create_task(self._keep_checkpoints(run, writing))
            await self._publish(run, writing)
            keeper.cancel()
        if run.lost:
            await run.log.write("end", _end_data(run, Status.INTERRUPTED, tokens=0, latency_ms=0))
            return
        run.ending = True
        end = self._verdict(run, writing)
        ended = await self._end(run, end)
        run.closed = True
        if ended is None:
            await run.log.write("end", _end_data(run, Status.INTERRUPTED, tokens=0, latency_ms=0))
            return
        run.status = ended.status
        if ended.status in ABORTS:
            self._aborts.labels("deadline" if end.error_code == "deadline" else ABORTS[ended.status]).inc()
        writing_s = None if writing.first_at is None else writing.last_at - writing.first_at
        cached = writing.usage.cached if writing.usage else 0
        if end.completion_tokens or ended.status is Status.DONE:
            self._meter.tokens(
                run.model,
                prompt=end.prompt_tokens,
                completion=end.completion_tokens,
                cached=cached,
                writing_s=writing_s,
            )
        settled, ended = await self._followups.first_steps(ended)
        await self._write_end(run, ended, settled=settled)
        run.ended.set()
        log.info(
            "run_ended", status=ended.status.value, code=ended.error_code, ms=ended.latency_ms, tokens=ended.billed
        )
        await self._followups.last_steps(ended)
        await run.log.finish()

    async def _generate(self, run: LiveRun, writing: _Writing) -> None:
        try:
            stream = self._chain.stream(run.generation, run.cancel, priority=run.priority)
            async with aclosing(stream) as items:
                async for item in items:
                    match item:
                        case Started():
                            await self._started(run, item)
                        case Piece():
                            self._received(run, writing, item)
                        case Usage():
                            writing.usage = item
                            run.produced = max(run.produced, item.completion)
        except ProviderError as error:
            writing.failure = error
            log.warning("provider_failed", reason=error.kind.value)
        finally:
            writing.finished = True
            writing.more.set()

    async def _started(self, run: LiveRun, started: Started) -> None:
        if run.status is Status.QUEUED:
            run.status = after(run.status, Status.RUNNING)
        run.model = started.model
        run.out_of_queue.set()
        try:
            async with self._db.transaction(run.user_id) as conn:
                ours = await repository.mark_running(
                    conn, run.id, run.user_id, provider=started.provider, model=started.model
                )
        except ServiceError:
            return  # the answer does not depend on this mark; the heartbeat tells whether the run is still ours
        if not ours:
            self.lose(run.id)

    def _received(self, run: LiveRun, writing: _Writing, piece: Piece) -> None:
        now = self._clock.monotonic()
        if writing.first_at is None:
            writing.first_at = now
            run.first_byte.set()
        writing.last_at = now
        step = self._runs.checkpoint_tokens
        if piece.tokens // step > run.produced // step:
            writing.due.set()
        run.produced = piece.tokens
        writing.windows.push(piece.text)
        writing.more.set()

    async def _keep_checkpoints(self, run: LiveRun, writing: _Writing) -> None:
        """Tell the quota what was produced so far: it bills that if this pod is gone before it can settle."""
        while True:
            await writing.due.wait()
            writing.due.clear()
            amount = run.generation.prompt_tokens + run.produced
            try:
                await self._peers.call(
                    "auth-billing", "POST", "/internal/quota/checkpoint", internal=True,
                    json={"hold_id": str(run.id), "amount": min(amount, run.reserved)}, timeout_s=CHECKPOINT_TIMEOUT_S,
                )  # fmt: skip
            except PeerError as error:
                log.warning("checkpoint_missed", reason=error.code)  # the next one has it all

    async def _publish(self, run: LiveRun, writing: _Writing) -> None:
        held = ""
        while True:
            await writing.more.wait()
            writing.more.clear()
            finished = writing.finished
            held += writing.windows.rest() if finished else writing.windows.take()
            if held.strip() and not run.lost:
                if not await self._judge_and_send(run, writing, held):
                    run.cancel.set()
                    return
                held = ""
            if finished or run.lost:
                return

    async def _judge_and_send(self, run: LiveRun, writing: _Writing, window: str) -> bool:
        """Return False when nothing more may be sent."""
        tokens = run.produced
        try:
            decision = await self._policy.judge_output(writing.windows.judged(window), run.user_id)
        except PolicySilentError:
            log.warning("policy_silent", reason="output")
            writing.silent = True
            return False
        run.policy_version = decision.version
        if decision.action != "allow":
            await run.log.write("policy", {"action": decision.action, "rule_ids": list(decision.rule_ids)})
        if decision.action == "block":
            writing.blocked = True
            return False
        await run.log.write("chunk", {"i": len(writing.sent), "text": window, "tokens": tokens})
        writing.sent.append(window)
        writing.windows.released(window)
        return True

    def _verdict(self, run: LiveRun, writing: _Writing) -> RunEnd:
        """Return how a run ends: what stopped it first, from the gravest down."""
        code: str | None = None
        ran_out = writing.usage is not None and writing.usage.finish != "cancelled"
        text = "".join(writing.sent)
        if writing.blocked:
            status = Status.BLOCKED
        elif writing.silent:
            status, code = Status.FAILED, "upstream_down"
        elif run.stopped_as is not None and not (ran_out and text):
            status = run.stopped_as
        elif writing.failure is not None:
            timed_out = writing.failure.kind is FailureKind.TIMEOUT
            status, code = Status.FAILED, "deadline" if timed_out else "provider_error"
        elif not text:
            status, code = Status.FAILED, "provider_error"  # an empty answer is a failure, never an empty 200
        else:
            status = Status.DONE
        usage = writing.usage
        prompt = usage.prompt if usage is not None and usage.prompt else run.generation.prompt_tokens
        completion = usage.completion if usage is not None else run.produced
        return RunEnd(
            status, prompt, completion, billed(status, prompt=prompt, completion=completion), text,
            policy_version=run.policy_version, error_code=code,
        )  # fmt: skip

    async def _end(self, run: LiveRun, end: RunEnd) -> Ended | None:
        """Write the end; Postgres may be away for a while. None: another replica ended the run."""
        patience = self._clock.monotonic() + END_PATIENCE_S
        for attempt in range(10_000):
            try:
                return await self._followups.end(run.id, run.user_id, end)
            except ServiceError:
                if self._clock.monotonic() > patience:
                    return None
                log.warning("run_end_delayed", reason="database")
                await asyncio.sleep(END_RETRY_S[min(attempt, len(END_RETRY_S) - 1)])
        return None

    async def _write_end(self, run: LiveRun, ended: Ended, *, settled: bool) -> None:
        await run.log.write(
            "usage",
            {
                "prompt": ended.prompt_tokens,
                "completion": ended.completion_tokens,
                "reserved": run.reserved,
                "settled": ended.billed if settled else None,
            },
        )
        if ended.error_code is not None:
            await run.log.write("error", {"code": ended.error_code, "detail": SENTENCES[ended.error_code]})
        await run.log.write("end", end_data(ended))


def end_data(ended: Ended) -> dict[str, object]:
    """Return the data of the `end` event of an ended run."""
    data: dict[str, object] = {
        "status": ended.status.value,
        "session_id": str(ended.session_id),
        "run_id": str(ended.id),
        "tokens_used": ended.billed,
        "latency_ms": ended.latency_ms,
    }
    if ended.error_code is not None:
        data |= {"code": ended.error_code, "detail": SENTENCES.get(ended.error_code, "The answer failed.")}
    return data


def events_of(ended: Ended) -> list[RunEvent]:
    """Return the events of an ended run whose stream has expired: the whole answer, then the end."""
    events = [RunEvent("chunk", {"i": 0, "text": ended.answered}, "0-1")] if ended.answered else []
    return [*events, RunEvent("end", end_data(ended), "0-2")]


def _end_data(run: LiveRun, status: Status, *, tokens: int, latency_ms: int) -> dict[str, object]:
    return {
        "status": status.value,
        "session_id": str(run.session_id),
        "run_id": str(run.id),
        "tokens_used": tokens,
        "latency_ms": latency_ms,
    }
