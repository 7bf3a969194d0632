"""Who may be whom: issuers, audiences, header names, and the permission matrix of service tokens.

The matrix is a table here and never taken from a request.
"""

from __future__ import annotations

ISSUER = "novacore-auth"
SERVICE_AUDIENCE = "novacore-services"
USER_AUDIENCE = "novacore-api"
BOOTSTRAP_AUDIENCE = "novacore-auth"
"""Audience of the projected ServiceAccount token with which a service asks auth-billing for its service token."""
BOOTSTRAP_TOKEN_SECONDS = 3600
SIGNING_ALGORITHM = "ES256"
LEGACY_ALGORITHM = "HS256"
LEGACY_KID = "legacy"
"""Entry of `serviceJwt` for the one shared secret from before the rings; a token without a `kid` is of that key."""
LEGACY_KEY_BYTES_MIN = 32
"""RFC 7518, 3.2: an HS256 key is at least as long as the hash."""

SERVICE_TOKEN_HEADER = "X-Service-Token"  # noqa: S105 - a header's name
ACT_FOR_HEADER = "X-Act-For"
REQUEST_ID_HEADER = "X-Request-ID"
DEADLINE_HEADER = "X-Deadline-Ms"

SERVICE_TOKEN_SECONDS_MAX = 86_400
USER_TOKEN_SECONDS = 900
TOKEN_BYTES_MAX = 8192
LEEWAY_SECONDS = 30

CANARY_SUBJECT = "canary"
"""Subject of the tokens that prove a key in every live verifier. They open one route and nothing else."""

JWT_RINGS: tuple[str, ...] = ("serviceJwt", "userJwt")
"""Rings whose documents are public and mounted by all nine."""
RINGS: tuple[str, ...] = (
    "serviceJwt",
    "userJwt",
    "policy",
    "stripeKey",
    "stripeWebhook",
    "postgres",
    "redis",
    "providers",
)
KID_PREFIX: dict[str, str] = {"serviceJwt": "svc-", "userJwt": "usr-", "policy": "pol-"}

PERMISSIONS: dict[str, frozenset[str]] = {
    "gateway": frozenset({"*"}),
    "auth-billing": frozenset(),
    "memory": frozenset({"quota:write"}),
    "noble-spirit": frozenset(),
    "intelligence": frozenset({"memory:read", "memory:write", "policy:*", "quota:write", "act:user"}),
    "reflection-worker": frozenset({"memory:read", "memory:write", "policy:*", "act:user"}),
    "distillation-worker": frozenset({"memory:read", "memory:write", "policy:*", "act:user", "memory:maintain"}),
    "ngs-curriculum": frozenset({"memory:read", "policy:validate"}),
    "mcp-server": frozenset({"intelligence:*", "memory:read", "memory:log", "ngs:read"}),
}
"""`*` of the gateway covers only routes that also need a user token, never `NO_WILDCARD`."""

NO_WILDCARD: frozenset[str] = frozenset(
    {"quota:write", "act:user", "memory:maintain", "memory:log", "policy:validate", "ngs:award"}
)


def allows(granted: frozenset[str], wanted: str) -> bool:
    """Return whether a set of granted permissions covers `wanted` (`area:verb`), wildcards included."""
    if wanted in granted:
        return True
    if f"{wanted.split(':', 1)[0]}:*" in granted:
        return True
    return "*" in granted and wanted not in NO_WILDCARD
