"""`stripechaos`: a Stripe that behaves as badly as the real one may. Its API, its objects, and what went wrong.

Our own code, in the shape of Stripe's API 2025-03-31 and later; it listens on 127.0.0.1 only. Everything is decided by
a seed and a clock, and `journal` has what was done, so that a test can compare a ledger with it. Webhooks are
delivered by `stripecalls`.

What it has that a friendly double lacks: keys that die late, an Idempotency-Key cache whose scope is a choice (Stripe
does not say), answers that get lost before or after the work was done, event lists with Stripe's filters and its 30
days, pretty-printed bodies.
"""

from __future__ import annotations

import copy
import json
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any, Literal, Protocol
from uuid import UUID

from aiohttp import web

from novacore.common.clock import Clock
from tests.kit.stripecalls import Endpoint, Hooks
from tests.kit.stripeforms import created_fits, nested, page

Json = dict[str, Any]
Fate = Literal["served", "cut_before", "cut_after", "cut_inside", "status_503"]
LISTED_S = 30 * 86_400
PRICES = {"basic": "price_basic", "pro": "price_pro"}


class Decide(Protocol):
    """Says what becomes of a request."""

    def __call__(self, method: str, path: str) -> Fate: ...


@dataclass
class Chaos:
    """One account at Stripe."""

    clock: Clock
    seed: int = 1
    url: str = ""
    keys: dict[str, float | None] = field(default_factory=lambda: {"rk_test_first": None})  # key -> when it dies
    idempotency_scope: Literal["key", "account"] = "key"
    fate: Decide = lambda _method, _path: "served"
    objects: dict[str, dict[str, Json]] = field(default_factory=dict)
    events: list[Json] = field(default_factory=list)
    journal: list[Json] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.hooks = Hooks(self)
        self._count = 0
        self._answers: dict[tuple[str, str], tuple[str, int, Json]] = {}

    # What happens at Stripe by itself

    def now(self) -> int:
        return int(self.clock.now().timestamp())

    def expire(self, key: str, *, after_s: float = 0.0) -> None:
        """Let a key die: Stripe's own needed up to 9 s."""
        self.keys[key] = self.clock.now().timestamp() + after_s

    def customer(self, user_id: UUID | None = None, email: str = "") -> Json:
        metadata = {"user_id": str(user_id)} if user_id else {}
        return self._put("customers", "cus", {"email": email, "metadata": metadata})

    def subscribe(
        self, customer: str, *, tier: str = "pro", status: str = "active", user_id: UUID | None = None
    ) -> Json:
        now = self.now()
        item = {
            "price": {"id": PRICES.get(tier, tier)}, "current_period_start": now,
            "current_period_end": now + 30 * 86_400,
        }  # fmt: skip
        subscription = self._put(
            "subscriptions",
            "sub",
            {
                "customer": customer,
                "status": status,
                "metadata": {"user_id": str(user_id)} if user_id else {},
                "items": {"object": "list", "data": [item]},
            },
        )
        self.emit("customer.subscription.created", subscription)
        return subscription

    def change(self, subscription: Json, *, status: str | None = None, tier: str | None = None) -> None:
        """Another status or price; `canceled` is the end of it."""
        subscription["status"] = status or subscription["status"]
        if tier is not None:
            subscription["items"]["data"][0]["price"] = {"id": PRICES.get(tier, tier)}
        ended = status == "canceled"
        self.emit("customer.subscription.deleted" if ended else "customer.subscription.updated", subscription)

    def bill(self, subscription: Json, *, amount: int = 2900, paid: bool = True) -> Json:
        """An invoice; not paid is a failed attempt to."""
        invoice = self._put(
            "invoices",
            "in",
            {
                "customer": subscription["customer"],
                "status": "open",
                "currency": "usd",
                "amount_due": amount,
                "amount_paid": 0,
                "parent": {"subscription_details": {"subscription": subscription["id"]}},
            },
        )
        if paid:
            self.pay(invoice)
        else:
            self.emit("invoice.payment_failed", invoice)
        return invoice

    def pay_page(self, session: Json) -> None:
        """What a person does on the page of a checkout."""
        tier = session["metadata"]["tier"]
        made = self.subscribe(session["customer"], tier=tier)
        made["metadata"] = session["subscription_data"]["metadata"]
        session |= {"subscription": made["id"], "status": "complete"}
        self.emit("checkout.session.completed", session)

    def pay(self, invoice: Json) -> None:
        invoice["status"], invoice["amount_paid"] = "paid", invoice["amount_due"]
        self.emit("invoice.paid", invoice)

    def emit(self, type_: str, object_: Json) -> Json:
        """An event with a snapshot of the object, for every endpoint there is now."""
        event: Json = {
            "id": self._id("evt"),
            "object": "event",
            "api_version": "2026-10-28.endive",
            "created": self.now(),
            "type": type_,
            "livemode": False,
            "data": {"object": copy.deepcopy(object_)},
        }
        self.events.append(event)
        self.hooks.schedule(event)
        return event

    def live(self, users: list[UUID], *, events: int, step: Callable[[], None] = lambda: None) -> None:
        """Let people buy, change, fail to pay, pay and leave until there are so many more events. `step` moves the clock."""
        end = len(self.events) + events
        subscriptions = [one for one in self.objects.get("subscriptions", {}).values() if one["status"] != "canceled"]
        unpaid: list[Json] = []
        while len(self.events) < end:
            step()
            chance = self.random.random()
            if len(subscriptions) < len(users) or chance < 0.05:
                user = self.random.choice(users)
                customer = self._customer_of(user)
                subscriptions.append(self.subscribe(customer["id"], tier=self.random.choice(["basic", "pro"])))
                continue
            one = self.random.choice(subscriptions)
            if chance < 0.50:
                invoice = self.bill(one, amount=self.random.choice([900, 2900]), paid=self.random.random() < 0.7)
                if invoice["status"] == "open":
                    unpaid.append(invoice)
                    if len(self.events) < end:
                        self.change(one, status="past_due")
            elif chance < 0.65 and unpaid:
                invoice = unpaid.pop(self.random.randrange(len(unpaid)))
                self.pay(invoice)
                of = self.objects["subscriptions"][invoice["parent"]["subscription_details"]["subscription"]]
                if of["status"] == "past_due" and len(self.events) < end:
                    self.change(of, status="active")
            elif chance < 0.95:
                self.change(one, tier=self.random.choice(["basic", "pro"]))
            else:
                subscriptions.remove(one)
                self.change(one, status="canceled")

    def paid(self) -> dict[str, int]:
        """What was paid of each invoice that somebody tried to pay."""
        return {id_: one["amount_paid"] for id_, one in self.objects.get("invoices", {}).items()}

    def _customer_of(self, user: UUID) -> Json:
        found = [
            one for one in self.objects.get("customers", {}).values() if one["metadata"].get("user_id") == str(user)
        ]
        return found[0] if found else self.customer(user)

    def _put(self, kind: str, prefix: str, fields: Json) -> Json:
        made = {"id": self._id(prefix), "object": kind.rstrip("s"), "created": self.now(), **fields}
        self.objects.setdefault(kind, {})[made["id"]] = made
        return made

    def _id(self, prefix: str) -> str:
        self._count += 1
        return f"{prefix}_{self.seed}x{self._count:08d}"

    # The API

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Chaos]:
        app = web.Application()
        app.router.add_route("*", "/v1/{path:.*}", self._serve)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            async with self.hooks:
                yield self
        finally:
            await runner.cleanup()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        path, method = request.path, request.method
        key = request.headers.get("Authorization", "").removeprefix("Bearer ")
        fate = self.fate(method, path)
        if fate in ("cut_before", "status_503"):
            self._note(request, key, fate)
            return self._cut(request) if fate == "cut_before" else _error(503, "api_error")
        until = self.keys.get(key, 0.0)
        if until is not None and self.clock.now().timestamp() >= until:
            self._note(request, key, "status_401")
            return _error(401, "invalid_request_error")
        params = nested((await request.post()) if method == "POST" else request.query)
        status, body = self._once(request, key, params) if method == "POST" else self._answer(method, path, params)
        self._note(request, key, fate if fate in ("cut_after", "cut_inside") else f"status_{status}")
        if fate == "cut_after":
            return self._cut(request)
        if fate == "cut_inside":
            return await self._cut_inside(request, status, body)
        return web.json_response(body, status=status, dumps=lambda value: json.dumps(value, indent=2))

    def _note(self, request: web.Request, key: str, outcome: str) -> None:
        idempotency_key = request.headers.get("Idempotency-Key")
        self.journal.append(
            {
                "method": request.method,
                "path": request.path,
                "key": key,
                "idempotency_key": idempotency_key,
                "outcome": outcome,
            }
        )

    def _cut(self, request: web.Request) -> web.Response:
        if request.transport is not None:
            request.transport.abort()
        return web.Response()

    async def _cut_inside(self, request: web.Request, status: int, body: Json) -> web.StreamResponse:
        """Head and half of the body, and then nothing more."""
        text = json.dumps(body, indent=2).encode()
        answer = web.StreamResponse(status=status, headers={"Content-Type": "application/json"})
        answer.content_length = len(text)
        await answer.prepare(request)
        await answer.write(text[: len(text) // 2])
        self._cut(request)
        return answer

    def _once(self, request: web.Request, key: str, params: Json) -> tuple[int, Json]:
        """The Idempotency-Key cache: the same key, the same answer; with other parameters, a refusal."""
        named = request.headers.get("Idempotency-Key", "")
        scope = (key if self.idempotency_scope == "key" else "", named)
        asked = json.dumps([request.path, params], sort_keys=True)
        if named and scope in self._answers:
            before, status, body = self._answers[scope]
            return (status, body) if before == asked else (400, _body("idempotency_error"))
        status, body = self._answer("POST", request.path, params)
        self._answers[scope] = (asked, status, copy.deepcopy(body))
        return status, body

    def _answer(self, method: str, path: str, params: Json) -> tuple[int, Json]:
        parts = path.removeprefix("/v1/").split("/")
        if path == "/v1/billing_portal/sessions":
            return 200, {"id": self._id("bps"), "url": f"{self.url}/portal/{params['customer']}"}
        if path.startswith("/v1/checkout/sessions"):
            return self._collection(method, "checkout.sessions", "cs", parts[2:], params)
        prefixes = {"customers": "cus", "subscriptions": "sub", "invoices": "in", "payment_intents": "pi"}
        if parts[0] == "webhook_endpoints":
            return self.hooks.answer(method, parts[1:], params)
        if parts[0] == "events":
            return self._events(parts[1:], params)
        if parts[0] not in prefixes:
            return 404, _body("invalid_request_error")
        return self._collection(method, parts[0], prefixes[parts[0]], parts[1:], params)

    def _collection(self, method: str, kind: str, prefix: str, rest: list[str], params: Json) -> tuple[int, Json]:
        held = self.objects.setdefault(kind, {})
        if rest:
            return (200, held[rest[0]]) if rest[0] in held else (404, _body("invalid_request_error"))
        if method == "POST":
            made = self._put(kind, prefix, params)
            if kind == "checkout.sessions":
                made["url"] = f"{self.url}/pay/{made['id']}"
            return 200, made
        wanted = {name: params[name] for name in ("customer", "email", "subscription") if name in params}
        status = params.get("status", "" if kind == "subscriptions" else "all")
        rows = [
            one
            for one in reversed(held.values())
            if all(one.get(name) == value for name, value in wanted.items())
            and (status == "all" or (one["status"] == status if status else one["status"] != "canceled"))
            and created_fits(one, params)
        ]
        return 200, page(f"/v1/{kind.replace('.', '/')}", rows, params)

    def _events(self, rest: list[str], params: Json) -> tuple[int, Json]:
        oldest = max(self.now() - LISTED_S, int(params.get("created", {}).get("gte", 0)))
        listed = list(takewhile(lambda event: event["created"] >= oldest, reversed(self.events)))
        if rest:
            found = next((event for event in listed if event["id"] == rest[0]), None)
            return (200, self._whole(found)) if found else (404, _body("invalid_request_error"))
        types = set(params.get("types", {}).values()) if isinstance(params.get("types"), dict) else set()
        types |= {params["type"]} if "type" in params else set()
        rows = [event for event in listed if (not types or event["type"] in types) and created_fits(event, params)]
        if params.get("delivery_success") == "false":
            rows = [event for event in rows if self.hooks.undelivered(event["id"])]
        answer = page("/v1/events", rows, params)
        answer["data"] = [self._whole(event) for event in answer["data"]]
        return 200, answer

    def _whole(self, event: Json) -> Json:
        return {**event, "pending_webhooks": self.hooks.pending(event["id"])}


def _body(type_: str) -> Json:
    return {"error": {"type": type_, "message": "stripechaos says no"}}


def _error(status: int, type_: str) -> web.Response:
    return web.json_response(_body(type_), status=status)


__all__ = ["Chaos", "Endpoint", "Fate"]
