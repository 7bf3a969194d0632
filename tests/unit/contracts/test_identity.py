"""The permission matrix and what its wildcards cover."""

from __future__ import annotations

import pytest

from novacore_contracts.identity import NO_WILDCARD, PERMISSIONS, allows
from novacore_contracts.services import SERVICES


def test_every_service_has_a_row():
    assert {service.name for service in SERVICES} == set(PERMISSIONS)


@pytest.mark.parametrize("permission", sorted(NO_WILDCARD))
def test_the_gateways_star_covers_no_named_right(permission):
    assert not allows(PERMISSIONS["gateway"], permission)


@pytest.mark.parametrize(
    ("service", "permission", "allowed"),
    [
        ("gateway", "memory:read", True),
        ("intelligence", "policy:validate", True),
        ("ngs-curriculum", "policy:validate", True),
        ("ngs-curriculum", "policy:propose", False),
        ("mcp-server", "intelligence:run", True),
        ("mcp-server", "act:user", False),
        ("memory", "memory:read", False),
    ],
)
def test_rows_of_the_matrix(service, permission, allowed):
    assert allows(PERMISSIONS[service], permission) is allowed
