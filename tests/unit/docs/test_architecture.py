"""The table of services in docs/architecture.md is the contracts' table."""

from __future__ import annotations

import re
from pathlib import Path

from novacore_contracts.services import SERVICES

ROOT = Path(__file__).resolve().parents[3]


def test_ports_schemas_and_redis_of_the_table_are_those_of_the_contracts() -> None:
    text = (ROOT / "docs/architecture.md").read_text()
    rows = re.findall(r"^\| ([a-z-]+) \| (\d+|–) \| (`\w+`|–) \| (yes|–) \|", text, re.MULTILINE)
    assert {(name, port, schema.strip("`"), redis) for name, port, schema, redis in rows} == {
        (s.name, str(s.port or "–"), s.schema or "–", "yes" if s.redis else "–") for s in SERVICES
    }


def test_callers_of_the_table_are_the_peers_of_the_contracts() -> None:
    text = (ROOT / "docs/architecture.md").read_text()
    by_name = {service.name: service for service in SERVICES}
    for name, calls in re.findall(r"^\| ([a-z-]+) \| (?:\d+|–) \| .*? \| (?:yes|–) \| (.+) \|$", text, re.MULTILINE):
        peers = by_name[name].peers
        if calls == "all services with a port":
            assert set(peers) == {s.name for s in SERVICES if s.port and s.name != name}
        else:
            assert set(calls.replace("–", "").split(", ")) - {""} == set(peers), name
