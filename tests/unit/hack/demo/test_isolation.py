"""Only the gateway's port may be open; anything else, and a closed gateway, is named."""

from __future__ import annotations

from hack.demo.isolation import judge, targets

GATEWAY = ("novacore-gateway-public", "http", 5000)
MEMORY = ("novacore-memory", "http", 8001)
METRICS = ("novacore-gateway", "internal", 9090)


def test_only_the_gateway_is_as_it_should_be() -> None:
    rows, wrong = judge([GATEWAY, MEMORY, METRICS], {GATEWAY: True, MEMORY: False, METRICS: False})
    assert wrong == []
    assert [row[2] for row in rows] == ["open", "closed", "closed"]


def test_an_open_service_and_a_closed_gateway_are_named() -> None:
    _, wrong = judge([GATEWAY, MEMORY, METRICS], {GATEWAY: False, MEMORY: True, METRICS: True})
    assert wrong == ["novacore-gateway-public:5000", "novacore-memory:8001", "novacore-gateway:9090"]


def test_every_port_of_the_installations_services_is_tried_and_no_other() -> None:
    services = [
        {"metadata": {"name": "novacore-memory"}, "spec": {"ports": [{"name": "http", "port": 8001}, {"port": 9090}]}},
        {"metadata": {"name": "kubernetes"}, "spec": {"ports": [{"port": 443}]}},
    ]
    assert targets(services) == [MEMORY, ("novacore-memory", "", 9090)]
