"""Progress (a line as a stage starts and ends, a table of times at the end) and commands with their output kept."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from hack.cluster.errors import Problem

_COLOUR = sys.stdout.isatty() and "NO_COLOR" not in os.environ


@dataclass
class Stages:
    """The stages of one command, in order, with their seconds."""

    started: float = field(default_factory=time.monotonic)
    times: list[tuple[str, float]] = field(default_factory=list)

    @contextmanager
    def stage(self, title: str) -> Iterator[None]:
        """Print the title, run the body, print how long it took."""
        begin = time.monotonic()
        say(f"[{begin - self.started:5.0f} s] {title} …")
        yield
        seconds = time.monotonic() - begin
        self.times.append((title, seconds))
        if seconds >= 1:
            say(f"[{time.monotonic() - self.started:5.0f} s]   {paint('done', 32)} in {seconds:.0f} s")

    def table(self) -> str:
        """Return the stages that took a second or more, and the total."""
        rows = [f"  {seconds:6.1f} s  {title}" for title, seconds in self.times if seconds >= 1]
        return "\n".join([*rows, f"  {time.monotonic() - self.started:6.1f} s  in all"])


def say(text: str) -> None:
    """Print at once, so that progress shows in a pipe too."""
    print(text, flush=True)


def paint(text: str, colour: int) -> str:
    """Return the text in an ANSI colour on a terminal, plain elsewhere."""
    return f"\033[{colour}m{text}\033[0m" if _COLOUR else text


def run(
    args: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: str | None = None,
    why: str = "",
    timeout_s: float = 3600,
) -> str:
    """Run quietly, return stdout. A failure is a Problem with the last lines and the name of the full log."""
    words = [str(arg) for arg in args]
    try:
        done = subprocess.run(
            words,
            cwd=cwd,
            env={**os.environ, **(env or {})},
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
        )
    except FileNotFoundError:
        raise Problem(f"{words[0]} is not installed", why or "install it and try again") from None
    except subprocess.TimeoutExpired:
        raise Problem(f"`{' '.join(words[:4])}` did not end within {timeout_s:.0f} s", why or "try again") from None
    if done.returncode != 0:
        with tempfile.NamedTemporaryFile("w", prefix="novacore-", suffix=".log", delete=False) as log:
            log.write(done.stdout + done.stderr)
        tail = "\n    ".join((done.stderr or done.stdout).strip().splitlines()[-8:])
        raise Problem(f"`{' '.join(words[:4])}` failed:\n    {tail}\n", why or f"the whole output is in {log.name}")
    return done.stdout


def succeeds(args: Sequence[str | Path], *, env: Mapping[str, str] | None = None, timeout_s: float = 60) -> bool:
    """Return whether a command exits with 0 in time."""
    try:
        done = subprocess.run(
            list(map(str, args)),
            env={**os.environ, **(env or {})},
            capture_output=True,
            check=False,
            timeout=timeout_s,
        )
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
