"""One command at a time in one checkout: `make up` beside `make test` would build and create the same things twice."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager

from hack.cluster.paths import LOCK
from hack.cluster.stages import say


@contextmanager
def exclusive() -> Iterator[None]:
    """Hold the checkout's lock; wait, and say so, while another command holds it. The kernel frees it at any end."""
    LOCK.parent.mkdir(exist_ok=True)
    with LOCK.open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("           waiting for another `hack.cluster` command in this checkout …")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
