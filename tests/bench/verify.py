"""`make bench-verify`: what a verification costs, beside PyJWT's bare decode in the same run, and a hit of the cache.

The kinds alternate token by token, so that a machine that is slow for a while is slow for all of them. Times are of
this process's own CPU (`thread_time_ns`): what others do on the machine at the same time is not the verifier's cost.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jwt

from novacore.common import log
from novacore.common.clock import SystemClock
from novacore.common.keyring import KeyRings, TokenError
from novacore.common.metrics import Metrics
from novacore_contracts.identity import ISSUER, SERVICE_AUDIENCE
from novacore_contracts.paths import Paths
from tests.bench.figures import finish, percentile
from tests.kit.keys import Keys, SigningKey, legacy_entry, legacy_jwk, put, sign_legacy

SECRET = b"0123456789abcdef" * 2
PER_HIT = 20
"""Hits are timed in twenties: the clock itself costs as much as one."""


def rings_of(keys: Keys, folder: Path) -> KeyRings:
    """Return rings with an active key, a standby and a shared secret that retires."""
    paths = Paths(folder)
    active, standby = keys.document("serviceJwt").keys
    entries = (active, standby, legacy_entry("retiring", n=3))
    keys.mount(paths, keys.document("serviceJwt", seq=3, keys=entries), keys.document("userJwt"))
    put(paths.service_jwt_legacy / "legacy.jwk", legacy_jwk(SECRET))
    rings = KeyRings(paths, SystemClock(), Metrics("memory"))
    rings.poll()
    return rings


def timed(call: Callable[[], object]) -> float:
    """Return the microseconds of CPU that a call took."""
    began = time.thread_time_ns()
    call()
    return (time.thread_time_ns() - began) / 1000


def bare(keys: Keys) -> Callable[[str], object]:
    """Return PyJWT's decode with the one key, as its documentation shows it."""
    public = keys.active["serviceJwt"].private.public_key()
    return lambda token: jwt.decode(token, public, algorithms=["ES256"], issuer=ISSUER, audience=SERVICE_AUDIENCE)


def refused(rings: KeyRings, token: str) -> None:
    """Verify a token that must be refused."""
    try:
        rings.verify("serviceJwt", token)
    except TokenError:
        return
    raise AssertionError("a token of an unknown key was accepted")


def measure(tokens: int) -> dict[str, float]:
    """Return the figures of that many tokens of each kind."""
    keys, stranger = Keys(), SigningKey("svc-")
    with tempfile.TemporaryDirectory() as folder:
        rings = rings_of(keys, Path(folder))
        times: dict[str, list[float]] = {name: [] for name in ("decode", "es256", "hs256_legacy", "unknown_kid", "hit")}
        decode = bare(keys)
        for number in range(tokens):
            token = keys.service_token("intelligence", jti=str(number))
            old = sign_legacy(keys, SECRET, "intelligence")
            forged = keys.service_token("intelligence", key=stranger)
            if number % 2:  # the first of the two warms the processor's caches for the second
                times["decode"].append(timed(lambda token=token: decode(token)))
            times["es256"].append(timed(lambda token=token: rings.verify("serviceJwt", token)))
            if not number % 2:
                times["decode"].append(timed(lambda token=token: decode(token)))
            times["hs256_legacy"].append(timed(lambda old=old: rings.verify("serviceJwt", old)))
            times["unknown_kid"].append(timed(lambda forged=forged: refused(rings, forged)))
            verify = rings.verify
            times["hit"].append(
                timed(lambda token=token, verify=verify: [verify("serviceJwt", token) for _ in range(PER_HIT)])
                / PER_HIT
            )
    figures: dict[str, float] = {"tokens": tokens}
    for name, values in times.items():
        values.sort()
        figures[f"{name}_us_p50"] = round(percentile(values, 0.5), 2)
        figures[f"{name}_us_p99"] = round(percentile(values, 0.99), 2)
    figures["es256_by_decode_p50"] = round(figures["es256_us_p50"] / figures["decode_us_p50"], 3)
    return figures


def main() -> None:
    """Entry point. Exit 1 when a figure is outside of its range."""
    parser = argparse.ArgumentParser(description="Measure what a verification costs")
    parser.add_argument("--tokens", type=int, default=20_000)
    given = parser.parse_args()
    log.configure(service="bench", version="", level="error", key=b"0" * 32, on_line=lambda _level: None)
    figures = measure(given.tokens)
    sys.exit(finish("verify", "KeyRings.verify of service tokens with five permissions", figures))


if __name__ == "__main__":
    main()
