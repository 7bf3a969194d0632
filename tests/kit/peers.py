"""Peers at the edge of a test: a real HTTP server whose answers the test sets, and which remembers what it was asked."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.kit.keys import Keys, SigningKey

Answer = tuple[int, Any] | Callable[["Asked"], Any]


@dataclass
class Asked:
    """One request a stub got."""

    method: str
    path: str
    query: dict[str, str]
    headers: Mapping[str, str]  # names in any case
    json: Any
    raw: bytes = b""


@dataclass
class StubPeer:
    """`stub.on("POST", "/internal/quota/reserve", (200, {...}))`; a callable gets the `Asked` and returns such a pair.

    A path may hold `{}` for one segment. Anything not set answers 404. `stub.asked` lists the requests in order.
    """

    name: str
    asked: list[Asked] = field(default_factory=list)
    url: str = ""
    _answers: list[tuple[str, re.Pattern[str], Answer]] = field(default_factory=list)
    _runner: web.AppRunner | None = None

    def on(self, method: str, path: str, answer: Answer) -> StubPeer:
        pattern = re.compile("[^/]+".join(re.escape(part) for part in path.split("{}")))
        self._answers.insert(0, (method, pattern, answer))
        return self

    def requests(self, path: str) -> list[Asked]:
        return [asked for asked in self.asked if asked.path == path]

    async def start(self) -> StubPeer:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        port = self._runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{port}"
        return self

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        try:
            body = json.loads(raw) if raw else None
        except ValueError:
            body = raw
        asked = Asked(request.method, request.path, dict(request.query), request.headers, body, raw)
        self.asked.append(asked)
        for method, pattern, answer in self._answers:
            if method == request.method and pattern.fullmatch(request.path):
                given = answer(asked) if callable(answer) else answer
                if isinstance(given, Awaitable):
                    given = await given
                if isinstance(given, web.StreamResponse):
                    return given
                status, content = given
                return web.json_response(content, status=status) if content is not None else web.Response(status=status)
        problem = {"status": 404, "code": "not_found", "detail": f"{self.name}: no answer set for {request.path}"}
        return web.json_response(problem, status=404)


def token_issuer(keys: Keys, service: str, stub: StubPeer, *, key: SigningKey | None = None) -> StubPeer:
    """Let a stub of auth-billing give out service tokens, signed as the real one does (`key`: not by the first key)."""

    def issue(_asked: Asked) -> tuple[int, Any]:
        return 200, {"token": keys.service_token(service, key=key), "expires_in": 3600, "generation": 1}

    return stub.on("POST", "/internal/token", issue)
