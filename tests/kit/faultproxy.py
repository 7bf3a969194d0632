"""A proxy between an operator and the API server that spoils what passes, by a seeded plan.

It ends the operator's TLS, and speaks upstream with the operator's own certificate, so that RBAC and the audit log see
the operator. It is a process of its own (`python -m tests.kit.faultproxy`), told what to do over `/-/plan` of its port.
What it may do is what networks and API servers do: it never drops a single event of a watch and never sends one after a
newer one of the same object.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import ssl
import sys
from collections import Counter, deque
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from tests.kit.child import Child, free_port
from tests.kit.controlplane import ROOT, ControlPlane, groups_of
from tests.kit.http1 import Message, read_head, read_lines, read_message, send, send_chunk
from tests.kit.wait import until

CONTROL = "/-/plan"
HEAD_MAX = 1 << 20
TICK_S = 0.25
DELAY_MAX_S = 1.0


class Fault(StrEnum):
    """What can happen to a request, or to a watch."""

    CONFLICT = "409"
    GONE = "410"
    THROTTLED = "429"
    ERROR = "500"
    UNAVAILABLE = "503"
    DELAY = "delay"
    CUT_BEFORE = "cut-before"  # the request never arrives
    CUT_WITHIN = "cut-within"  # it is carried out, half of the answer arrives
    CUT_AFTER = "cut-after"  # it is carried out, the answer is lost
    WATCH_GONE = "watch-410"
    WATCH_CUT = "watch-cut"
    WATCH_HANG = "watch-hang"
    WATCH_TWICE = "watch-twice"
    WATCH_SWAP = "watch-swap"  # with the next event of another object


OF_WATCH = frozenset(fault for fault in Fault if fault.startswith("watch-"))
OF_MOMENT = (Fault.WATCH_GONE, Fault.WATCH_CUT, Fault.WATCH_HANG)
OF_WRITE = frozenset({Fault.CONFLICT})
OF_VERSION = frozenset({Fault.GONE})
"""Only a request that names a resource version, or goes on with a list, can be too late."""
ANSWERS = frozenset({Fault.CONFLICT, Fault.GONE, Fault.THROTTLED, Fault.ERROR, Fault.UNAVAILABLE})


@dataclass
class Plan:
    """Probabilities by fault, and the seed of the draws. Without rates nothing happens."""

    seed: int = 0
    rates: dict[Fault, float] = field(default_factory=dict)
    over: asyncio.Event = field(default_factory=asyncio.Event)
    _drawn: Counter[str] = field(default_factory=Counter)

    def draw(self, what: str, faults: frozenset[Fault]) -> Fault | None:
        """Return the fault that meets the next request (or event) of this name. By name: not by their order."""
        self._drawn[what] += 1
        rolled = self.random(f"{what}:{self._drawn[what]}").random()
        for fault in Fault:
            if fault in faults:
                rolled -= self.rates.get(fault, 0.0)
                if rolled < 0:
                    return fault
        return None

    def random(self, what: str) -> random.Random:
        """Return the generator of one draw."""
        return random.Random(f"{self.seed}:{what}")


class CutError(Exception):
    """This connection ends now, without a word."""


class Proxy:
    """The proxy's side of the wire."""

    def __init__(self, host: str, port: int, *, upstream: ssl.SSLContext) -> None:
        self._host, self._port, self._upstream = host, port, upstream
        self._plan = Plan()
        self._counts: Counter[str] = Counter()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection of the operator."""
        server: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        try:
            while (request := await read_message(reader)) is not None:
                if urlsplit(request.start.split(" ")[1]).path == CONTROL:
                    await send(writer, self._controlled(request))
                    continue
                server = server or await asyncio.open_connection(
                    self._host, self._port, ssl=self._upstream, limit=HEAD_MAX
                )
                await self._pass(request, writer, server)
        except (CutError, OSError, EOFError, asyncio.LimitOverrunError):
            writer.transport.abort()
        finally:
            if server is not None:
                server[1].transport.abort()
            writer.close()

    def _controlled(self, request: Message) -> Message:
        """Take a new plan, or say what was done."""
        if request.start.startswith("PUT"):
            wanted = json.loads(request.body)
            self._plan.over.set()
            self._plan = Plan(wanted["seed"], {Fault(name): rate for name, rate in wanted["rates"].items()})
        return _answer(200, self._counts)

    def _did(self, fault: Fault) -> None:
        self._counts[fault] += 1

    async def _pass(
        self,
        request: Message,
        client: asyncio.StreamWriter,
        server: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        """Bring one request to the server and its answer back, or not."""
        method, target, _ = request.start.split(" ")
        url, plan = urlsplit(target), self._plan
        not_these = OF_WATCH | (OF_WRITE if method == "GET" else frozenset())
        old = "resourceVersion=" in url.query or "continue=" in url.query
        not_these |= frozenset() if old else OF_VERSION
        name = f"{method} {url.path}"
        fault = plan.draw(name, frozenset(Fault) - not_these)
        if fault is not None:
            self._did(fault)
        if fault in ANSWERS:
            await send(client, _refusal(int(fault), plan.random(name)))
            return
        if fault is Fault.CUT_BEFORE:
            raise CutError
        if fault is Fault.DELAY:
            await asyncio.sleep(plan.random(name).uniform(0.05, DELAY_MAX_S))
        await send(server[1], request)
        if "watch=true" in url.query or "watch=1" in url.query:
            await self._watch(f"{url.path}?{url.query.partition('resourceVersion')[0]}", client, server[0])
            return
        answer = await read_message(server[0])
        if answer is None or fault is Fault.CUT_AFTER:
            raise CutError
        if fault is Fault.CUT_WITHIN:
            whole = answer.encoded()
            client.write(whole[: len(whole) - len(answer.body) // 2 - 1])
            await client.drain()
            raise CutError
        await send(client, answer)

    async def _watch(self, name: str, client: asyncio.StreamWriter, server: asyncio.StreamReader) -> None:
        """Pass a watch on, event by event."""
        head = await read_head(server)
        if head is None:
            raise CutError
        if head.headers.get("transfer-encoding") != "chunked":
            await send(client, replace(head, body=await server.readexactly(int(head.headers["content-length"]))))
            return
        client.write(head.encoded())
        lines: asyncio.Queue[bytes | None] = asyncio.Queue()
        reading = asyncio.ensure_future(read_lines(server, lines))
        try:
            await self._events(name, client, lines)
        finally:
            reading.cancel()

    async def _events(self, name: str, client: asyncio.StreamWriter, lines: asyncio.Queue[bytes | None]) -> None:
        held: bytes | None = None
        ending = False
        while not ending:
            line: bytes | None = b""
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TICK_S):
                    line = await lines.get()
            plan = self._plan
            moment = plan.draw(f"tick {name}", frozenset(OF_MOMENT))
            fault = plan.draw(f"event {name}", OF_WATCH - set(OF_MOMENT)) if line else None
            swap = fault is Fault.WATCH_SWAP and held is None and _may_wait(line)
            if held is not None and line and _object(line) == _object(held):
                out = deque([held, line])  # the order of one object's events is never changed
            else:
                out = deque(part for part in (line, held) if part and not swap)
            held, ending = (line if swap else None), line is None
            if swap or (fault is Fault.WATCH_TWICE and out):
                self._did(fault or Fault.WATCH_SWAP)
            if fault is Fault.WATCH_TWICE and out:
                out.append(out[-1])
            for part in out:
                send_chunk(client, part)
            if moment is not None:
                if held is not None:
                    send_chunk(client, held)
                    held = None
                await self._befall(moment, plan, name, client)
            await client.drain()
        client.write(b"0\r\n\r\n")
        await client.drain()

    async def _befall(self, fault: Fault, plan: Plan, name: str, client: asyncio.StreamWriter) -> None:
        self._did(fault)
        if fault is Fault.WATCH_GONE:
            status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Expired", "code": 410}
            error = {"type": "ERROR", "object": {**status, "message": "too old resource version", "metadata": {}}}
            send_chunk(client, json.dumps(error).encode() + b"\n")
        await client.drain()
        if fault is Fault.WATCH_HANG:
            await plan.over.wait()
            if plan.random(f"hang {name}").random() < 0.5:
                return  # it goes on as if nothing had been
        raise CutError


def _answer(code: int, body: Any, **headers: str) -> Message:
    content = json.dumps(body).encode()
    return Message(f"HTTP/1.1 {code} Played", {"content-type": "application/json", **headers}, content)


def _refusal(code: int, rng: random.Random) -> Message:
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": "played by a test"}
    return _answer(code, body, **({"retry-after": str(rng.randint(1, 2))} if code == 429 else {}))


def _object(line: bytes) -> tuple[str, str]:
    metadata = json.loads(line)["object"].get("metadata", {})
    return metadata.get("namespace", ""), metadata.get("name", "")


def _may_wait(line: bytes | None) -> bool:
    """Whether an event may come later: a bookmark would skip it, an error ends the watch."""
    return bool(line) and json.loads(line or b"{}")["type"] in ("ADDED", "MODIFIED", "DELETED")


# --- the tests' side --------------------------------------------------------------------------------------------------


class FaultProxy:
    """A proxy in its own process, before the API server of a control plane, for one user."""

    def __init__(self, plane: ControlPlane, user: str) -> None:
        self._folder = plane.folder / "proxied"
        self._folder.mkdir(exist_ok=True)
        port = free_port()
        certificate, key = plane.authority.server()
        own, own_key = plane.authority.client(user, groups_of(user))
        files: list[str | Path] = [plane.authority.certificate, certificate, key, own, own_key]
        command: list[str | Path] = [sys.executable, "-m", "tests.kit.faultproxy", str(port), plane.url, *files]
        self._child = Child("faultproxy", command, log=plane.folder / "faultproxy.log", env={"PYTHONPATH": str(ROOT)})
        url = f"https://127.0.0.1:{port}"
        self._http = httpx.Client(base_url=url, verify=ssl.create_default_context(cafile=str(files[0])), timeout=30)
        self.plane = replace(plane, url=url, folder=self._folder, _users={})
        """The control plane as one sees it through the proxy."""

    def __enter__(self) -> FaultProxy:
        self._child.start()
        until(self._answers, within_s=20, what="the proxy answers", report=self._child.tail, every_s=0.1)
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()
        self._child.stop()

    def begin(self, seed: int, rates: dict[Fault, float]) -> None:
        """Begin with faults."""
        self._http.put(CONTROL, json={"seed": seed, "rates": rates}).raise_for_status()

    def end(self) -> None:
        """End all faults: what hangs goes on, or is cut."""
        self.begin(0, {})

    def counts(self) -> dict[str, int]:
        """Return how often each fault was done so far."""
        found: dict[str, int] = self._http.get(CONTROL).raise_for_status().json()
        return found

    def _answers(self) -> bool:
        assert self._child.runs(), self._child.tail()
        try:
            return self._http.get(CONTROL).status_code == 200
        except httpx.HTTPError:
            return False


async def _run(port: int, url: str, files: list[Path]) -> None:
    authority, certificate, key, own, own_key = files
    ours = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ours.load_cert_chain(certificate, key)
    upstream = ssl.create_default_context(cafile=str(authority))
    upstream.load_cert_chain(own, own_key)
    target = urlsplit(url)
    proxy = Proxy(str(target.hostname), int(target.port or 443), upstream=upstream)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", port, ssl=ours, limit=HEAD_MAX)
    await server.serve_forever()


if __name__ == "__main__":
    arguments = argparse.ArgumentParser()
    arguments.add_argument("port", type=int)
    arguments.add_argument("url")
    arguments.add_argument("files", nargs=5, type=Path)
    given = arguments.parse_args()
    asyncio.run(_run(given.port, given.url, given.files))
