"""May the migration run, may a service be changed?

Facts come as one `RolloutState`, gathered once by `plan`. At first install the only gate is the migration: the services
bear absent peers. A change of an existing service waits for the stages before it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from novacore_contracts.services import BY_NAME, SERVICES, Service
from novacore_operator.policies import Finding
from novacore_operator.reasons import Reason


@dataclass(frozen=True, slots=True)
class RolloutState:
    """What a gate looks at. A service is settled when its desired revision is wholly available."""

    stores_ready: bool
    migrated: bool
    migration_failed: bool
    migration_message: str
    settled: Mapping[str, bool]
    rolling: frozenset[str]  # changed already and not settled yet
    max_parallel: int
    returning: bool = False  # to the last good release


Gate = Callable[[RolloutState, Service], Finding | None]


def stores_starting(state: RolloutState) -> Finding | None:
    """Find data stores that do not answer yet."""
    if state.stores_ready:
        return None
    return Finding(Reason.DATA_STORES_STARTING, "waits for Postgres and Redis")


def migration_failed(state: RolloutState, service: Service) -> Finding | None:  # noqa: ARG001 - the signature is Gate's
    """Find a migration that gave up: a service on an old schema would only fail with a worse message."""
    if not state.migration_failed or state.returning:
        return None
    return Finding(
        Reason.MIGRATION_FAILED,
        f"the migration failed ({state.migration_message}): see `kubectl logs -l app.kubernetes.io/component=migrate`, "
        "mend it, then delete the Job",
    )


def not_migrated(state: RolloutState, service: Service) -> Finding | None:  # noqa: ARG001 - the signature is Gate's
    """Find schemas that are not at this release's level yet."""
    if state.migrated or state.returning:  # schemas only grow: the older release runs on them
        return None
    return Finding(Reason.MIGRATION_RUNNING, "waits for the migration")


def earlier_stage_unsettled(state: RolloutState, service: Service) -> Finding | None:
    """Find a service of an earlier stage that is not at its desired revision and available. On the way back: later."""
    sign = -1 if state.returning else 1
    for other in SERVICES:
        if sign * other.stage < sign * service.stage and not state.settled.get(other.name, False):
            return Finding(Reason.ROLLING_OUT, f"waits for {other.name}, which is replaced first")
    return None


def too_many_rolling(state: RolloutState, service: Service) -> Finding | None:
    """Find `spec.rollout.maxParallel` services being replaced at this moment."""
    others = sorted(state.rolling - {service.name})
    if len(others) < state.max_parallel:
        return None
    return Finding(Reason.ROLLING_OUT, f"waits for {' and '.join(others)} (rollout.maxParallel {state.max_parallel})")


MAY_CREATE: tuple[Gate, ...] = (
    migration_failed,
    not_migrated,
)
MAY_CHANGE: tuple[Gate, ...] = (
    migration_failed,
    not_migrated,
    earlier_stage_unsettled,  # callers are changed after those they call
    too_many_rolling,  # last: it counts what the others let through
)


def first_gate(gates: tuple[Gate, ...], state: RolloutState, service: str) -> Finding | None:
    """Return the first finding for a service, or None when it may go on."""
    return next((finding for gate in gates if (finding := gate(state, BY_NAME[service])) is not None), None)
