"""`python -m loadtest --users 50 --time 60s --url http://127.0.0.1:5000`: run, print, judge, keep.

Exit code 0: no error and every operation's p95 below the limit; 1: not so; 64: bad input.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from loadtest import plan, record
from loadtest.plan import InputError
from loadtest.verdict import P95_LIMIT_MS, TOTAL, Figures, as_table, faults

EXIT_USAGE = 64
OUT = Path(__file__).with_name("out")
STOP_WITHIN_S = 30
"""How long users may take to finish what they do when the time is over."""


class Parser(argparse.ArgumentParser):
    """An argument parser that exits 64 on bad input."""

    def error(self, message: str) -> NoReturn:
        """Print one line and leave."""
        self.exit(EXIT_USAGE, f"loadtest: {message}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the load test; return the exit code."""
    options = parser().parse_args(arguments)
    try:
        users, seconds, url = plan.users(options.users), plan.seconds(options.time), plan.loopback_url(options.url)
        think_s = plan.think_s(options.think)
    except InputError as error:
        print(f"loadtest: {error}", file=sys.stderr)
        return EXIT_USAGE
    print(f"{users} users for {seconds} s against {url}, think time {options.think} s", flush=True)
    OUT.mkdir(parents=True, exist_ok=True)
    report = OUT / "report.html"
    figures, errors = run(users, seconds, url, think_s=think_s, report=report)
    broken = faults(figures, expected=[operation.name for operation in plan.OPERATIONS], p95_limit_ms=options.p95)
    print(as_table(figures))
    for line in errors:
        print(f"error  {line}")
    if options.record:
        print(f"result {_shown(record.write(figures, users=users, seconds=seconds, faults=broken))}")
    print(f"report {_shown(report)}")
    for line in broken:
        print(f"FAIL   {line}")
    if not broken:
        print(f"PASS   0 errors, p95 of every operation below {options.p95:.0f} ms")
    return 1 if broken else 0


def run(
    users: int, seconds: int, url: str, *, think_s: tuple[float, float], report: Path
) -> tuple[list[Figures], list[str]]:
    """Load the platform, write the HTML report, and return the figures and one line per kind of error."""
    # imported here: locust patches sockets and threads for gevent, which a process that only parses must not suffer
    import gevent
    from locust import between
    from locust.env import Environment
    from locust.html import get_html_report

    from loadtest.users import PlatformUser

    logging.getLogger("locust").setLevel(logging.WARNING)
    PlatformUser.wait_time = between(*think_s)
    environment = Environment(user_classes=[PlatformUser], host=url, stop_timeout=STOP_WITHIN_S)
    runner = environment.create_local_runner()
    runner.start(users, spawn_rate=plan.SPAWN_PER_S)
    gevent.sleep(seconds)
    runner.quit()
    runner.greenlet.join()
    html = get_html_report(environment, show_download_link=False)  # type: ignore[no-untyped-call] # locust has no types
    report.write_text(html)
    entries = {entry.name: entry for entry in environment.stats.entries.values()}
    figures = [_figures(entries[o.name], o.name, seconds) for o in plan.OPERATIONS if o.name in entries]
    figures.append(_figures(environment.stats.total, TOTAL, seconds))
    return figures, [f"{e.occurrences:>6} x {e.name}: {e.error}" for e in environment.stats.errors.values()]


def _figures(entry: Any, name: str, seconds: int) -> Figures:
    """Return one locust statistics entry as our figures."""
    return Figures(
        name=name,
        requests=entry.num_requests,
        errors=entry.num_failures,
        p50_ms=float(entry.get_response_time_percentile(0.50) or 0),
        p95_ms=float(entry.get_response_time_percentile(0.95) or 0),
        p99_ms=float(entry.get_response_time_percentile(0.99) or 0),
        per_second=round(entry.num_requests / seconds, 2),
    )


def _shown(path: Path) -> str:
    return str(path.relative_to(record.ROOT))


def parser() -> Parser:
    """Return the command line."""
    top = Parser(prog="loadtest", description=__doc__)
    top.add_argument("--users", default="50", help=f"concurrent users, 1 to {plan.MAX_USERS} (default: 50)")
    top.add_argument("--time", default="60s", help=f"60s or 2m, up to {plan.MAX_SECONDS} s (default: 60s)")
    top.add_argument("--url", default="http://127.0.0.1:5000", help="the gateway, on this machine's loopback only")
    top.add_argument("--think", default=plan.THINK, help="pause between operations in seconds (default: 3-7)")
    top.add_argument("--p95", type=float, default=P95_LIMIT_MS, help="limit in ms (default: 2000)")
    top.add_argument("--record", action="store_true", help="keep the figures as JSON in loadtest/results/")
    return top


if __name__ == "__main__":
    sys.exit(main())
