"""The operator's one error hierarchy. What is not one of these is a defect (`Reason.INTERNAL_ERROR`).

`Retry`: something passes by itself, look again after `after_s`. `Blocked`: a person must act; no retry storm, the next
event or resync looks again. `Fatal`: this process cannot go on. All three become conditions and log lines.
"""

from __future__ import annotations

from novacore_operator.reasons import Reason


class NovaError(Exception):
    """Base of all. `message` is one sentence: which object, what is wrong, what to do. Never a secret."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message


class Retry(NovaError):  # noqa: N818 - what to do is its name
    """Look again after `after_s` seconds (None: the queue's back-off decides)."""

    def __init__(self, reason: Reason, message: str, *, after_s: float | None = None) -> None:
        super().__init__(reason, message)
        self.after_s = after_s


class Blocked(NovaError):  # noqa: N818 - see Retry
    """A person must act."""


class Fatal(NovaError):  # noqa: N818 - see Retry
    """The process must end (the Lease is lost, the API is not served)."""
