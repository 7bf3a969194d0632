"""argon2id in two threads (t=2, 19 MiB, p=1: 34 ms; the library's default takes 117 ms and 64 MiB).

An unknown account costs the same as a known one: the password is checked against a hash nobody has the password of.
"""

from __future__ import annotations

import asyncio
import secrets
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from novacore.common.errors import unavailable

THREADS = 2
WAITING_MAX = 200
"""More would wait longer than the gateway does: 200 · 34 ms / 2 = 3.4 s."""

T = TypeVar("T")


class Passwords:
    """Hashes and checks passwords."""

    def __init__(self) -> None:
        self._hasher = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="argon2")
        self._gate = asyncio.Semaphore(THREADS)
        self._waiting = 0
        self._dummy = self._hasher.hash(secrets.token_urlsafe(32))

    async def hash(self, password: str) -> str:
        """Return the encoded hash. ServiceError 503 `shed` when too many wait."""
        return await self._run(lambda: self._hasher.hash(_prepared(password)))

    async def verify(self, encoded: str | None, password: str) -> bool:
        """Return whether the password is right; for None (no such account) False after the same work."""
        return await self._run(lambda: self._check(encoded, password))

    def is_outdated(self, encoded: str) -> bool:
        """Return whether the hash was made with other parameters and should be made anew."""
        return self._hasher.check_needs_rehash(encoded)

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _check(self, encoded: str | None, password: str) -> bool:
        try:
            return self._hasher.verify(encoded or self._dummy, _prepared(password)) and encoded is not None
        except (VerificationError, InvalidHashError):
            return False

    async def _run(self, work: Callable[[], T]) -> T:
        if self._waiting >= WAITING_MAX:
            raise unavailable("shed", "Too many people are logging in right now.")
        self._waiting += 1
        try:
            async with self._gate:
                return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self._waiting -= 1


def _prepared(password: str) -> str:
    """NFC, so that the same keys on two systems are the same password (RFC 8265 §4.2)."""
    return unicodedata.normalize("NFC", password)
