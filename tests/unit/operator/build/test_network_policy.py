"""Who may talk to whom, evaluated from the policies: the paths of the contracts, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from novacore_contracts.services import BY_NAME, INTERNAL_PORT, POSTGRES_PORT, REDIS_PORT, SERVICES
from novacore_operator.build.common import selector
from novacore_operator.state import Manifest
from tests.kit.callmatrix import COMPONENTS, PATHS, STORES, is_a_path, ports
from tests.kit.reachability import End, may_connect
from tests.unit.operator.build.objects import build
from tests.unit.operator.make import ADMIN, REDIS, World

OUTSIDE = End(address="203.0.113.7")
OPERATOR = End({"app.kubernetes.io/name": "novacore-operator"}, namespace="novacore-system")
STRANGER = End({"app": "shell"})
ELSEWHERE = End({"app": "ingress"}, namespace="edge", namespace_labels={"team": "web"})


def policies(**spec: Any) -> list[Manifest]:
    """Return the policies of an installation."""
    world = World()
    world.grant("pg", **ADMIN)
    world.grant("redis", **REDIS)
    return [manifest for (kind, _), manifest in build(world, **spec).items() if kind == "NetworkPolicy"]


DEFAULT = policies()


def pod(component: str) -> End:
    """Return a pod of a component."""
    return End(selector(component))


@pytest.mark.parametrize(("source", "target", "port"), PATHS, ids=[f"{s}-{t}-{p}" for s, t, p in PATHS])
def test_a_component_reaches_what_the_contracts_name_and_nothing_else(source: str, target: str, port: int) -> None:
    assert may_connect(DEFAULT, pod(source), pod(target), port) is is_a_path(source, target)


@pytest.mark.parametrize("component", COMPONENTS)
def test_a_stranger_reaches_nothing_but_the_door(component: str) -> None:
    door = BY_NAME["gateway"].port
    for stranger in (STRANGER, ELSEWHERE, OUTSIDE):
        for port in (*ports(component), 22, 8080):
            allowed = may_connect(DEFAULT, stranger, pod(component), port)
            assert allowed is (component == "gateway" and port == door), (stranger, port)


@pytest.mark.parametrize("component", COMPONENTS)
def test_egress_and_ingress_are_denied_by_default(component: str) -> None:
    for port in (22, 25, 80, 8443):
        assert not may_connect(DEFAULT, pod(component), OUTSIDE, port)
    chosen = [policy for policy in DEFAULT if policy["spec"]["podSelector"]["matchLabels"] == selector(component)]
    assert [policy["spec"]["policyTypes"] for policy in chosen] == [["Ingress", "Egress"]]


@pytest.mark.parametrize("component", COMPONENTS)
def test_names_are_resolved_by_all_but_the_stores(component: str) -> None:
    for protocol in ("UDP", "TCP"):
        resolves = may_connect(DEFAULT, pod(component), End(namespace="kube-system"), 53, protocol)
        assert resolves is (component not in STORES)


@pytest.mark.parametrize("component", COMPONENTS)
def test_only_auth_billing_reaches_the_api_server(component: str) -> None:
    reaches = {port for port in (443, 6443) if may_connect(DEFAULT, pod(component), OUTSIDE, port)}
    assert reaches == ({443, 6443} if component == "auth-billing" else set())


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.name)
def test_the_operator_reaches_the_internal_port_only(service: Any) -> None:
    assert may_connect(DEFAULT, OPERATOR, pod(service.name), INTERNAL_PORT)
    false_one = End(OPERATOR.labels, namespace="test")  # its labels, in another namespace than the operator's
    assert not may_connect(DEFAULT, false_one, pod(service.name), INTERNAL_PORT)
    if service.port is not None and service.name != "gateway":
        assert not may_connect(DEFAULT, OPERATOR, pod(service.name), service.port)


@pytest.mark.parametrize(
    ("peers", "let_in"),
    [
        (None, {"stranger", "elsewhere", "outside"}),
        ([{"podSelector": {}}], {"stranger"}),
        ([{"podSelector": {"matchLabels": {"app": "other"}}}], set()),
        ([{"namespaceSelector": {}}], {"stranger", "elsewhere"}),
        ([{"namespaceSelector": {"matchLabels": {"team": "web"}}}], {"elsewhere"}),
        (
            [{"namespaceSelector": {"matchLabels": {"team": "web"}}, "podSelector": {"matchLabels": {"app": "x"}}}],
            set(),
        ),
        ([{"ipBlock": {"cidr": "203.0.113.0/24"}}], {"outside"}),
        ([{"ipBlock": {"cidr": "198.51.100.0/24"}}, {"podSelector": {"matchLabels": {"app": "shell"}}}], {"stranger"}),
    ],
)
def test_the_door_opens_for_those_named(peers: list[Any] | None, let_in: set[str]) -> None:
    found = policies(networkPolicy={} if peers is None else {"ingressFrom": peers})
    visitors = {"stranger": STRANGER, "elsewhere": ELSEWHERE, "outside": OUTSIDE}
    port = BY_NAME["gateway"].port
    assert port is not None
    assert {name for name, end in visitors.items() if may_connect(found, end, pod("gateway"), port)} == let_in
    assert not any(may_connect(found, end, pod("gateway"), INTERNAL_PORT) for end in visitors.values())


@pytest.mark.parametrize(
    ("url", "port"),
    [
        ("https://models.example.org/v1", 443),
        ("http://models.example.org", 80),
        ("http://ollama.models:11434", 11434),
        ("https://[2001:db8::1]:8443/v1", 8443),
        ("http://models.example.org:none", 80),
    ],
)
def test_a_model_server_is_reached_on_its_own_port_by_intelligence_only(url: str, port: int) -> None:
    found = policies(models={"llm": {"provider": "ollama", "baseURL": url, "model": "m"}})
    assert may_connect(found, pod("intelligence"), OUTSIDE, port)
    assert not may_connect(found, pod("intelligence"), OUTSIDE, port + 1)
    assert not may_connect(found, pod("gateway"), OUTSIDE, port)


def test_an_external_postgres_is_reached_by_those_who_use_it() -> None:
    found = policies(postgres={"mode": "External", "external": {"adminSecretRef": {"name": "pg"}}})
    users = {*(service.name for service in SERVICES if service.schema), "migrate"}
    components = (name for name in COMPONENTS if name != "postgres")
    assert {name for name in components if may_connect(found, pod(name), OUTSIDE, 5433)} == users


def test_network_policies_can_be_switched_off() -> None:
    assert policies(networkPolicy={"enabled": False}) == []


def test_an_external_redis_is_reached_by_those_who_use_it_and_tried_by_the_migration() -> None:
    found = policies(redis={"mode": "External", "external": {"secretRef": {"name": "redis"}}})
    users = {*(service.name for service in SERVICES if service.redis), "migrate"}
    components = (name for name in COMPONENTS if name != "redis")
    assert {name for name in components if may_connect(found, pod(name), OUTSIDE, 6380)} == users


def test_the_redis_for_caches_is_reached_by_those_who_keep_something_in_it() -> None:
    found = policies(redis={"cache": "Separate"})
    users = {service.name for service in SERVICES if service.cache}
    assert {name for name in COMPONENTS if may_connect(found, pod(name), pod("redis-cache"), REDIS_PORT)} == users
    assert not may_connect(found, pod("redis-cache"), OUTSIDE, 443)


def test_cloudnativepgs_pods_are_reached_by_their_users_each_other_and_its_operator() -> None:
    found = policies(postgres={"mode": "CloudNativePG"})
    instance = End({"cnpg.io/cluster": "novacore-postgres"})
    users = {*(service.name for service in SERVICES if service.schema), "migrate"}
    components = [name for name in COMPONENTS if name != "postgres"]
    assert {name for name in components if may_connect(found, pod(name), instance, POSTGRES_PORT)} == users
    assert may_connect(found, instance, instance, POSTGRES_PORT)
    assert may_connect(found, OPERATOR, instance, 8000)
    assert not may_connect(found, STRANGER, instance, POSTGRES_PORT)
    other = End({"cnpg.io/cluster": "somebodys"})
    assert not may_connect(found, pod("memory"), other, POSTGRES_PORT)
