"""Paths, headers, circuits and local buckets of the gateway: pure rules."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from novacore.common.redis import Redis
from novacore.gateway.circuit import Circuit, RetryBudget
from novacore.gateway.headers import client_ip, inbound, outbound
from novacore.gateway.limits import Bucket, Limiter, account_key
from novacore.gateway.routes import KNOWN, bad_path, match
from novacore.gateway.settings import GatewaySettings


class Clock:
    def __init__(self):
        self.at = 1000.0

    def __call__(self):
        return self.at


@pytest.fixture
def clock():
    return Clock()


# --- paths ----------------------------------------------------------------------------------------------------------


@pytest.mark.invariant("ROUTE-1")
@pytest.mark.parametrize(
    "raw",
    [
        b"/api/../internal/token", b"/api//internal/token", b"//internal/token", b"/api/auth/..", b"/./internal",
        b"/api/auth%2f..%2finternal", b"/api/%2e%2e/internal", b"/api/.%2E/internal", b"\\internal", b"/api\\internal",
        b"/api/%5cinternal", b"/api/%252e%252e/internal", b"/api/x%00y", b"internal", b"/api/\x7f", b"/api/\xc3\xa9", b"",
    ],
)  # fmt: skip
def test_spellings_that_two_parsers_read_differently_are_refused(raw):
    assert bad_path(raw)


@pytest.mark.parametrize(
    "raw", [b"/", b"/api/memory/3f", b"/api/memory/a%20b", b"/.well-known/jwks.json", b"/api/x..y"]
)
def test_plain_paths_are_accepted(raw):
    assert not bad_path(raw)


@pytest.mark.invariant("ROUTE-1")
@given(st.text(alphabet="abcinterl/.%25fe\\", max_size=40))
def test_no_accepted_path_leads_below_internal(tail):
    path = "/" + tail
    if not bad_path(path.encode()):
        route = match("GET", path)
        assert route is None or not route.path.startswith("/internal")


@pytest.mark.parametrize(
    "path", ["/internal/token", "/api", "/api/", "/apix/chat", "/api/chatter", "/metrics", "/livez"]
)
def test_other_paths_have_no_route(path):
    assert match("GET", path) is None


def test_odd_methods_have_no_route():
    assert match("TRACE", "/api/memory") is None
    assert match("GET", "/api/billing/webhooks") is None


@pytest.mark.parametrize(
    ("method", "path", "class_"),
    [
        ("POST", "/api/chat/message", "costly"),
        ("GET", "/api/chat/sessions", "read"),
        ("POST", "/api/memory/store", "costly"),
        ("POST", "/api/memory/search", "read"),
        ("POST", "/api/mcp", "costly"),
        ("POST", "/api/auth/login", "auth"),
        ("GET", "/api/auth/me", "anon"),
        ("POST", "/api/billing/webhooks", "webhook"),
    ],
)
def test_the_class_of_a_request(method, path, class_):
    assert match(method, path).class_ == class_


def test_every_known_path_has_its_own_template_and_all_fit_the_registrys_bound():
    templates = {match(method, path).template for path in KNOWN for method in ("GET", "POST")}

    assert templates == KNOWN
    assert len(KNOWN) + 8 + 6 <= 25


# --- headers --------------------------------------------------------------------------------------------------------

FORBIDDEN = [
    "X-User-Id", "x-user-role", "X-Service-Token", "X-Act-For", "X-Internal-Anything", "X-Deadline-Ms", "X-Forwarded-For",
    "X-FORWARDED-HOST", "X-Real-IP", "Forwarded", "Connection", "Keep-Alive", "TE", "Trailer", "Transfer-Encoding",
    "Upgrade", "Proxy-Authorization", "Authorization", "Cookie", "Host", "Content-Length",
]  # fmt: skip


@pytest.mark.parametrize("name", FORBIDDEN)
def test_what_clients_must_not_say_does_not_pass(name):
    assert inbound([(name, "x"), ("Accept", "y")]) == {"Accept": "y"}


def test_answers_keep_their_headers_but_hop_by_hop_ones():
    back = dict(
        outbound(
            {
                "Content-Type": "a/b",
                "Connection": "close, X-Odd",
                "X-Odd": "1",
                "ETag": "e",
                "X-Service-Token": "s",
                "Server": "u",
            }
        )
    )

    assert back == {b"content-type": b"a/b", b"etag": b"e"}


def test_the_clients_address_is_the_peers_unless_proxies_are_trusted():
    assert client_ip("9.9.9.9", "1.1.1.1", 0) == "9.9.9.9"
    assert client_ip("9.9.9.9", "6.6.6.6, 1.1.1.1", 1) == "1.1.1.1"
    assert client_ip("9.9.9.9", "6.6.6.6, 1.1.1.1, 2.2.2.2", 2) == "1.1.1.1"
    assert client_ip("9.9.9.9", None, 2) == "9.9.9.9"


# --- circuits -------------------------------------------------------------------------------------------------------


@pytest.fixture
def circuit(clock):
    return Circuit(clock, uniform=lambda _low, _high: 1.0)


def test_opens_at_half_errors_of_twenty_calls(circuit):
    for number in range(19):
        (circuit.failed(connect=False) if number % 2 else circuit.succeeded())
    assert circuit.state == "closed"
    circuit.failed(connect=False)

    assert circuit.state == "open"
    assert not circuit.admit()


def test_old_calls_do_not_count(circuit, clock):
    for _ in range(19):
        circuit.failed(connect=False)
    clock.at += 11
    circuit.failed(connect=False)

    assert circuit.state == "closed"


def test_opens_at_five_failed_connections_in_a_row(circuit):
    for _ in range(4):
        circuit.failed(connect=True)
    circuit.succeeded()
    for _ in range(4):
        circuit.failed(connect=True)
    assert circuit.state == "closed"
    circuit.failed(connect=True)

    assert circuit.state == "open"


def open_it(circuit):
    for _ in range(5):
        circuit.failed(connect=True)


def test_three_good_probes_close_it(circuit, clock):
    open_it(circuit)
    clock.at += 5
    assert [circuit.admit() for _ in range(4)] == [True, True, True, False]
    for _ in range(3):
        circuit.succeeded()

    assert circuit.state == "closed"


def test_a_bad_probe_opens_it_for_twice_as_long_up_to_a_minute(circuit, clock):
    open_it(circuit)
    waits = []
    for _ in range(6):
        waits.append(circuit.retry_after_s)
        clock.at += circuit.retry_after_s
        assert circuit.admit()
        circuit.failed(connect=True)

    assert waits == [5, 10, 20, 40, 60, 60]


def test_a_probe_whose_client_left_frees_its_place(circuit, clock):
    open_it(circuit)
    clock.at += 5
    for _ in range(10):
        assert circuit.admit()
        circuit.abandoned()


def test_retries_are_at_most_a_tenth():
    budget = RetryBudget()
    spent = 0
    for _ in range(1000):
        budget.earn()
        spent += budget.spend()

    assert spent <= 110


# --- local buckets --------------------------------------------------------------------------------------------------


@pytest.fixture
def limiter(clock):
    return Limiter(Redis(port=1), monotonic=clock)


async def test_without_redis_a_local_bucket_counts(limiter, clock):
    async def check():
        return await limiter.check([Bucket("rl:x", 60)], user=None, rates={}, fail_closed=False)

    states = [(await check()).state for _ in range(31)]
    assert states == ["ok"] * 30 + ["limited"]
    clock.at += 1.01
    assert (await check()).state == "ok"


async def test_without_redis_class_auth_is_closed(limiter):
    verdict = await limiter.check([Bucket("rl:auth:1.1.1.1", 10)], user=None, rates={}, fail_closed=True)

    assert verdict.state == "closed"


def test_an_account_key_holds_no_address():
    assert account_key(" A@Example.org ") == account_key("a@example.org")
    assert "example" not in account_key("a@example.org")


# --- settings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("origin", ["*", "https://*.example.org", "example.org"])
def test_origins_are_listed_one_by_one(origin):
    with pytest.raises(ValidationError):
        GatewaySettings(cors_origins=[origin])
