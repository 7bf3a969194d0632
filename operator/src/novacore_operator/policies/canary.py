"""Is a canary worse than the pods beside it?

Both are judged by what users get: the share of requests answered with 5xx, and the share that is slow. Each route of
the canary is held against the same route of the old pods, so that it matters not which routes it happened to be given.

Invariants:
CAN-1 a canary that is no worse on any route is never judged worse.
CAN-2 below `LEAST_REQUESTS` on either side nothing is compared.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from novacore_operator.policies import Finding
from novacore_operator.reasons import Reason
from novacore_operator.state import Counted, Sample, Served, Trial

LEAST_REQUESTS = 20
"""Of the canary, and of the old pods together, in the time of the comparison."""
ERRORS_TIMES = 2.0
ERRORS_MORE = 0.02
ERRORS_LEAST = 3
"""Worse: more 5xx than twice the old pods' share and two points, and at least three: one may be chance."""
USUAL_SHARE = 0.9
SLOW_SHARE = 0.4
"""Slow: longer than the time in which the old pods answered nine of ten. Worse: four of ten or more, not one."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What a comparison rests on. Shares are 0 to 1."""

    requests: int
    stable_requests: int
    errors: int
    stable_error_share: float  # of the canary's requests, had the old pods answered them
    slow: int
    timed: int  # requests whose time can be compared

    @property
    def comparable(self) -> bool:
        """Whether there are enough requests on both sides (CAN-2)."""
        return min(self.requests, self.stable_requests) >= LEAST_REQUESTS

    @property
    def worse(self) -> bool:
        """Whether the canary is worse, by errors or by time."""
        return self.comparable and (self._errors_worse or self._slow_worse)

    @property
    def _errors_worse(self) -> bool:
        limit = self.stable_error_share * ERRORS_TIMES + ERRORS_MORE
        return self.errors >= ERRORS_LEAST and self.errors / self.requests > limit

    @property
    def _slow_worse(self) -> bool:
        return self.timed >= LEAST_REQUESTS and self.slow / self.timed >= SLOW_SHARE

    def __str__(self) -> str:
        """As a person would say it."""
        if not self.comparable:
            return (
                f"{self.requests} requests, and {self.stable_requests} of the old pods: "
                f"nothing is compared below {LEAST_REQUESTS}"
            )
        slow = (
            f", {self.slow / self.timed * 100:.0f} % slower than nine of ten there"
            if self.timed >= LEAST_REQUESTS
            else ""
        )
        return (
            f"{self.errors / self.requests * 100:.1f} % 5xx of {self.requests} requests against "
            f"{self.stable_error_share * 100:.1f} %{slow}"
        )


def figures(trial: Trial) -> Figures:
    """Return what there is to compare."""
    new, old = _served(trial.canary), _served(trial.stable)
    old_requests = sum(served.requests for served in old.values())
    usual = sum(served.errors for served in old.values()) / old_requests if old_requests else 0.0
    expected, slow, timed = 0.0, 0, 0
    for route, served in new.items():
        beside = old.get(route, Served())
        expected += served.requests * (beside.errors / beside.requests if beside.requests else usual)
        bound = _usual_bound(beside)
        if bound is not None and len(served.within) == len(beside.within):
            timed += served.within[-1]
            slow += served.within[-1] - served.within[bound]
    requests = sum(served.requests for served in new.values())
    return Figures(
        requests=requests,
        stable_requests=old_requests,
        errors=sum(served.errors for served in new.values()),
        stable_error_share=expected / requests if requests else 0.0,
        slow=slow,
        timed=timed,
    )


def _usual_bound(served: Served) -> int | None:
    """Return the first bound of the histogram within which nine of ten were answered."""
    if not served.within or not served.within[-1]:
        return None
    return next(n for n, count in enumerate(served.within) if count >= USUAL_SHARE * served.within[-1])


def _served(pods: Iterable[Counted]) -> Sample:
    """Return what several pods have served between their samples, by route."""
    total: dict[tuple[str, str], Served] = {}
    for pod in pods:
        begun_anew = any(_less(served, pod.begin.get(route, Served())) for route, served in pod.now.items())
        for route, served in pod.now.items():
            since = _minus(served, Served() if begun_anew else pod.begin.get(route, Served()))
            total[route] = _plus(total[route], since) if route in total else since
    return total


def _less(now: Served, before: Served) -> bool:
    return now.requests < before.requests or now.errors < before.errors


def _minus(now: Served, before: Served) -> Served:
    earlier = before.within if len(before.within) == len(now.within) else (0,) * len(now.within)
    within = tuple(a - b for a, b in zip(now.within, earlier, strict=True))
    return Served(now.requests - before.requests, now.errors - before.errors, within)


def _plus(one: Served, other: Served) -> Served:
    within = tuple(a + b for a, b in zip(one.within, other.within, strict=False))
    return Served(one.requests + other.requests, one.errors + other.errors, within)


def not_passed(service: str, trial: Trial | None, *, seconds: int, unread_s: int, stalled: str = "") -> Finding | None:
    """Return why the other pods may not be replaced yet, or ever; None when they may.

    `trial` is None while the canary is not ready. `unread_s`: how long its metrics may stay unread. `stalled`: what its
    Deployment says of a pod that is not made.
    """
    if trial is None:
        why = f": {stalled}" if stalled else ""
        return Finding(Reason.CANARY_RUNNING, f"waits for the canary of {service} to be ready{why}")
    if not trial.canary:
        if trial.elapsed_s < max(seconds, unread_s):
            return Finding(Reason.CANARY_RUNNING, f"canary of {service}: its metrics could not be read yet")
        return Finding(
            Reason.CANARY_UNREAD,
            f"{service}: the canary is ready, but its metrics could not be read for {trial.elapsed_s:.0f} s: "
            "let the operator reach port 9090 of the pods, or switch rollout.canary off",
        )
    found = figures(trial)
    if found.worse:
        return Finding(Reason.CANARY_WORSE, f"{service}: the canary is worse: {found}, after {trial.elapsed_s:.0f} s")
    if trial.elapsed_s < seconds:
        return Finding(Reason.CANARY_RUNNING, f"canary of {service}: {trial.elapsed_s:.0f} of {seconds} s, {found}")
    return None
