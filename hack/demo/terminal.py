"""How the commands talk: one plain line per fact, colour only on a terminal, errors that name the next step."""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from collections.abc import Iterable, Sequence

EXIT_ERROR = 1
EXIT_USAGE = 64
"""Bad input (sysexits.h EX_USAGE), as in every NovaCore command."""

_CODES = {
    "red": "31",
    "green": "32",
    "yellow": "33",
    "blue": "34",
    "magenta": "35",
    "cyan": "36",
    "dim": "2",
    "bold": "1",
}
_PAINT = re.compile(r"\033\[\d+m")
PALETTE = ("cyan", "green", "yellow", "magenta", "blue")


class DemoError(Exception):
    """One sentence for the person at the keyboard: what is wrong and what to do. Printed without a traceback."""

    def __init__(self, message: str, *, exit_code: int = EXIT_ERROR) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Deadline:
    """A point in time; everything that waits asks it how long it may."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds
        self.seconds = seconds

    @property
    def left_s(self) -> float:
        """Seconds left, never below 0."""
        return max(0.0, self._end - time.monotonic())

    @property
    def over(self) -> bool:
        """Whether the time has passed."""
        return self.left_s == 0.0


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        """Seconds so far."""
        return time.monotonic() - self._start


def pause(seconds: float) -> None:
    """Wait without holding a lock; Ctrl-C ends it."""
    threading.Event().wait(seconds)


def colour(text: str, name: str) -> str:
    """Return the text in a colour, or as it is when stdout is no terminal or NO_COLOR is set."""
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR"):
        return text
    return f"\033[{_CODES[name]}m{text}\033[0m"


def say(text: str = "") -> None:
    """Print one line at once (a pipe would hold it back)."""
    print(text, flush=True)


def step(watch: Stopwatch, text: str) -> None:
    """Print one line of progress with the elapsed time in front."""
    say(f"{colour(f'{watch.elapsed_s:7.1f}s', 'dim')}  {text}")


def thousands(number: int) -> str:
    """Return 12345 as `12 345`."""
    return f"{number:,}".replace(",", " ")


def mebibytes(size_bytes: int) -> str:
    """Return a size as `123.4 MiB`."""
    return f"{size_bytes / 2**20:.1f} MiB"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[int] = ()) -> str:
    """Return an aligned table; `right` names the columns that align right (numbers)."""
    lines = [list(head), *[list(row) for row in rows]]
    widths = [max(_width(line[column]) for line in lines) for column in range(len(head))]

    def shape(line: Sequence[str]) -> str:
        cells = []
        for column, cell in enumerate(line):
            gap = " " * (widths[column] - _width(cell))
            cells.append(gap + cell if column in right else cell + gap)
        return "  ".join(cells).rstrip()

    return "\n".join([colour(shape(lines[0]), "bold"), *[shape(line) for line in lines[1:]]])


def _width(text: str) -> int:
    """Return how many columns a text takes: colour takes none."""
    return len(_PAINT.sub("", text))
