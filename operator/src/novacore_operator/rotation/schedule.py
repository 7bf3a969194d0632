"""When a ring rotates by itself.

Invariants: SCHED-1 the time does not depend on when, or how often, it is asked for: the jitter is drawn from the
resource's uid, the ring and the number of the key. SCHED-2 a rotation by schedule begins inside a window, if there are
any.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo

from cronsim import CronSim

from novacore_operator.api.rings import Ring
from novacore_operator.api.rollout import Window
from novacore_operator.policies import maintenance

PATIENCE = 1.1  # a window must come within so many intervals


class OnStraggler(StrEnum):
    """What happens to a pod that does not acknowledge within `ack_timeout`."""

    WAIT = "wait"
    REPLACE_POD = "replace-pod"
    FORCE = "force"  # by hand only: a schedule never signs with a key that some pod refuses


@dataclass(frozen=True, slots=True)
class RingPolicy:
    """What the resource says about one ring. `cron` excludes `interval_s`."""

    ttl_max_s: int
    interval_s: float | None = None
    cron: str | None = None
    timezone: str = "UTC"
    jitter: float = 0.1
    windows: tuple[Window, ...] = ()
    pause: bool = False
    on_straggler: OnStraggler = OnStraggler.WAIT
    history: int = 10


INTERVAL = "2160h"
"""A quarter of a year."""


def policy_of(given: Ring, *, ttl_max_s: int) -> RingPolicy:
    """Return what the resource says about a ring. The admission policies have passed: schedules and zones exist."""
    interval = given.interval if given.interval is not None else (None if given.cron is not None else INTERVAL)
    return RingPolicy(
        ttl_max_s=ttl_max_s,
        interval_s=maintenance.duration(interval).total_seconds() if interval is not None else None,
        cron=given.cron,
        timezone=given.timezone,
        jitter=int(given.jitter.removesuffix("%")) / 100,
        windows=tuple(given.windows),
        pause=given.pause,
        on_straggler=OnStraggler(given.on_straggler),
        history=given.history,
    )


def draw(uid: str, ring: str, seq: int) -> float:
    """Return a number in [-1, 1) that is always the same for one key of one ring of one resource."""
    seed = hashlib.sha256(f"{uid}|{ring}|{seq}".encode()).digest()
    return int.from_bytes(seed[:8], "big") / 2**63 - 1


def due_at(policy: RingPolicy, *, since: float, uid: str, ring: str, seq: int) -> float | None:
    """Return the Unix time of the next rotation, windows aside. `since`: the last switch. None: never by itself."""
    share = policy.jitter * draw(uid, ring, seq)
    if policy.cron is not None:
        starts = CronSim(policy.cron, _local(since, policy.timezone))
        first, second = next(starts, None), next(starts, None)
        if first is None:
            return None
        spacing = (second - first).total_seconds() if second is not None else 0.0
        return max(first.timestamp() + share * spacing, since)
    if policy.interval_s is None:
        return None
    return since + policy.interval_s * (1 + share)


def next_rotation(policy: RingPolicy, *, since: float, uid: str, ring: str, seq: int) -> float | None:
    """Return when the next rotation may begin: due, and inside a window. None: never, or paused."""
    due = None if policy.pause else due_at(policy, since=since, uid=uid, ring=ring, seq=seq)
    if due is None:
        return None
    wait = maintenance.wait_s(policy.windows, _utc(due))
    return None if wait is None else due + wait


def is_open(policy: RingPolicy, now: float) -> bool:
    """Return whether a rotation by schedule may begin now."""
    return maintenance.wait_s(policy.windows, _utc(now)) == 0


def without_window(policy: RingPolicy, *, since: float) -> str | None:
    """Find a schedule that its own windows keep from being met."""
    if not policy.windows or (policy.interval_s is None and policy.cron is None):
        return None
    plain = due_at(replace(policy, jitter=0), since=since, uid="", ring="", seq=0)
    if plain is None:
        return None
    wait = maintenance.wait_s(policy.windows, _utc(plain))
    latest = since + PATIENCE * (policy.interval_s if policy.interval_s is not None else plain - since)
    if wait is not None and plain + wait <= latest:
        return None
    opens = "no window ever opens" if wait is None else f"the next window opens {timedelta(seconds=int(wait))} later"
    return f"a rotation is due at {_utc(plain):%Y-%m-%d %H:%M} UTC and {opens}: widen the windows or the interval"


def _utc(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)


def _local(at: float, timezone: str) -> datetime:
    return datetime.fromtimestamp(at, ZoneInfo(timezone))
