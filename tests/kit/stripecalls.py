"""How `stripechaos` delivers webhooks: endpoints with secrets of their own, a ladder of repetitions, and mishaps.

As Stripe does: an endpoint's secret is shown once, at its making; a roll keeps the old secret for a while, and then
there is one `v1` for each; every attempt is signed anew at its time; a delivery is repeated for three days; an endpoint
that was deleted gets nothing more.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import aiohttp

from novacore.auth_billing.payments.signature import sign

if TYPE_CHECKING:
    from tests.kit.stripechaos import Chaos

Json = dict[str, Any]
LADDER_S = (60, 300, 1800, 7200, 18_000, 36_000, 36_000, 36_000, 36_000, 36_000, 36_000)
"""Pauses between attempts; together about three days."""


@dataclass
class Endpoint:
    """A webhook endpoint."""

    id: str
    url: str
    secrets: dict[str, float | None]  # secret -> when it ends
    metadata: dict[str, str] = field(default_factory=dict)


@dataclass
class Delivery:
    """One event on its way to one endpoint."""

    event: Json
    endpoint_id: str
    due_at: float
    attempts: int = 0
    state: str = "waiting"  # waiting | delivered | given_up | dropped


@dataclass(frozen=True)
class Mishaps:
    """What goes wrong, as shares of all deliveries."""

    dropped: float = 0.0
    duplicated: float = 0.0
    shuffled: bool = False


class Hooks:
    """All endpoints and deliveries."""

    def __init__(self, chaos: Chaos) -> None:
        self._chaos = chaos
        self.endpoints: dict[str, Endpoint] = {}
        self.deliveries: list[Delivery] = []
        self._of: dict[str, list[Delivery]] = {}
        self.calls = 0
        self._made = 0
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Hooks:
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=64))
        return self

    async def __aexit__(self, *_error: object) -> None:
        if self._session is not None:
            await self._session.close()

    def add(self, url: str, *, secret: str | None = None) -> Endpoint:
        """A new endpoint; the same URL twice is allowed."""
        self._made += 1
        number = self._made
        made = Endpoint(f"we_{self._chaos.seed}x{number}", url, {secret or f"whsec_{self._chaos.seed}_{number}": None})
        self.endpoints[made.id] = made
        return made

    def roll(self, endpoint: Endpoint, *, keep_s: float) -> str:
        """Another secret; the old ones live on for `keep_s`, at most a day."""
        until = self._chaos.clock.now().timestamp() + min(keep_s, 86_400)
        endpoint.secrets = dict.fromkeys(endpoint.secrets, until) | {f"whsec_rolled_{len(endpoint.secrets)}": None}
        return list(endpoint.secrets)[-1]

    def delete(self, endpoint: Endpoint) -> None:
        del self.endpoints[endpoint.id]

    def schedule(self, event: Json) -> None:
        now = self._chaos.clock.now().timestamp()
        made = [Delivery(event, id_, now) for id_ in self.endpoints]
        self.deliveries += made
        self._of[event["id"]] = made

    def pending(self, event_id: str) -> int:
        return sum(one.state == "waiting" for one in self._of[event_id] if one.endpoint_id in self.endpoints)

    def undelivered(self, event_id: str) -> bool:
        return any(one.state != "delivered" for one in self._of[event_id])

    def header(self, body: bytes, endpoint: Endpoint) -> str:
        """The signature of one attempt: one `v1` for each secret that lives, and a `v0` that counts for nothing."""
        now = self._chaos.clock.now().timestamp()
        alive = [secret for secret, until in endpoint.secrets.items() if until is None or now < until]
        return sign(body, alive, now_s=int(now)) + ",v0=" + "0" * 64

    async def pump(self, mishaps: Mishaps = Mishaps(), *, at_once: int = 24) -> int:
        """Attempt every delivery that is due; return how many calls that were."""
        now = self._chaos.clock.now().timestamp()
        due = [one for one in self.deliveries if one.state == "waiting" and one.due_at <= now]
        calls: list[Delivery] = []
        for one in due:
            chance = self._chaos.random.random()
            if chance < mishaps.dropped:
                one.state = "dropped"
                continue
            calls += [one] * (2 if self._chaos.random.random() < mishaps.duplicated else 1)
        if mishaps.shuffled:
            self._chaos.random.shuffle(calls)
        before, queue = self.calls, iter(calls)

        async def caller() -> None:
            for one in queue:
                await self._attempt(one)

        async with asyncio.TaskGroup() as group:
            for _ in range(min(at_once, len(calls))):
                group.create_task(caller())
        self.deliveries = [one for one in self.deliveries if one.state == "waiting"]
        return self.calls - before

    async def _attempt(self, one: Delivery) -> None:
        endpoint = self.endpoints.get(one.endpoint_id)
        if endpoint is None:
            one.state = "given_up"
            return
        if await self.call(endpoint, one.event) < 300:
            one.state = "delivered"
            return
        if one.state != "waiting":
            return  # its twin came through
        if one.attempts >= len(LADDER_S):
            one.state = "given_up"
            return
        one.due_at = self._chaos.clock.now().timestamp() + LADDER_S[one.attempts]
        one.attempts += 1

    async def call(self, endpoint: Endpoint, event: Json) -> int:
        """One call; return the status, 599 when nobody answers."""
        assert self._session is not None
        self.calls += 1
        body = json.dumps(event, indent=2).encode()  # as Stripe writes it: whoever parses and prints it again fails
        headers = {"Stripe-Signature": self.header(body, endpoint), "Content-Type": "application/json"}
        try:
            async with self._session.post(endpoint.url, data=body, headers=headers) as answer:
                await answer.read()
                return answer.status
        except aiohttp.ClientError:
            return 599

    def answer(self, method: str, rest: list[str], params: Json) -> tuple[int, Json]:
        """The API of webhook endpoints."""
        if method == "POST" and not rest:
            made = self.add(params["url"])
            made.metadata = params.get("metadata", {})
            return 200, self._view(made) | {"secret": list(made.secrets)[-1]}
        if not rest:
            views = [self._view(one) for one in reversed(self.endpoints.values())]
            return 200, {"object": "list", "url": "/v1/webhook_endpoints", "data": views, "has_more": False}
        found = self.endpoints.get(rest[0])
        if found is None:
            return 404, {"error": {"type": "invalid_request_error"}}
        if method == "DELETE":
            self.delete(found)
            return 200, {"id": found.id, "deleted": True}
        return 200, self._view(found)

    def _view(self, one: Endpoint) -> Json:
        return {
            "id": one.id,
            "object": "webhook_endpoint",
            "url": one.url,
            "metadata": one.metadata,
            "status": "enabled",
        }
