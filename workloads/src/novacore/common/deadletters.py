"""Dead letters: messages given up after their last attempt, waiting for a person.

Seen and replayed through the service's own Redis user, so it runs inside a pod:
`kubectl exec deploy/novacore-reflection-worker -- novacore dead-letters list`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from novacore.common.clock import SystemClock
from novacore.common.keyring import KeyRings
from novacore.common.metrics import Metrics
from novacore.common.redis import Redis, build_redis
from novacore.common.settings import CommonSettings, read_settings
from novacore.common.streams import Envelope, dead_letters_of, parse_dead_letter
from novacore_contracts.paths import Paths
from novacore_contracts.services import SCHEMAS

STREAMS: tuple[str, ...] = ("stream:reflection", *(f"stream:outbox:{schema}" for schema in SCHEMAS))
LIST_MAX = 100


class NoSuchLetterError(Exception):
    """There is no dead letter with this id in this stream."""


class _AnySettings(CommonSettings, extra="ignore"):
    """The common keys of whichever service's pod this runs in."""


def client(paths: Paths) -> Redis:
    """Return a Redis client with the credentials mounted in this pod."""
    settings = read_settings(_AnySettings, paths_=paths, env={})
    metrics = Metrics("reflection-worker")
    keyrings = KeyRings(paths, SystemClock(), metrics)
    keyrings.load()
    return build_redis(paths=paths, keyrings=keyrings, settings=settings, metrics=metrics, blocking=True)


async def listing(redis: Redis, streams: tuple[str, ...] = STREAMS) -> list[dict[str, Any]]:
    """Return a row for each dead letter: ids, type, error; no payload."""
    rows: list[dict[str, Any]] = []
    for stream in streams:
        entries: Any = await redis.xrange(dead_letters_of(stream), count=LIST_MAX)
        rows += [{"stream": stream, "letter": entry[0], **parse_dead_letter(entry[1])} for entry in entries]
    return rows


async def show(redis: Redis, stream: str, letter: str) -> dict[str, Any]:
    """Return one dead letter with the keys of its payload (values stay out: they are people's words)."""
    return {"stream": stream, "letter": letter, **parse_dead_letter(await _fields(redis, stream, letter))}


async def replay(redis: Redis, stream: str, letter: str) -> None:
    """Put a dead letter back into its stream as a first attempt."""
    fields = await _fields(redis, stream, letter)
    envelope = Envelope.model_validate_json(fields["e"]).model_copy(update={"attempt": 1})
    async with redis.pipeline(transaction=True) as pipe:
        pipe.xadd(stream, {"e": envelope.model_dump_json()})
        pipe.xdel(dead_letters_of(stream), letter)
        await pipe.execute()


async def drop(redis: Redis, stream: str, letter: str) -> None:
    """Delete a dead letter for good."""
    if not await redis.xdel(dead_letters_of(stream), letter):
        raise NoSuchLetterError(f"{letter} is not in {dead_letters_of(stream)}")


async def run(paths: Paths, action: str, arguments: list[str], write: Callable[[str], None]) -> None:
    """Carry out one command and write its outcome as JSON lines."""
    redis = client(paths)
    try:
        if action == "list":
            for row in await listing(redis):
                write(json.dumps(row, ensure_ascii=False))
            return
        stream, letter = arguments
        if action == "show":
            write(json.dumps(await show(redis, stream, letter), indent=2, ensure_ascii=False))
        elif action == "replay":
            await replay(redis, stream, letter)
            write(f"{letter}: put back into {stream}")
        else:
            await drop(redis, stream, letter)
            write(f"{letter}: deleted")
    finally:
        await redis.aclose()


async def _fields(redis: Redis, stream: str, letter: str) -> dict[str, str]:
    found: Any = await redis.xrange(dead_letters_of(stream), min=letter, max=letter)
    if not found:
        raise NoSuchLetterError(f"{letter} is not in {dead_letters_of(stream)}")
    fields: dict[str, str] = found[0][1]
    return fields
