"""Caps on what a stranger may send to the internal port."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacore.common.caps import PEERS_MAX, Bucket, Cap, CapMiddleware
from novacore.common.errors import ServiceError


class Time:
    def __init__(self):
        self.at = 100.0

    def __call__(self):
        return self.at


@pytest.fixture
def time():
    return Time()


def test_a_burst_is_granted_and_then_the_rate(time):
    bucket = Bucket(Cap(per_second=10, burst=5), time)

    assert [bucket.take("a") for _ in range(5)] == [0.0] * 5
    assert bucket.take("a") == pytest.approx(0.1)
    time.at += 0.11
    assert bucket.take("a") == 0.0
    assert bucket.take("a") > 0


def test_who_floods_is_refused_alone(time):
    bucket = Bucket(Cap(per_second=1, burst=2), time)
    for _ in range(100):
        bucket.take("stranger")

    assert bucket.take("stranger") > 0
    assert bucket.take("operator") == 0.0


def test_addresses_are_forgotten_in_the_order_of_their_silence(time):
    bucket = Bucket(Cap(per_second=0.001, burst=1), time)
    bucket.take("known")
    for number in range(PEERS_MAX * 3):
        bucket.take(str(number))
        if number % (PEERS_MAX // 2) == 0:
            assert bucket.take("known") > 0

    assert len(bucket._left) == PEERS_MAX
    assert "known" in bucket._left


@given(st.lists(st.tuples(st.floats(0, 3), st.sampled_from("ab")), max_size=80))
def test_no_second_grants_more_than_burst_and_rate(steps):
    time, cap = Time(), Cap(per_second=4, burst=3)
    bucket, granted = Bucket(cap, time), {"a": [], "b": []}
    for pause, who in steps:
        time.at += pause
        if bucket.take(who) == 0:
            granted[who].append(time.at)
    for times in granted.values():
        for first in range(len(times)):
            for last in range(first, len(times)):
                assert last - first + 1 <= cap.burst + (times[last] - times[first]) * cap.per_second + 1e-6


def scope(path="/push", method="POST", **headers):
    return {
        "type": "http", "path": path, "method": method, "client": ("10.0.0.1", 5),
        "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()],
    }  # fmt: skip


@pytest.fixture
def capped(time):
    served = []

    async def app(scope, _receive, _send):
        served.append(scope["path"])

    caps = {"/push": Cap(per_second=1, burst=3, body_bytes_max=100), "/own": Cap(1, 3, body_bytes_max=0)}
    middleware = CapMiddleware(app, caps, monotonic=time)

    async def call(**given):
        await middleware(scope(**given), None, None)

    call.served = served
    return call


async def test_a_body_over_its_cap_or_without_a_length_is_413_before_it_is_read(capped):
    await capped(content_length="100")
    for headers in ({"content_length": "101"}, {"transfer_encoding": "chunked"}):
        with pytest.raises(ServiceError) as caught:
            await capped(**headers)
        assert (caught.value.status, caught.value.code) == (413, "too_large")

    assert capped.served == ["/push"]


async def test_a_route_with_a_cap_of_its_own_reads_its_body_itself(capped):
    await capped(path="/own", content_length="1000000")

    assert capped.served == ["/own"]


async def test_over_the_rate_is_429_with_retry_after(capped):
    for _ in range(3):
        await capped()
    with pytest.raises(ServiceError) as caught:
        await capped()

    assert (caught.value.status, caught.value.code) == (429, "rate_limited")
    assert caught.value.headers["Retry-After"] == "1"


async def test_other_paths_and_methods_are_let_through(capped):
    for _ in range(10):
        await capped(method="GET")
        await capped(path="/else", content_length="5000")

    assert len(capped.served) == 20
