"""When to stop waiting, and what to say then. Pure."""

from __future__ import annotations

import re
from enum import Enum
from typing import Any

import click

from novacore_operator.cli.errors import PROGRAM, one_line
from novacore_operator.cli.status_view import Summary

API = "novacore.ai/wait/v1"
MAX_S = 7 * 24 * 3600


class Verdict(Enum):
    """What a look at the resource means for the one who waits."""

    READY = "ready"
    WAIT = "wait"
    TIMED_OUT = "timed-out"
    BLOCKED = "blocked"  # waiting cannot help: the operator has given up, or was told to do nothing


class Duration(click.ParamType[float]):
    """Seconds, from `90`, `90s`, `10m` or `1h30m`."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return seconds."""
        if isinstance(value, int | float):
            return float(value)
        match = re.fullmatch(r"(?:([0-9]{1,4})h)?(?:([0-9]{1,5})m)?(?:([0-9]{1,6})s)?|([0-9]{1,6})", value)
        hours, minutes, seconds, plain = (int(part or 0) for part in match.groups()) if match else (0, 0, 0, 0)
        total = hours * 3600 + minutes * 60 + seconds + plain
        if not value or match is None or not 0 < total <= MAX_S:
            self.fail(f"{value!r} is not a time such as 90s, 10m or 1h30m, up to 168h", param, ctx)
        return float(total)


def judge(shown: Summary, *, waited_s: float, timeout_s: float) -> Verdict:
    """Return whether to go on. Only conditions of the current generation count."""
    if shown["ready"]:
        return Verdict.READY
    if _given_up(shown):
        return Verdict.BLOCKED
    return Verdict.TIMED_OUT if waited_s >= timeout_s else Verdict.WAIT


def _given_up(shown: Summary) -> bool:
    rolled_back = any(
        item["type"] == "RolledBack" and item["status"] == "True" and item["observedGeneration"] == shown["generation"]
        for item in shown["conditions"]
    )
    return rolled_back or shown["mode"] == "Plan"


def told(shown: Summary, verdict: Verdict, *, waited_s: float) -> dict[str, Any]:
    """Return the answer: the stable document, and `text` for people."""
    seconds = round(waited_s)
    if shown["observedGeneration"] != shown["generation"]:
        why = f"the operator has not acted on generation {shown['generation']} yet: `{PROGRAM} doctor` says why"
    else:
        why = one_line(f"{shown['reason'] or 'no reason given'}: {shown['message'] or 'the operator has not said why'}")
    text = {
        Verdict.READY: f"{shown['name']} is ready after {seconds} s",
        Verdict.TIMED_OUT: f"{shown['name']} is not ready after {seconds} s. {why}",
        Verdict.BLOCKED: f"{shown['name']} will not become ready by waiting. {shown['next'][0]} {why}",
    }.get(verdict, why)
    return {
        "apiVersion": API,
        "namespace": shown["namespace"],
        "name": shown["name"],
        "outcome": verdict.value,
        "seconds": seconds,
        "reason": shown["reason"],
        "message": shown["message"],
        "text": text,
    }
