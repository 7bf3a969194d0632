"""Getting and renewing our own service token."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta

import aiohttp
import pytest

from novacore.common.keyring import KeyRings
from novacore.common.metrics import Metrics
from novacore.common.tokens import NoTokenError, ServiceTokens
from novacore_contracts.paths import Paths
from tests.kit.keys import Keys, put

KEYS = Keys()


class Clock:
    """Stands still unless the test moves it; both clocks move together."""

    def __init__(self):
        self.start = self.at = datetime.now(UTC)

    def now(self):
        return self.at

    def monotonic(self):
        return 1000 + (self.at - self.start).total_seconds()


class Answer:
    def __init__(self, status, body):
        self.status, self._body = status, body

    async def __aenter__(self):
        await asyncio.sleep(0)
        return self

    async def __aexit__(self, *_):
        return None

    async def read(self):
        return self._body if isinstance(self._body, bytes) else json.dumps(self._body).encode()


class Session:
    """Stands at the network's edge: what auth-billing answers."""

    def __init__(self):
        self.asked = []
        self.down = False
        self.refusal = None  # an Answer given instead of a token
        self.key = KEYS.active["serviceJwt"]
        self.before = lambda: None  # called before each answer

    def post(self, url, **request):
        self.before()
        self.asked.append((url, request["json"], request["headers"]))
        if self.down:
            raise aiohttp.ClientConnectionError("refused")
        if self.refusal is not None:
            return self.refusal
        token = KEYS.service_token("memory", key=self.key)
        return Answer(200, {"token": token, "expires_in": 1000, "generation": 1})


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def session():
    return Session()


@pytest.fixture
def rings(tmp_path, clock):
    paths = Paths(tmp_path)
    KEYS.mount(paths)
    put(paths.identity_token, "projected\n")
    rings = KeyRings(paths, clock, Metrics("memory"))
    rings.load()
    return rings


@pytest.fixture
def tokens(tmp_path, clock, session, rings):
    return ServiceTokens(
        url="http://auth:9090", paths=Paths(tmp_path), keyrings=rings, clock=clock, session=lambda: session,
        uniform=lambda low, _high: low,
    )  # fmt: skip


async def test_asks_with_the_projected_token_and_from_the_second_time_on_its_generation(tokens, session, clock):
    """The first token may be of a signer that is behind: a pod born just after a write need not wait for its mount."""
    await tokens.get()
    clock.at += timedelta(seconds=900)
    await tokens.get()

    assert [url for url, _, _ in session.asked] == ["http://auth:9090/internal/token"] * 2
    assert [body for _, body, _ in session.asked] == [{"min_generation": 0}, {"min_generation": 1}]
    assert [headers for _, _, headers in session.asked] == [{"Authorization": "Bearer projected"}] * 2


@pytest.mark.parametrize("body", [b"", b"null", b"[]", b"<html>", b'{"code": "keyset_behind"}'])
async def test_a_refusal_with_any_body_or_none_is_tried_again(tokens, session, clock, body):
    """Seen in a cluster: an empty body ended the renewing loop, which then rested for a minute."""
    session.refusal = Answer(503, body)
    with pytest.raises(NoTokenError):
        await tokens.get()

    session.refusal = None
    clock.at += timedelta(seconds=30)
    assert await tokens.get()


@pytest.mark.invariant("TOKEN-1")
async def test_many_waiters_cost_one_renewal(tokens, session):
    got = await asyncio.gather(*(tokens.get() for _ in range(50)))

    assert len(set(got)) == 1
    assert len(session.asked) == 1


async def test_renews_at_four_fifths_of_its_life(tokens, session, clock):
    first = await tokens.get()
    clock.at += timedelta(seconds=790)
    assert await tokens.get() == first
    clock.at += timedelta(seconds=20)

    assert await tokens.get() != first


@pytest.mark.invariant("TOKEN-2")
async def test_a_failed_renewal_keeps_the_token_until_it_ends(tokens, session, clock):
    first = await tokens.get()
    session.down = True
    clock.at += timedelta(seconds=900)
    assert await tokens.get() == first
    clock.at += timedelta(seconds=101)

    with pytest.raises(NoTokenError, match="auth-billing gave none"):
        await tokens.get()


async def test_does_not_hammer_a_signer_that_is_away(tokens, session):
    session.down = True
    for _ in range(10):
        with pytest.raises(NoTokenError):
            await tokens.get()

    assert len(session.asked) == 1


@pytest.mark.invariant("TOKEN-3")
async def test_renew_now_renews_before_the_next_send(tokens, session, rings):
    first = await tokens.get()
    session.key = KEYS.standby["serviceJwt"]
    rings.push("serviceJwt", KEYS.sign(KEYS.switched("serviceJwt", generation=2, renew_now=True)))

    assert await tokens.get() != first
    assert tokens.kid == KEYS.standby["serviceJwt"].kid


async def test_after_a_plain_switch_it_renews_within_ten_minutes_not_at_once(tmp_path, session, rings, clock):
    tokens = ServiceTokens(
        url="http://auth:9090", paths=Paths(tmp_path), keyrings=rings, clock=clock, session=lambda: session,
        uniform=lambda low, high: (low + high) / 2,
    )  # fmt: skip
    first = await tokens.get()
    session.key = KEYS.standby["serviceJwt"]
    rings.push("serviceJwt", KEYS.sign(KEYS.switched("serviceJwt", generation=2)))

    assert await tokens.get() == first
    clock.at += timedelta(seconds=301)
    assert await tokens.get() != first


async def test_a_refused_token_is_replaced_once_for_all_who_held_it(tokens, session):
    refused = await tokens.get()

    first, second = await tokens.renew(refused, "denied"), await tokens.renew(refused, "denied")

    assert first == second != refused
    assert len(session.asked) == 2


@pytest.fixture
def shared():
    """Pauses between attempts move both clocks instead of waiting."""

    def of(clock):
        async def pause(seconds):
            clock.at += timedelta(seconds=seconds)
            await asyncio.sleep(0)

        return pause

    return of


def source(tmp_path, rings, clock, session, pause):
    return ServiceTokens(
        url="http://auth:9090", paths=Paths(tmp_path), keyrings=rings, clock=clock, session=lambda: session,
        uniform=lambda _low, high: high, pause=pause,
    )  # fmt: skip


@pytest.mark.invariant("TOKEN-4")
async def test_a_signer_that_has_not_heard_of_the_revocation_is_asked_again(tmp_path, rings, clock, session, shared):
    tokens = source(tmp_path, rings, clock, session, shared(clock))
    refused = await tokens.get()

    def heard_at_the_third():
        if len(session.asked) == 3:
            session.key = KEYS.standby["serviceJwt"]

    session.before = heard_at_the_third
    fresh = await tokens.renew(refused, "kid_revoked")

    assert len(session.asked) == 4
    assert tokens.kid == KEYS.standby["serviceJwt"].kid
    assert await tokens.get() == fresh


@pytest.mark.invariant("TOKEN-4")
async def test_a_signer_that_never_hears_of_it_is_asked_for_three_seconds_by_one(
    tmp_path, rings, clock, session, shared
):
    tokens = source(tmp_path, rings, clock, session, shared(clock))
    refused = await tokens.get()
    began = clock.monotonic()

    outcomes = await asyncio.gather(
        *(tokens.renew(refused, "kid_revoked") for _ in range(20)), return_exceptions=True
    )  # fmt: skip

    assert all(isinstance(outcome, NoTokenError) for outcome in outcomes)
    assert 3 <= clock.monotonic() - began <= 3.5, "each of the twenty waited for himself"
    assert 10 <= len(session.asked) <= 20


async def test_a_denied_token_may_be_followed_by_one_of_the_same_key(tokens, session):
    refused = await tokens.get()

    fresh = await tokens.renew(refused, "denied")

    assert fresh != refused
    assert len(session.asked) == 2


@pytest.mark.invariant("TOKEN-2")
async def test_a_wall_clock_that_jumps_moves_no_renewal(tmp_path, session, rings):
    class Jumping(Clock):
        jump = timedelta()

        def now(self):
            return self.at + self.jump

    clock = Jumping()
    tokens = ServiceTokens(
        url="http://auth:9090", paths=Paths(tmp_path), keyrings=rings, clock=clock, session=lambda: session,
        uniform=lambda low, _high: low,
    )  # fmt: skip
    first = await tokens.get()
    for hours in (-5, 5):
        clock.jump = timedelta(hours=hours)
        assert await tokens.get() == first
    clock.jump = timedelta(hours=-5)
    clock.at += timedelta(seconds=801)

    assert await tokens.get() != first
    assert len(session.asked) == 2


@pytest.mark.invariant("TOKEN-2")
async def test_renew_now_with_a_signer_away_keeps_what_is_still_trusted(tokens, session, rings):
    """A drain fails nobody: the old key is trusted until it is revoked."""
    first = await tokens.get()
    session.down = True
    rings.push("serviceJwt", KEYS.sign(KEYS.switched("serviceJwt", generation=2, renew_now=True)))

    assert await tokens.get() == first
    assert session.asked[-1][1] == {"min_generation": 2}
