"""Random sequences against the real SQL: the ledger never passes a cap, a stolen refresh token never lives on."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from novacore.auth_billing.repository import Closed
from novacore.common.errors import ServiceError

CAP = 1000  # tokens per day of free_trial

# Seeds instead of hypothesis here: its runner cannot await on the stores' event loop. A failing seed is named by the test.
SEEDS = range(8)


@dataclass
class Model:
    """What the ledger must hold for one user."""

    holds: dict[UUID, int] = field(default_factory=dict)  # open, with what was granted
    progress: dict[UUID, int] = field(default_factory=dict)
    billed: int = 0

    @property
    def reserved(self) -> int:
        return sum(self.holds.values())


@pytest.mark.invariant("QUOTA-1")
@pytest.mark.invariant("QUOTA-2")
@pytest.mark.invariant("QUOTA-3")
@pytest.mark.invariant("QUOTA-4")
@pytest.mark.parametrize("seed", SEEDS)
async def test_any_sequence_of_ledger_calls_keeps_cap_sum_and_reservations(auth, make_user, clock, admin_conn, seed):
    chance = random.Random(seed)
    user = (await make_user(tier="free_trial")).id
    ledger, model = auth.service.ledger, Model()
    closed: list[tuple[UUID, int]] = []
    for _ in range(60):
        step = chance.choice(
            ["reserve", "reserve", "again", "checkpoint", "settle", "settle", "release", "expire", "late"]
        )
        if step == "reserve":
            amount = chance.randint(1, 400)
            least = chance.randint(1, amount)
            hold, left = uuid4(), CAP - model.billed - model.reserved
            try:
                reserved, _ = await ledger.reserve(
                    hold_id=hold, user_id=user, resource="llm_tokens", amount=amount, min_amount=least, ttl_s=60
                )
            except ServiceError as error:
                assert (error.status, left < least) == (429, True)
                continue
            assert reserved.granted == min(amount, left) >= least
            assert reserved.remaining == left - reserved.granted
            model.holds[hold] = reserved.granted
        elif step == "expire":
            clock.advance(seconds=61)
            await ledger.sweep()
            for hold in list(model.holds):
                part = model.progress.get(hold, 0)
                model.billed += part
                closed.append((hold, part))
                del model.holds[hold]
        elif step == "late" and closed:
            hold, part = chance.choice(closed)
            room = CAP - model.billed - model.reserved
            answer = await ledger.settle(hold, actual=part + chance.randint(0, 300), metadata={})
            assert isinstance(answer, Closed)
            assert 0 <= answer.newly_billed <= room
            model.billed += answer.newly_billed
        elif model.holds:
            hold = chance.choice(list(model.holds))
            granted = model.holds[hold]
            if step == "again":
                repeated, _ = await ledger.reserve(
                    hold_id=hold, user_id=user, resource="llm_tokens", amount=granted, min_amount=None, ttl_s=60
                )
                assert repeated.granted == granted
            elif step == "checkpoint":
                amount = chance.randint(0, granted + 50)
                await ledger.checkpoint(hold, amount)
                model.progress[hold] = max(model.progress.get(hold, 0), min(amount, granted))
            elif step == "settle":
                actual = chance.randint(0, granted + 50)
                for _ in range(chance.randint(1, 2)):
                    answer = await ledger.settle(hold, actual=actual, metadata={})
                    assert (answer.billed, answer.clamped) == (min(actual, granted), max(0, actual - granted))
                model.billed += min(actual, granted)
                del model.holds[hold]
            elif step == "release":
                await ledger.release(hold)
                del model.holds[hold]
        row = await admin_conn.fetchrow("SELECT used, reserved, cap FROM auth.quota_balance WHERE user_id = $1", user)
        row = row or {"used": 0, "reserved": 0, "cap": CAP}  # nothing was reserved yet
        assert (row["used"], row["reserved"]) == (model.billed, model.reserved), f"seed {seed}, step {step}"
        assert row["used"] + row["reserved"] <= row["cap"]
    assert await admin_conn.fetchval("SELECT coalesce(sum(drift), 0) FROM auth.quota_drift()") == 0


@pytest.mark.invariant("QUOTA-1")
async def test_parallel_random_calls_never_pass_the_cap_or_leak(auth, make_user, admin_conn):
    chance = random.Random(7)
    users = [(await make_user(tier="free_trial")).id for _ in range(3)]
    ledger = auth.service.ledger

    async def one(n: int) -> None:
        user, hold = users[n % 3], uuid4()
        try:
            reserved, _ = await ledger.reserve(
                hold_id=hold, user_id=user, resource="llm_tokens", amount=60, min_amount=20, ttl_s=60
            )
        except ServiceError as error:
            assert error.status == 429
            return
        ending = chance.random()
        if ending < 0.6:
            await asyncio.gather(*(ledger.settle(hold, actual=reserved.granted // 2, metadata={}) for _ in range(2)))
        elif ending < 0.8:
            await ledger.release(hold)

    await asyncio.gather(*(one(n) for n in range(90)))

    for row in await admin_conn.fetch("SELECT * FROM auth.quota_balance"):
        held = await admin_conn.fetchval(
            "SELECT coalesce(sum(amount), 0) FROM auth.quota_hold WHERE user_id = $1 AND state = 'held'", row["user_id"]
        )
        assert row["used"] + row["reserved"] <= CAP
        assert row["reserved"] == held
    assert await admin_conn.fetchval("SELECT coalesce(sum(drift), 0) FROM auth.quota_drift()") == 0


@pytest.mark.invariant("REFRESH-1")
@pytest.mark.invariant("REFRESH-2")
@pytest.mark.invariant("REFRESH-3")
@pytest.mark.parametrize("seed", range(4))
async def test_any_sequence_of_refreshes_ends_a_family_at_the_first_late_reuse(auth, register, clock, seed):
    chance = random.Random(seed)
    session = await register()
    accounts = auth.service.accounts
    tokens: dict[str, timedelta | None] = {session["refresh_token"]: None}  # when it was first used
    dead = False
    for _ in range(25):
        clock.advance(seconds=chance.choice([0, 1, 4, 9, 30]))
        token = chance.choice(list(tokens)[-6:])
        used = tokens[token]
        late = used is not None and clock.ahead - used > timedelta(seconds=10)
        try:
            fresh = await accounts.refresh(token)
        except ServiceError as error:
            assert error.code == "token_invalid"
            assert dead or late, f"seed {seed}: a good token was refused"
            dead = True
            continue
        assert not dead, f"seed {seed}: a revoked family gave a pair"
        # The real clock runs too: a use on the edge of the grace time may fall on either side of it.
        assert not late or used is None or clock.ahead - used < timedelta(seconds=11), (
            f"seed {seed}: a late reuse gave a pair"
        )
        tokens[token] = used if used is not None else clock.ahead
        tokens[fresh.refresh] = None
