"""The pods of an installation, asked one by one: what they hold, and whether they accept a canary.

Their addresses come from a live list, so a pod that was born a moment ago is among them. An answer that does not come
within a second, or is not of the form that a pod of ours gives, is no answer: nothing is taken for proven without one.
Not here: what follows from the answers (`rotation`).
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import aiohttp

from novacore_contracts.services import BY_NAME, INTERNAL_PORT
from novacore_operator.rotation.claims import report_of
from novacore_operator.rotation.seen import PASSED, Pod
from novacore_operator.state import Manifest
from novacore_operator.state.names import LABEL_COMPONENT, LABEL_SERVING

ANSWER_S = 1.0
BODY_BYTES_MAX = 256 * 1024
CODE = re.compile(r"[a-z_]{1,32}")
"""Of a refusal: it goes into conditions, and comes from a pod."""


@dataclass(frozen=True, slots=True)
class Address:
    """A pod of one of the nine services, as the API server lists it. `ip` is empty while it has none."""

    name: str
    uid: str
    service: str
    ip: str
    phase: str
    terminating: bool
    ready: bool
    fenced: bool
    created_at: float


@dataclass(frozen=True, slots=True)
class Answer:
    """What one pod said. Times are Unix seconds."""

    body: Any
    asked_at: float
    answered_at: float


def addresses(bodies: Iterable[Manifest]) -> tuple[Address, ...]:
    """Return the services' pods among the pods of an installation."""
    found = []
    for body in bodies:
        metadata, status = body["metadata"], body.get("status") or {}
        labels = metadata.get("labels") or {}
        service = labels.get(LABEL_COMPONENT, "")
        if service not in BY_NAME:
            continue
        conditions = {item["type"]: item["status"] for item in status.get("conditions") or ()}
        found.append(
            Address(
                name=metadata["name"],
                uid=metadata["uid"],
                service=service,
                ip=status.get("podIP", ""),
                phase=status.get("phase", "Unknown"),
                terminating="deletionTimestamp" in metadata,
                ready=conditions.get("Ready") == "True",
                fenced=labels.get(LABEL_SERVING) == "false",
                created_at=datetime.fromisoformat(metadata["creationTimestamp"]).timestamp(),
            )
        )
    return tuple(found)


def pod_of(address: Address, ring: str, answer: Answer | None) -> Pod:
    """Return what `rotation` decides from: the pod, with its claims about one ring."""
    report = None
    if answer is not None:
        report = report_of(answer.body, ring, asked_at=answer.asked_at, answered_at=answer.answered_at)
    return Pod(
        name=address.name,
        uid=address.uid,
        service=address.service,
        phase=address.phase,
        terminating=address.terminating,
        endpoint=address.ready and not address.fenced,
        fenced=address.fenced,
        created_at=address.created_at,
        report=report,
    )


class Pods:
    """Asks pods. One connection pool for all of them."""

    def __init__(self, port: int = INTERNAL_PORT) -> None:
        self._port = port
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()

    async def claims(self, pods: Iterable[Address]) -> dict[str, Answer]:
        """Return uid -> answer of `/readyz` of those that answered, ready or not."""
        asked = [pod for pod in pods if pod.ip and pod.phase == "Running"]
        answers = await asyncio.gather(*(self._claim(pod.ip) for pod in asked))
        return {pod.uid: answer for pod, answer in zip(asked, answers, strict=True) if answer is not None}

    async def push(self, pods: Iterable[Address], ring: str, compact: bytes) -> None:
        """Send a signed document to pods. Whether it was taken in, their next claim says."""
        await asyncio.gather(
            *(self._send("POST", pod.ip, f"/internal/keyset?ring={ring}", body=compact) for pod in pods if pod.ip)
        )

    async def documents(self, pods: Iterable[Address], ring: str) -> list[bytes]:
        """Return the signed documents that pods hold."""
        answers = await asyncio.gather(
            *(self._send("GET", pod.ip, f"/internal/keyset/document?ring={ring}") for pod in pods if pod.ip)
        )
        return [raw for code, raw in answers if code == 200 and raw]

    async def canary(self, signer: Address, request: str) -> str | None:
        """Return the canary that a signer made, or None."""
        code, raw = await self._send("POST", signer.ip, "/internal/canary", body=_json({"request": request}))
        token = _field(raw, "token")
        return token if code == 200 and token else None

    async def try_canary(self, pods: Iterable[Address], ring: str, token: str) -> dict[str, str]:
        """Return uid -> `PASSED`, or the code of the refusal. A pod that gave no answer is left out."""
        asked = [pod for pod in pods if pod.ip and pod.phase == "Running"]
        body = _json({"ring": ring, "token": token})
        answers = await asyncio.gather(
            *(self._send("POST", pod.ip, "/internal/keyset/canary", body=body) for pod in asked)
        )
        found = {}
        for pod, (code, raw) in zip(asked, answers, strict=True):
            if code:
                said = _field(raw, "code")
                found[pod.uid] = PASSED if code == 200 else said if CODE.fullmatch(said) else f"status {code}"
        return found

    async def _claim(self, ip: str) -> Answer | None:
        asked_at = time.time()
        code, raw = await self._send("GET", ip, "/readyz")
        if code not in (200, 503):
            return None
        try:
            return Answer(json.loads(raw), asked_at, time.time())
        except (ValueError, RecursionError):
            return None

    async def _send(self, method: str, ip: str, path: str, *, body: bytes | None = None) -> tuple[int, bytes]:
        """Return status and body; status 0 when there was no whole answer in time."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=0, keepalive_timeout=5
                ),  # waiting for a slot would count as silence
                timeout=aiohttp.ClientTimeout(total=ANSWER_S),
            )
        host = f"[{ip}]" if ":" in ip else ip
        headers = {"Content-Type": "application/json"} if body is not None else {}
        try:
            async with self._session.request(
                method, f"http://{host}:{self._port}{path}", data=body, headers=headers, allow_redirects=False
            ) as answer:
                raw = await answer.content.read(BODY_BYTES_MAX + 1)
                while not answer.content.at_eof() and len(raw) <= BODY_BYTES_MAX:
                    raw += await answer.content.read(BODY_BYTES_MAX + 1 - len(raw))
                return (answer.status, raw) if len(raw) <= BODY_BYTES_MAX else (0, b"")
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
            return 0, b""


def _json(value: Mapping[str, str]) -> bytes:
    return json.dumps(value).encode()


def _field(raw: bytes, name: str) -> str:
    try:
        value = json.loads(raw)[name]
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""
    return value if isinstance(value, str) else ""
