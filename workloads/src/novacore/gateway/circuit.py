"""A circuit per upstream and one retry budget. Pure: the clock and the dice are parameters.

Opens at half errors of at least 20 calls in 10 s, or at 5 failed connections in a row; stays open 5 s, doubling to 60
s, with jitter so that replicas do not try together; then lets 3 probes through: all good closes it, one bad opens it
again.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import Final, Literal

WINDOW_S: Final = 10.0
CALLS_MIN: Final = 20
ERROR_SHARE: Final = 0.5
CONNECT_FAILURES: Final = 5
OPEN_S: Final = (5.0, 60.0)
PROBES: Final = 3
JITTER: Final = 0.2

State = Literal["closed", "half_open", "open"]
GAUGE: Final[dict[State, int]] = {"closed": 0, "half_open": 1, "open": 2}


class Circuit:
    """The circuit of one upstream. Ask `admit`, then tell `succeeded` or `failed`."""

    def __init__(
        self, monotonic: Callable[[], float], *, uniform: Callable[[float, float], float] = random.uniform
    ) -> None:
        self._monotonic = monotonic
        self._uniform = uniform
        self._calls: deque[tuple[float, bool]] = deque()
        self._errors = 0
        self._connect_failures = 0
        self._open_s = OPEN_S[0]
        self._until = 0.0
        self._probing = 0
        self._good_probes = 0
        self._state: State = "closed"

    @property
    def state(self) -> State:
        """closed, open, or half_open once the waiting time is over."""
        if self._state == "open" and self._monotonic() >= self._until:
            return "half_open"
        return self._state

    @property
    def retry_after_s(self) -> float:
        """Seconds until the next probe."""
        return max(0.0, self._until - self._monotonic())

    def admit(self) -> bool:
        """Return whether a call may go out now; a probe is counted as under way."""
        state = self.state
        if state == "closed":
            return True
        if state == "open":
            return False
        if self._state == "open":
            self._state, self._probing, self._good_probes = "half_open", 0, 0
        if self._probing + self._good_probes >= PROBES:
            return False
        self._probing += 1
        return True

    def succeeded(self) -> None:
        """A call was answered."""
        self._connect_failures = 0
        if self._state == "half_open":
            self._probing = max(0, self._probing - 1)
            self._good_probes += 1
            if self._good_probes >= PROBES:
                self._close()
            return
        self._note(error=False)

    def failed(self, *, connect: bool) -> None:
        """A call failed; `connect` when no connection came about."""
        if self._state == "half_open":
            self._open_s = min(OPEN_S[1], self._open_s * 2)
            self._open()
            return
        self._connect_failures = self._connect_failures + 1 if connect else 0
        self._note(error=True)
        share = self._errors / len(self._calls)
        if self._connect_failures >= CONNECT_FAILURES or (len(self._calls) >= CALLS_MIN and share >= ERROR_SHARE):
            self._open()

    def abandoned(self) -> None:
        """A call ended without telling anything about the upstream (the client left)."""
        if self._state == "half_open":
            self._probing = max(0, self._probing - 1)

    def _note(self, *, error: bool) -> None:
        now = self._monotonic()
        self._calls.append((now, error))
        self._errors += error
        while self._calls and self._calls[0][0] < now - WINDOW_S:
            self._errors -= self._calls.popleft()[1]

    def _open(self) -> None:
        self._state = "open"
        self._until = self._monotonic() + self._open_s * self._uniform(1 - JITTER, 1 + JITTER)
        self._calls.clear()
        self._errors = self._connect_failures = self._probing = self._good_probes = 0

    def _close(self) -> None:
        self._state, self._open_s = "closed", OPEN_S[0]
        self._calls.clear()
        self._errors = self._connect_failures = self._probing = self._good_probes = 0


class RetryBudget:
    """At most a tenth of the requests may be retried, so that retries never become the load."""

    def __init__(self, *, share: float = 0.1, most: float = 10.0) -> None:
        self._share = share
        self._most = most
        self._left = most

    def earn(self) -> None:
        """A request came in."""
        self._left = min(self._most, self._left + self._share)

    def spend(self) -> bool:
        """Return whether one retry is affordable, and pay for it."""
        if self._left < 1:
            return False
        self._left -= 1
        return True
