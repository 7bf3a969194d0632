"""Longer courses of events, shared by tests and by `make soak-stripe`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from novacore.auth_billing.payments.gate import StripeAwayError
from novacore.auth_billing.payments.signature import sign
from novacore_contracts.keyset import KeyState
from tests.kit.billing import Billing
from tests.kit.stripecalls import Mishaps

PART = 100

Find = Callable[[str], Callable[[], Awaitable[dict[str, Any] | None]]]


@dataclass
class Rotation:
    """What a rotation saw."""

    calls_by_phase: dict[str, int] = field(default_factory=dict)
    refused_before_the_secret_was_stored: int = 0


async def planned_rotation(
    billing: Billing, *, users: list[UUID], events: int, mishaps: Mishaps = Mishaps(shuffled=True)
) -> Rotation:
    """A second endpoint beside the first, a canary, both for a while, then the second alone; events all the time."""
    chaos, hooks, run = billing.chaos, billing.chaos.hooks, Rotation()
    clock, quarter = chaos.clock, events // 4

    async def phase(name: str, count: int) -> None:
        for start in range(0, count, PART):  # twenty seconds each: nothing becomes late enough to count as missed
            part = min(PART, count - start)
            chaos.live(users, events=part, step=lambda: clock.advance(seconds=0.2))  # type: ignore[attr-defined]
            run.calls_by_phase[name] = run.calls_by_phase.get(name, 0) + await hooks.pump(mishaps)

    first = hooks.add(billing.url, secret="whsec_first")
    await phase("one endpoint", quarter)
    second = hooks.add(billing.url, secret="whsec_second")
    await phase("secret not stored yet", quarter)  # the second one's calls are refused, the first brings the same
    run.refused_before_the_secret_was_stored = sum(one.endpoint_id == second.id for one in hooks.deliveries)
    billing.mount(
        "stripeWebhook", {"stripeWebhook-1": ("active", "whsec_first"), "stripeWebhook-2": ("pending", "whsec_second")}
    )
    canary = b"{}"
    for replica in billing.replicas:
        header = sign(canary, ["whsec_second"], now_s=chaos.now())
        assert replica.service.payments.receiver.proves(canary, header, secret_id="stripeWebhook-2")
    clock.advance(seconds=61)  # type: ignore[attr-defined]
    await hooks.pump()  # what was refused is repeated
    billing.mount(
        "stripeWebhook", {"stripeWebhook-1": ("retiring", "whsec_first"), "stripeWebhook-2": ("active", "whsec_second")}
    )
    await phase("both", quarter)
    hooks.delete(first)
    billing.mount("stripeWebhook", {"stripeWebhook-2": ("active", "whsec_second")})
    await phase("the second alone", events - 3 * quarter)
    await billing.settled()
    return run


async def through_every_change(billing: Billing, *, users: list[UUID], events: int, batch: int = 250) -> Rotation:
    """Two rotations of the webhook secret and one of the API key, while a third of all calls is lost and another doubled.

    Each batch spans ten minutes and ends with a reconciliation.
    """
    chaos, hooks, run = billing.chaos, billing.chaos.hooks, Rotation()
    mishaps = Mishaps(dropped=0.3, duplicated=0.3, shuffled=True)
    secrets = {1: "whsec_first", 2: "whsec_second", 3: "whsec_third"}
    endpoints = {1: hooks.add(billing.url, secret=secrets[1])}

    def mount(active: int, other: int | None = None, state: KeyState = "pending") -> None:
        entries: dict[str, tuple[KeyState, str]] = {f"stripeWebhook-{active}": ("active", secrets[active])}
        if other is not None:
            entries[f"stripeWebhook-{other}"] = (state, secrets[other])
        billing.mount("stripeWebhook", entries)

    def second(old: int, new: int) -> None:
        endpoints[new] = hooks.add(billing.url, secret=secrets[new])
        mount(old, new)

    def drop(old: int, new: int) -> None:
        hooks.delete(endpoints[old])
        mount(new)

    def switch_key() -> None:
        billing.mount("stripeKey", {"stripeKey-2": ("active", "rk_test_second")})

    def stage_key() -> None:
        chaos.keys["rk_test_second"] = None
        billing.mount(
            "stripeKey", {"stripeKey-1": ("active", "rk_test_first"), "stripeKey-2": ("pending", "rk_test_second")}
        )

    phases: list[tuple[str, Callable[[], None]]] = [
        ("one endpoint", lambda: None),
        ("a second endpoint", lambda: second(1, 2)),
        ("the second is active", lambda: mount(2, 1, "retiring")),
        ("the first is gone", lambda: drop(1, 2)),
        ("a second API key", stage_key),
        ("the first API key dies", lambda: chaos.expire("rk_test_first", after_s=9)),  # and is the active one still
        ("the second API key is active", switch_key),
        ("a third endpoint", lambda: second(2, 3)),
        ("the third is active", lambda: mount(3, 2, "retiring")),
        ("the second is gone", lambda: drop(2, 3)),
    ]
    for number, (name, change) in enumerate(phases, 1):
        change()
        end = events * number // len(phases)
        while len(chaos.events) < end:
            size = min(batch, end - len(chaos.events))
            chaos.live(users, events=size, step=lambda: chaos.clock.advance(seconds=600 / batch))  # type: ignore[attr-defined]
            run.calls_by_phase[name] = run.calls_by_phase.get(name, 0) + await hooks.pump(mishaps)
            await billing.settled(within_s=300)
            await billing.payments.reconciler.turn(at_once=True)
    await billing.settled(within_s=300)
    return run


async def charge_all(
    billing: Billing, *, charges: int, late_s: float, find: Find | None = None
) -> list[dict[str, Any]]:
    """Charge so many times at once, through answers that get lost, while the API key is swapped."""
    chaos, gate = billing.chaos, billing.payments.gate
    chaos.keys["rk_test_second"] = None
    billing.mount(
        "stripeKey", {"stripeKey-1": ("active", "rk_test_first"), "stripeKey-2": ("pending", "rk_test_second")}
    )
    posts = 0

    def fate(method: str, _path: str) -> Any:
        nonlocal posts
        posts += method == "POST"
        if method == "POST" and posts == charges // 2:
            chaos.expire("rk_test_first", after_s=late_s)
        if method == "POST" and posts == charges:  # the old key leaves the ring under calls that still use it
            billing.mount("stripeKey", {"stripeKey-2": ("active", "rk_test_second")})
        # Every other answer is lost while the old key works; after the swap things are calm.
        chance = chaos.random.random()
        if method != "POST" or posts > 2 * charges:
            return "served"
        return (
            "cut_after"
            if chance < 0.3
            else "cut_inside"
            if chance < 0.4
            else "cut_before"
            if chance < 0.5
            else "status_503"
            if chance < 0.6
            else "served"
        )

    async def pause(seconds: float) -> None:
        chaos.clock.advance(seconds=seconds)  # type: ignore[attr-defined]
        await asyncio.sleep(0)

    async def found(operation: str) -> dict[str, Any] | None:
        async for page in gate.pages("/v1/payment_intents", {"customer": "cus_1"}):
            for one in page:
                if one["metadata"]["operation"] == operation:
                    return one
        return None

    async def charge(number: int) -> dict[str, Any]:
        operation, tried = f"charge-{number}", False
        look_up = find(operation) if find is not None else lambda: found(operation)
        while True:
            try:
                return await gate.post(
                    "/v1/payment_intents",
                    {"amount": 2900, "currency": "usd", "customer": "cus_1", "metadata": {"operation": operation}},
                    idempotency_key=operation,
                    find=look_up,
                    tried_before=tried,
                )
            except StripeAwayError:
                tried = True
                await pause(1.0)

    gate._sleep = pause
    chaos.fate = fate
    try:
        async with asyncio.timeout(60):
            return list(await asyncio.gather(*(charge(number) for number in range(charges))))
    finally:
        chaos.fate = lambda _method, _path: "served"
