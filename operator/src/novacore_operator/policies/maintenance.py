"""May pods be replaced now? `spec.maintenance.windows` says when.

Invariant MAINT-1: a time is inside a window exactly when some start of its schedule lies at most `duration` before it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from novacore_operator.api.spec import Spec, Window
from novacore_operator.policies import Finding
from novacore_operator.reasons import Reason


def window_invalid(windows: Iterable[Window], *, where: str = "maintenance.windows") -> Finding | None:
    """Find a window whose schedule or time zone does not exist: the API server can check their form only."""
    return next((found for one in windows if (found := schedule_invalid(one.cron, one.timezone, where=where))), None)


def rings_invalid(spec: Spec) -> Finding | None:
    """Find a schedule of a ring of keys, or a window of it, that no calendar knows."""
    for name, ring in (("serviceJwt", spec.secrets.rings.service_jwt), ("userJwt", spec.secrets.rings.user_jwt)):
        where = f"secrets.rings.{name}"
        found = schedule_invalid(ring.cron or "0 0 * * *", ring.timezone, where=where)
        found = found or window_invalid(ring.windows, where=f"{where}.windows")
        if found is not None:
            return found
    return None


def schedule_invalid(cron: str, timezone: str, *, where: str) -> Finding | None:
    """Find a schedule or a time zone that does not exist. `where`: the field below `spec`."""
    what = ""
    try:
        CronSim(cron, datetime(2026, 1, 1, tzinfo=ZoneInfo(timezone)))
    except CronSimError as error:
        what = f"cron {cron!r} is not a schedule ({error})"
    except (ZoneInfoNotFoundError, ValueError):
        what = f"timezone {timezone!r} does not exist"
    return Finding(Reason.SPEC_INVALID, f"spec.{where}: {what}: mend it or remove it") if what else None


def wait_s(windows: Iterable[Window], now: datetime) -> float | None:
    """Return the seconds until the next window opens: 0 inside one or without any, None if none ever opens."""
    waits = [_wait_s(window, now) for window in windows]
    known = [wait for wait in waits if wait is not None]
    return 0.0 if not waits else min(known, default=None)


def _wait_s(window: Window, now: datetime) -> float | None:
    """The starts are walked from one duration ago: the first that has not ended yet is the one that counts."""
    length = duration(window.duration)
    local = (now - length).astimezone(ZoneInfo(window.timezone))
    # Whole minutes, and one earlier: CronSim yields only what lies after its start.
    start = next(CronSim(window.cron, local.replace(second=0, microsecond=0) - timedelta(minutes=1)), None)
    while start is not None and start.astimezone(UTC) + length <= now:
        start = next(CronSim(window.cron, start), None)
    return None if start is None else max((start.astimezone(UTC) - now).total_seconds(), 0.0)


def duration(text: str) -> timedelta:
    """Return `2h`, `90m` or `1h30m` as a time."""
    found = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?", text)
    hours, minutes = (int(part or 0) for part in found.groups()) if found else (0, 0)
    return timedelta(hours=hours, minutes=minutes)
