"""A program that a test starts: its output in a file, its end by us and by nobody else's hand."""

from __future__ import annotations

import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

STOP_S = 20


class Child:
    """One program; may be started again after it ended. Output of all its runs is in `log`."""

    def __init__(self, name: str, command: Sequence[str | Path], *, log: Path, env: Mapping[str, str] | None = None):
        self.name = name
        self.log = log
        self._command = [str(word) for word in command]
        self._env = dict(env) if env is not None else None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id of the present run."""
        assert self._process is not None, f"{self.name} was not started"
        return self._process.pid

    def start(self) -> None:
        """Start it. Its own session, so that an interrupt at the terminal ends the test first and this in order."""
        assert not self.runs(), f"{self.name} runs already"
        with self.log.open("ab") as out:
            self._process = subprocess.Popen(
                self._command, stdout=out, stderr=subprocess.STDOUT, env=self._env, start_new_session=True
            )

    def runs(self) -> bool:
        """Whether the present run has not ended."""
        return self._process is not None and self._process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the running program."""
        assert self._process is not None, f"{self.name} was not started"
        self._process.send_signal(number)

    def stop(self) -> int:
        """End it in order (SIGTERM), by force when it takes too long; return its exit code."""
        if self._process is None:
            return 0
        self._process.terminate()
        try:
            return self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait(STOP_S)

    def kill(self) -> None:
        """End it at once (SIGKILL), as a crash does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(STOP_S)

    def tail(self, lines: int = 60) -> str:
        """Return the last lines of its output."""
        if not self.log.exists():
            return f"{self.name}: no output"
        text = self.log.read_text(errors="replace").splitlines()[-lines:]
        return "\n".join([f"--- {self.name}, {self.log}", *text])


def free_port() -> int:
    """Return a loopback port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
