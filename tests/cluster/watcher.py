"""Something that is looked at again and again while a test does something else."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self


class Watcher:
    """Calls `look` in threads of its own as long as its `with` block runs. What it raises fails the block."""

    def __init__(self, look: Callable[[], None], *, every_s: float, threads: int = 1) -> None:
        self._look = look
        self._every_s = every_s
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(threads)]
        self._errors: list[Exception] = []

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()
        if self._errors and kind is None:
            raise self._errors[0]

    def _run(self) -> None:
        try:
            while not self._over.is_set():
                self._look()
                self._over.wait(self._every_s)
        except Exception as error:  # the thread's end: told when the block ends
            self._errors.append(error)
