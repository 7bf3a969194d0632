"""Storage: what is held at auth-billing equals what the user's visible memories weigh, whatever happens in between."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from novacore.common.errors import ServiceError
from novacore.memory.rules import size_bytes
from tests.kit.harness import RunningService
from tests.kit.keys import TestUser

from .conftest import Billing, Store


async def visible_bytes(memory: RunningService, user: TestUser) -> int:
    usage = await memory.public.get("/memory/usage", headers=memory.headers(user))
    return int(usage.json()["used_bytes"])


async def test_only_itm_and_ltm_are_paid_for(user: TestUser, store: Store, billing: Billing) -> None:
    await store("free", tier="stm")
    assert billing.balance(user) == 0
    await store("käse", tier="itm", tags=["ab"])
    assert billing.balance(user) == 5 + (2 + 4) + 384 * 4 + 162


async def test_a_full_account_is_refused_and_nothing_is_stored(
    memory: RunningService, user: TestUser, store: Store, billing: Billing, admin_conn: Any
) -> None:
    billing.limit = 2000
    await store("fits", tier="itm")
    body = {"type": "lesson", "input_context": "does not", "tier": "ltm"}
    answer = await memory.public.post("/memory/store", json=body, headers=memory.headers(user))
    assert answer.status_code == 429
    problem = answer.json()
    assert problem["code"] == "quota_exceeded"
    assert (problem["resource"], problem["used"], problem["limit"]) == ("memory_storage", billing.balance(user), 2000)
    assert await admin_conn.fetchval("SELECT count(*) FROM memory.memories") == 1
    assert await admin_conn.fetchval("SELECT count(*) FROM memory.storage_charges") == 0
    free = await store("short-lived costs nothing", tier="stm")
    raised = await memory.public.post(
        f"/memory/promote/{free['id']}", json={"target_tier": "ltm"}, headers=memory.headers(user)
    )
    assert raised.status_code == 429


async def test_without_the_quota_service_storing_answers_503(
    memory: RunningService, user: TestUser, billing: Billing, admin_conn: Any
) -> None:
    billing.down = True
    body = {"type": "lesson", "input_context": "x", "tier": "itm"}
    answer = await memory.public.post("/memory/store", json=body, headers=memory.headers(user))
    assert answer.status_code == 503
    assert answer.json()["code"] == "upstream_down"
    assert answer.headers["retry-after"]
    assert await admin_conn.fetchval("SELECT count(*) FROM memory.memories") == 0
    kept = await memory.public.post("/memory/store", json=body | {"tier": "stm"}, headers=memory.headers(user))
    assert kept.status_code == 201


async def test_changes_of_tags_and_tier_move_the_balance(
    memory: RunningService, user: TestUser, store: Store, billing: Billing, redis_client: Any
) -> None:
    made = await store("x", tier="stm", tags=["one"])
    headers = memory.headers(user)
    await memory.public.post(f"/memory/promote/{made['id']}", json={"target_tier": "itm"}, headers=headers)
    assert billing.balance(user) == size_bytes("x", None, ["one"])
    await memory.public.patch(f"/memory/update/{made['id']}", json={"tags": ["one", "two"]}, headers=headers)
    assert billing.balance(user) == size_bytes("x", None, ["one", "two"])
    await memory.public.patch(f"/memory/update/{made['id']}", json={"tags": [], "tier": "ltm"}, headers=headers)
    await billing.settle(memory, redis_client)
    assert billing.balance(user) == size_bytes("x", None, []) == await visible_bytes(memory, user)
    await memory.public.delete(f"/memory/delete/{made['id']}", headers=headers)
    await billing.settle(memory, redis_client)
    assert billing.balance(user) == 0


async def test_a_charge_whose_request_died_is_given_back(
    memory: RunningService, user: TestUser, billing: Billing, admin_conn: Any, redis_client: Any
) -> None:
    """Killed after the call and killed before it: either way nothing stays held."""
    storage = memory.service._storage
    await storage.charge(user.id, 5000)  # the call arrived, the memory never came
    billing.down = True
    with pytest.raises(ServiceError):
        await storage.charge(user.id, 700)  # the call failed: nobody knows whether it arrived
    billing.down = False
    assert billing.balance(user) == 5000
    assert await storage.give_back_stale(timedelta(seconds=60)) == 0  # may still be at work
    assert await storage.give_back_stale(timedelta(0)) == 2
    await billing.settle(memory, redis_client)
    assert billing.balance(user) == 0
    assert await admin_conn.fetchval("SELECT count(*) FROM memory.storage_charges") == 0


async def test_a_store_slower_than_the_sweep_stores_nothing(
    memory: RunningService, user: TestUser, billing: Billing, monkeypatch: pytest.MonkeyPatch, redis_client: Any
) -> None:
    storage = memory.service._storage
    charge = storage.charge

    async def slow(*arguments: Any) -> Any:
        charge_id = await charge(*arguments)
        await storage.give_back_stale(timedelta(0))
        return charge_id

    monkeypatch.setattr(storage, "charge", slow)
    body = {"type": "lesson", "input_context": "x", "tier": "itm"}
    answer = await memory.public.post("/memory/store", json=body, headers=memory.headers(user))
    assert answer.status_code == 503
    await billing.settle(memory, redis_client)
    assert billing.balance(user) == await visible_bytes(memory, user) == 0


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["store", "promote", "retag", "delete", "expire", "die"]),
        st.integers(0, 5),
        st.sampled_from(["stm", "itm", "ltm"]),
        st.text("aé日", min_size=1, max_size=8),
    ),
    max_size=12,
)


@pytest.mark.invariant("MEM-CHARGE")
@hypothesis_settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
async def test_after_any_sequence_the_balance_is_the_sum_of_visible_sizes(
    memory: RunningService, user: TestUser, billing: Billing, admin_conn: Any, redis_client: Any, steps: list[Any]
) -> None:
    """MEM-SIZE, MEM-CHARGE (W14)."""
    headers = memory.headers(user)
    ids: list[str] = []
    for step, at, tier, text in steps:
        chosen = ids[at % len(ids)] if ids else None
        if step == "store":
            body = {"type": "lesson", "input_context": text, "tags": [text], "tier": tier}
            ids.append((await memory.public.post("/memory/store", json=body, headers=headers)).json()["id"])
        elif step == "die":
            await memory.service._storage.charge(user.id, 100)
        elif chosen is None:
            continue
        elif step == "promote":
            await memory.public.post(f"/memory/promote/{chosen}", json={"target_tier": tier}, headers=headers)
        elif step == "retag":
            await memory.public.patch(f"/memory/update/{chosen}", json={"tags": [text, text + "x"]}, headers=headers)
        elif step == "delete":
            await memory.public.delete(f"/memory/delete/{chosen}", headers=headers)
        elif step == "expire":
            await admin_conn.execute(
                "UPDATE memory.memories SET expires_at = now() - interval '1 s' WHERE id = $1 AND tier <> 'ltm'", chosen
            )
    await memory.service.purge(user.id, _all())
    await memory.service._storage.give_back_stale(timedelta(0))
    await billing.settle(memory, redis_client)
    stored = await admin_conn.fetchval(
        "SELECT coalesce(sum(size_bytes), 0) FROM memory.memories WHERE tier <> 'stm' AND visibility = 'user'"
    )
    booked = await admin_conn.fetchval("SELECT coalesce(sum(bytes), 0) FROM memory.user_stats")
    assert billing.balance(user) == stored == booked == await visible_bytes(memory, user)


def _all() -> Any:
    from novacore.memory.schemas import Batch

    return Batch(limit=100)
