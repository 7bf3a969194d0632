"""May the operator act? A table from a situation to a reason."""

from typing import Any

import pytest

from novacore_operator.api.stores import LOGINS
from novacore_operator.policies import first
from novacore_operator.policies.admission import MAY_ACT
from novacore_operator.reasons import Reason
from novacore_operator.state import Referenced
from tests.unit.operator.make import ADMIN, REDIS, World, make_nova

EXTERNAL: dict[str, Any] = {"postgres": {"mode": "External", "external": {"adminSecretRef": {"name": "pg"}}}}
REDIS_EXTERNAL: dict[str, Any] = {
    "redis": {"mode": "External", "external": {"secretRef": {"name": "redis"}, "cacheSecretRef": {"name": "cache"}}}
}
CLOUD_NATIVE_PG: dict[str, Any] = {"postgres": {"mode": "CloudNativePG", "cloudNativePG": {"instances": 3}}}
OWN_LOGINS: dict[str, Any] = {
    "postgres": {
        "mode": "External",
        "external": {"perServiceSecretRefs": {who: {"name": f"pg-{who}"} for who in LOGINS}},
    }
}
OPENAI: dict[str, Any] = {
    "models": {
        "llm": {
            "provider": "openai",
            "model": "m",
            "baseURL": "https://models.example.org",
            "apiKeySecretRef": {"name": "key"},
        }
    }
}


STRIPE: dict[str, Any] = {
    "version": "0.2.0",
    "stripe": {
        "enabled": True,
        "apiKeySecretRef": {"name": "money"},
        "webhook": {"secretRef": {"name": "hook", "key": "signing"}},
        "prices": {"pro": "price_1"},
    },
}


def situation(*, siblings: tuple[tuple[str, str], ...] = (), **secrets: dict[str, bytes] | None) -> World:
    """Return a world with siblings and Secrets; a Secret given as None may not be read."""
    world = World()
    world.siblings = siblings
    for name, data in secrets.items():
        if data is None:
            world.referenced[name] = Referenced(name, None, forbidden=True)
        else:
            world.grant(name, **data)
    return world


def without_cloud_native_pg() -> World:
    """Return a world whose API server does not know its kind."""
    world = World()
    world.unserved.add("Cluster")
    return world


@pytest.mark.parametrize(
    ("spec", "world", "reason", "told"),
    [
        ({}, situation(), None, ""),
        ({"version": "9.9.9"}, situation(), Reason.VERSION_UNKNOWN, "0.1.0"),
        ({}, situation(siblings=(("2026-03-01T10:00:00Z", "old"),)), Reason.NAMESPACE_TAKEN, "old"),
        ({}, situation(siblings=(("2026-03-01T11:00:01Z", "young"),)), None, ""),
        ({}, situation(siblings=(("2026-03-01T11:00:00Z", "a"),)), Reason.NAMESPACE_TAKEN, "a"),
        ({}, situation(siblings=(("2026-03-01T11:00:00Z", "z"),)), None, ""),
        (EXTERNAL, situation(), Reason.SECRET_MISSING, "host, port, user, password, database, ca"),
        (EXTERNAL, situation(pg=None), Reason.SECRET_NOT_GRANTED, "referencedSecrets"),
        (EXTERNAL, situation(pg={**ADMIN, "ca": b""}), Reason.SECRET_MISSING, "lacks ca"),
        (EXTERNAL, situation(pg={**ADMIN, "port": b"x"}), Reason.SECRET_MISSING, "port"),
        (EXTERNAL, situation(pg={**ADMIN, "port": b"65536"}), Reason.SECRET_MISSING, "1 to 65535"),
        (EXTERNAL, situation(pg={**ADMIN, "host": b"postgres://db"}), Reason.SECRET_MISSING, "host"),
        (EXTERNAL, situation(pg={**ADMIN, "ca": b"not PEM"}), Reason.SECRET_MISSING, "certificates in PEM"),
        (EXTERNAL, situation(pg={**ADMIN, "password": b"\xff\xfe"}), Reason.SECRET_MISSING, "plain text"),
        (EXTERNAL, situation(pg={**ADMIN, "user": b"u" * 20_000}), Reason.SECRET_MISSING, "at most 16384"),
        (EXTERNAL, situation(pg=ADMIN), None, ""),
        (STRIPE, situation(hook={"signing": b"w"}), Reason.SECRET_MISSING, "stripe.apiKeySecretRef names Secret money"),
        (STRIPE, situation(money={"apiKey": b"k"}, hook=None), Reason.SECRET_NOT_GRANTED, "stripe.webhook.secretRef"),
        (
            STRIPE,
            situation(money={"apiKey": b"k"}, hook={"webhookSecret": b"w"}),
            Reason.SECRET_MISSING,
            "lacks signing",
        ),
        (STRIPE, situation(money={"apiKey": b"k"}, hook={"signing": b"w"}), None, ""),
        (
            {**STRIPE, "version": "0.1.0"},
            situation(money={"apiKey": b"k"}, hook={"signing": b"w"}),
            Reason.RELEASE_TOO_OLD,
            "stripe.enabled",
        ),
        ({"stripe": {**STRIPE["stripe"], "enabled": False}}, situation(), None, ""),
        (REDIS_EXTERNAL, situation(redis=REDIS), Reason.SECRET_MISSING, "cacheSecretRef names Secret cache"),
        (REDIS_EXTERNAL, situation(redis=REDIS, cache=None), Reason.SECRET_NOT_GRANTED, "referencedSecrets"),
        (REDIS_EXTERNAL, situation(redis={**REDIS, "user": b""}), Reason.SECRET_MISSING, "lacks user"),
        (REDIS_EXTERNAL, situation(redis=REDIS, cache=REDIS), None, ""),
        ({**REDIS_EXTERNAL, "version": "0.1.0"}, situation(redis=REDIS, cache=REDIS), Reason.RELEASE_TOO_OLD, "0.2.0"),
        ({"redis": {"cache": "Separate"}, "version": "0.1.0"}, situation(), Reason.RELEASE_TOO_OLD, "cache Separate"),
        ({"profile": "Production", "version": "0.1.0"}, situation(), None, ""),
        (OWN_LOGINS, situation(**{f"pg-{who}": ADMIN for who in LOGINS}), None, ""),
        (
            OWN_LOGINS,
            situation(**{f"pg-{who}": ADMIN for who in LOGINS if who != "memory"}),
            Reason.SECRET_MISSING,
            "perServiceSecretRefs.memory names Secret pg-memory",
        ),
        ({**OWN_LOGINS, "version": "0.1.0"}, situation(), Reason.RELEASE_TOO_OLD, "perServiceSecretRefs"),
        (CLOUD_NATIVE_PG, without_cloud_native_pg(), Reason.CNPG_MISSING, "install CloudNativePG"),
        (CLOUD_NATIVE_PG, situation(), None, ""),
        ({}, without_cloud_native_pg(), None, ""),
        (OPENAI, situation(), Reason.SECRET_MISSING, "apiKey"),
        (OPENAI, situation(key={"apiKey": b"sk"}), None, ""),
    ],
)
def test_first_fault_is_named(spec: dict[str, Any], world: World, reason: Reason | None, told: str) -> None:
    finding = first(MAY_ACT, make_nova(**spec), world.seen())
    assert (finding.reason if finding else None) is reason
    assert told in (finding.message if finding else "")
