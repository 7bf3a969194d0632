"""Users who go on asking while a test does something to the installation: every answer is counted, and each failure."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import Self

import httpx

from tests.cluster.client import PlatformUser

ROUTES = (
    "/api/auth/me",
    "/api/memory",
    "/api/ngs/progress",
    "/api/policy/active",
    "/api/usage/quota",
    "/api/chat/sessions",
)
"""Through the gateway to each service that answers without a model, each call with a service token."""
LOGIN_EACH_S = 20.0
FAILURES_KEPT = 20


class Traffic:
    """Some users, each in a thread of its own, for as long as the `with` block runs."""

    def __init__(self, url: str, *, users: int, pause_s: float = 0.05) -> None:
        self._users = [PlatformUser(url) for _ in range(users)]
        self._pause_s = pause_s
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(user,)) for user in self._users]
        self._lock = threading.Lock()
        self.answers: Counter[int] = Counter()
        self.by_route: Counter[str] = Counter()
        self.failures: list[str] = []
        self.seconds = 0.0
        self._began = 0.0

    def __enter__(self) -> Self:
        for user in self._users:
            assert user.register().status_code == 201
        self._began = time.monotonic()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()
        self.seconds = time.monotonic() - self._began
        for user in self._users:
            user.http.close()

    @property
    def total(self) -> int:
        """Requests that ended."""
        return sum(self.answers.values())

    def line(self) -> str:
        """Say it in a line."""
        rate = self.total / self.seconds if self.seconds else 0.0
        return f"{self.total} requests, {rate:.0f} a second, {len(self.failures)} failed {dict(self.answers)}"

    def _run(self, user: PlatformUser) -> None:
        login_at = time.monotonic() + LOGIN_EACH_S
        for route in itertools.cycle(ROUTES):
            if self._over.wait(self._pause_s):
                return
            if time.monotonic() >= login_at:
                self._note("login", user.login)
                login_at = time.monotonic() + LOGIN_EACH_S
            self._note(route, lambda route=route: user.get(route))

    def _note(self, route: str, call: Callable[[], httpx.Response]) -> None:
        at = time.strftime("%H:%M:%S")
        try:
            answer = call()
            code, words = answer.status_code, answer.text[:200]
        except httpx.HTTPError as error:
            code, words = 0, repr(error)
        with self._lock:
            self.answers[code] += 1
            self.by_route[route] += 1
            if not 200 <= code < 300:
                self.failures.append(f"{at} {route}: {code} {words}")
