"""The committed OpenAPI documents are what the services serve, and every route says who may call it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from novacore.common import openapi
from novacore_contracts.services import SERVICES

COMMITTED = Path(__file__).with_name("openapi")
WITH_A_PORT = [service.name for service in SERVICES if service.port is not None]


@pytest.mark.parametrize("service", WITH_A_PORT)
def test_the_committed_document_is_what_the_service_serves(service: str) -> None:
    """A difference is a decision: read it, then run `make gen`."""
    assert document(service) == json.loads(json.dumps(openapi.document(service))), "run: make gen"


@pytest.mark.parametrize(
    ("service", "method", "path"),
    [
        ("auth-billing", "post", "/auth/register"),
        ("auth-billing", "post", "/auth/login"),
        ("auth-billing", "get", "/usage/quota"),
        ("intelligence", "post", "/chat/message"),
        ("intelligence", "post", "/chat/stream"),
        ("memory", "get", "/memory"),
        ("memory", "post", "/memory/search"),
        ("ngs-curriculum", "get", "/ngs/progress"),
        ("noble-spirit", "post", "/policy/validate"),
        ("mcp-server", "post", "/mcp/task/submit"),
    ],
)
def test_the_documented_routes_are_there(service: str, method: str, path: str) -> None:
    assert method in document(service)["paths"][path]


@pytest.mark.parametrize("service", WITH_A_PORT)
def test_no_internal_route_is_on_a_service_port(service: str) -> None:
    assert not [path for path in document(service)["paths"] if path.startswith("/internal") or path == "/metrics"]


def document(service: str) -> dict[str, Any]:
    """Return a committed document."""
    found: dict[str, Any] = json.loads((COMMITTED / f"{service}.json").read_text())
    return found
