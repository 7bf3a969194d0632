"""The matrix of allowed calls, as the contracts name it: which component may reach which, and on which ports."""

from __future__ import annotations

from novacore_contracts.services import BY_NAME, INTERNAL_PORT, POSTGRES_PORT, REDIS_PORT

STORES = {"postgres": POSTGRES_PORT, "redis": REDIS_PORT}
COMPONENTS = (*BY_NAME, *STORES, "migrate")


def ports(component: str) -> tuple[int, ...]:
    """Return the ports on which a component listens."""
    if component in STORES:
        return (STORES[component],)
    if component == "migrate":
        return (INTERNAL_PORT,)
    port = BY_NAME[component].port
    return (INTERNAL_PORT,) if port is None else (port, INTERNAL_PORT)


def is_a_path(source: str, target: str) -> bool:
    """Return whether the contracts name this path."""
    if source == "migrate":
        return target == "postgres"
    if source in STORES:
        return False
    caller = BY_NAME[source]
    if target == "postgres":
        return caller.schema is not None
    return caller.redis if target == "redis" else target in caller.peers


PATHS = [
    (source, target, port)
    for source in COMPONENTS
    for target in COMPONENTS
    if source != target
    for port in ports(target)
    if not (target == "gateway" and port == BY_NAME["gateway"].port)  # the door: open to anybody who is let in
]
"""Every pair of components with each port of the second, allowed or not."""
