"""intelligence on real stores with peers at the edge."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.kit.harness import RunningService
from tests.kit.keys import TestUser
from tests.service.intelligence.edge import Constitution, Memories, Quota

PATIENT = {"budgets": {"context_ms": 10_000, "policy_ms": 10_000, "reserve_ms": 10_000}}
"""Tests are about what happens, not how fast: a machine may be twenty times busier than a pod's."""
FAST = {"heartbeat_s": 0.2, "stale_s": 2.0, "sweep_s": 0.2, "drain_s": 0.5}


@dataclass
class Stage:
    """One replica with its peers."""

    running: RunningService
    quota: Quota
    constitution: Constitution
    memories: Memories

    async def post(self, path: str, body: dict[str, Any], user: TestUser, **headers: str):
        return await self.running.public.post(path, json=body, headers=self.running.headers(user) | headers)

    async def get(self, path: str, user: TestUser, **headers: str):
        return await self.running.public.get(path, headers=self.running.headers(user) | headers)

    async def stream(self, user: TestUser, message: str = "Hello there, friend.", **body: Any) -> Streamed:
        """Read `/chat/stream` to its end."""
        streamed = Streamed()
        async with self.open(user, message, **body) as lines:
            async for line in lines:
                streamed.add(line)
        return streamed

    @asynccontextmanager
    async def open(self, user: TestUser, message: str = "Hello there, friend.", **body: Any) -> AsyncIterator[Any]:
        """Open `/chat/stream` and yield its lines; leaving early closes the socket."""
        request = {"json": {"message": message, **body}, "headers": self.running.headers(user)}
        async with self.running.public.stream("POST", "/chat/stream", **request) as answer:
            assert answer.status_code == 200, await answer.aread()
            yield answer.aiter_lines()

    async def ended(self, run_id: str, user: TestUser, *, within_s: float = 15.0) -> dict[str, Any]:
        """Wait for a run's end."""
        async with asyncio.timeout(within_s):
            while True:
                run = (await self.get(f"/chat/runs/{run_id}", user)).json()
                if run["status"] not in ("queued", "running"):
                    return run
                await asyncio.sleep(0.05)


@dataclass
class Streamed:
    """What a client of server-sent events has seen."""

    frames: list[dict[str, Any]] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)

    def add(self, line: str) -> None:
        if line.startswith("data: "):
            self.frames.append(json.loads(line[6:]))
        elif line.startswith("id: "):
            self.ids.append(line[4:])

    @property
    def text(self) -> str:
        return "".join(frame["content"] for frame in self.frames)

    @property
    def last(self) -> dict[str, Any]:
        return self.frames[-1]

    @property
    def run_id(self) -> str:
        return next(frame["run_id"] for frame in self.frames if "run_id" in frame)


def echo(**changes: Any) -> dict[str, Any]:
    """Settings with the deterministic model; its `echo` section changed."""
    return {"llm": {"provider": "echo", "echo": {"tokens": 24, **changes}}, "runs": FAST}


async def until(condition: Callable[[], Any], *, within_s: float = 10.0) -> Any:
    """Wait for a condition with a deadline."""
    async with asyncio.timeout(within_s):
        while True:
            found = condition()
            if asyncio.iscoroutine(found):
                found = await found
            if found:
                return found
            await asyncio.sleep(0.05)


Staging = Callable[..., AbstractAsyncContextManager[Stage]]


@pytest.fixture
def stage_of(client_for) -> Staging:
    """`async with stage_of(echo(delay_ms=5)) as stage:`; replicas share peers when they are given."""

    @asynccontextmanager
    async def build(settings: dict[str, Any] | None = None, *, beside: Stage | None = None) -> AsyncIterator[Stage]:
        peers: dict[str, Any] = {}
        quota, constitution, memories = Quota(), Constitution(), Memories()
        if beside is not None:
            quota, constitution, memories = beside.quota, beside.constitution, beside.memories
            peers = {name: stub.url for name, stub in beside.running.stubs.items()}
        else:
            peers = {"auth-billing": quota.stub(), "noble-spirit": constitution.stub(), "memory": memories.stub()}
        chosen = PATIENT | (settings or echo())
        async with client_for("intelligence", settings=chosen, peers=peers, listen=True) as running:
            yield Stage(running, quota, constitution, memories)

    return build


@pytest.fixture
async def stage(stage_of) -> AsyncIterator[Stage]:
    """One replica with the deterministic model."""
    async with stage_of() as running:
        yield running


@pytest.fixture
async def user(make_user) -> TestUser:
    """A person with tier pro."""
    return await make_user()
