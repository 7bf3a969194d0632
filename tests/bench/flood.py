"""`make bench-flood`: a verifier's process under 2,000 tokens of random keys a second, and what good callers feel.

Three kinds of windows take turns: nothing but the good calls, a flood of good tokens, and the same flood with a random
`kid` in each. The two floods cost the server the same requests, so what differs is what an unknown key costs.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import secrets
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.bench.figures import finish, percentile
from tests.kit.http1 import read_message
from tests.kit.keys import Keys
from tests.kit.servicepod import ServicePod, service_pod

RATE = 2000
LANES = 16
GOOD_PER_S = 100
WINDOW_S = 4.0
ADMITTED, REFUSED = 405, 401


class Wire:
    """One kept connection to the service's port."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def to(cls, pod: ServicePod) -> Wire:
        """Connect."""
        return cls(*await asyncio.open_connection(pod.public.base_url.host, pod.public.base_url.port))

    async def status(self, service: str, user: str) -> int:
        """Send one request with these tokens and return the answer's status."""
        lines = ("GET /mcp HTTP/1.1", "Host: x", f"X-Service-Token: {service}", f"Authorization: Bearer {user}", "", "")
        self._writer.write("\r\n".join(lines).encode())
        answer = await read_message(self._reader)
        assert answer is not None, "the service closed the connection"
        return int(answer.start.split()[1])

    def close(self) -> None:
        """Disconnect."""
        self._writer.close()


async def lane(pod: ServicePod, token: Callable[[], str], user: str, until: float, seen: Counter[int]) -> None:
    """Send its share of the flood, on time: who is late sends at once, and never more than was due."""
    wire = await Wire.to(pod)
    due = time.monotonic()
    while (now := time.monotonic()) < until:
        if now < due:
            await asyncio.sleep(due - now)
        due += LANES / RATE
        seen[await wire.status(token(), user)] += 1
    wire.close()


async def good_calls(pod: ServicePod, token: str, user: str, until: float) -> list[float]:
    """Return the milliseconds that calls with good tokens took, at their own steady rate."""
    wire, took = await Wire.to(pod), []
    due = time.monotonic()
    while (now := time.monotonic()) < until:
        if now < due:
            await asyncio.sleep(due - now)
        due = max(due + 1 / GOOD_PER_S, time.monotonic() - 1)
        began = time.perf_counter()
        status = await wire.status(token, user)
        took.append((time.perf_counter() - began) * 1000)
        assert status == ADMITTED, f"a good token got {status}"
    wire.close()
    return took


def flooding(url_port: str, kind: str, seconds: str, token: str, user: str) -> None:
    """The flood's own process: its work must not slow the clock of the good calls. Prints what it got."""
    head, rest = token.split(".", 1)
    header = json.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))

    def random_kid() -> str:
        forged = json.dumps(header | {"kid": f"svc-{secrets.token_urlsafe(32)}"}).encode()
        return f"{base64.urlsafe_b64encode(forged).rstrip(b'=').decode()}.{rest}"

    class There:
        class public:  # noqa: N801 - only the address of a pod
            class base_url:  # noqa: N801
                host, port = "127.0.0.1", int(url_port)

    async def run() -> None:
        seen: Counter[int] = Counter()
        until = time.monotonic() + float(seconds)
        make = random_kid if kind == "unknown" else lambda: token
        await asyncio.gather(*(lane(There, make, user, until, seen) for _ in range(LANES)))  # type: ignore[arg-type]
        print(json.dumps(seen))

    asyncio.run(run())


async def window(pod: ServicePod, kind: str, keys: Keys, seen: Counter[str]) -> list[float]:
    """Return the times of the good calls of one window."""
    token, user = keys.service_token("gateway"), keys.user_token()
    flood, before = None, pod.cpu_s()
    if kind != "quiet":
        words = [str(pod.public.base_url.port), kind, str(WINDOW_S + 0.6), token, user]
        flood = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.bench.flood", "--flooding", *words, stdout=asyncio.subprocess.PIPE
        )
        await asyncio.sleep(1.0)  # until it has started
    times = await good_calls(pod, token, user, time.monotonic() + (WINDOW_S if flood is None else WINDOW_S - 0.6))
    if flood is not None:
        out, _ = await flood.communicate()
        for status, count in json.loads(out).items():
            seen[f"{kind} {status}"] += count
            seen[f"{kind} requests"] += count
        seen[f"{kind} requests"] += len(times)
        seen[f"{kind} cpu_us"] += round((pod.cpu_s() - before) * 1e6)
    return times


async def measure(rounds: int) -> dict[str, float]:
    """Return the figures."""
    keys, times, seen = Keys(), {"quiet": [], "known": [], "unknown": []}, Counter()  # type: ignore[var-annotated]
    with tempfile.TemporaryDirectory() as folder:
        async with service_pod("mcp-server", folder=Path(folder), keys=keys) as pod:
            for kind in times:  # pools and buffers find their size
                await window(pod, kind, keys, seen)
            seen.clear()
            await pod.series()
            memory, series = pod.resident_bytes(), await pod.series()
            outbound, asked = pod.outbound(), len(pod.auth.asked)
            for _ in range(rounds):
                for kind in times:
                    times[kind] += await window(pod, kind, keys, seen)
            figures: dict[str, float] = {
                "rounds": rounds,
                "unknown_refused": seen[f"unknown {REFUSED}"],
                "unknown_otherwise": seen["unknown requests"] - len(times["unknown"]) - seen[f"unknown {REFUSED}"],
                "server_cpu_us_unknown": round(seen["unknown cpu_us"] / seen["unknown requests"]),
                "server_cpu_us_known": round(seen["known cpu_us"] / seen["known requests"]),
                "unknown_per_s": round(seen[f"unknown {REFUSED}"] / (rounds * (WINDOW_S + 0.6))),
                "known_per_s": round(seen[f"known {ADMITTED}"] / (rounds * (WINDOW_S + 0.6))),
                "outbound_fetches": pod.outbound() - outbound + len(pod.auth.asked) - asked,
                "memory_growth_mib": round((pod.resident_bytes() - memory) / 2**20, 2),
                "series_growth": await pod.series() - series,
            }
    for kind, values in times.items():
        values.sort()
        figures |= {
            f"good_calls_{kind}": len(values),
            f"good_ms_p50_{kind}": round(percentile(values, 0.5), 3),
            f"good_ms_p99_{kind}": round(percentile(values, 0.99), 3),
        }
    figures["server_cpu_unknown_by_known"] = round(figures["server_cpu_us_unknown"] / figures["server_cpu_us_known"], 3)
    figures["good_p99_unknown_by_known"] = round(figures["good_ms_p99_unknown"] / figures["good_ms_p99_known"], 3)
    figures["good_p99_unknown_by_quiet"] = round(figures["good_ms_p99_unknown"] / figures["good_ms_p99_quiet"], 3)
    return figures


def main() -> None:
    """Entry point. Exit 1 when a figure is outside of its range."""
    if sys.argv[1:2] == ["--flooding"]:
        flooding(*sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description="Flood a verifier with tokens of random keys")
    parser.add_argument("--rounds", type=int, default=6)
    figures = asyncio.run(measure(parser.parse_args().rounds))
    sys.exit(finish("flood", "mcp-server's process, one core for it, the flood from a process beside", figures))


if __name__ == "__main__":
    main()
