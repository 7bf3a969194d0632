"""The audit log of a control plane: who asked what, and what came of it. A witness that the product cannot talk to."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

WRITE_VERBS = frozenset({"create", "update", "patch", "delete", "deletecollection"})


@dataclass(frozen=True, slots=True)
class Request:
    """One request to a resource. `code` is 0 while a watch is open."""

    user: str
    verb: str
    group: str
    resource: str  # with the subresource: `novacoredeployments/status`
    namespace: str
    name: str
    code: int
    at: str  # when it was received, RFC 3339 with microseconds
    agent: str = ""
    uri: str = ""
    until: str = ""  # when it was answered

    @property
    def is_write(self) -> bool:
        """Whether it asks for a change of anything but a Lease."""
        return self.verb in WRITE_VERBS and self.resource != "leases" and not self.dry_run

    @property
    def dry_run(self) -> bool:
        """Whether it is tried only. Of a delete the body says so, which the log does not have."""
        return "dryRun=All" in self.uri

    @property
    def manager(self) -> str:
        """The field manager of a write."""
        return (parse_qs(urlsplit(self.uri).query).get("fieldManager") or [""])[0]

    def __str__(self) -> str:
        """As a person would say it."""
        return f"{self.verb} {self.resource} {self.namespace}/{self.name}: {self.code}"


def seconds(stamp: str) -> float:
    """Return one of the log's times in seconds."""
    return datetime.fromisoformat(stamp).timestamp()


class AuditLog:
    """Reads the file that the API server appends to."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def position(self) -> int:
        """Return where the log ends now."""
        return self.path.stat().st_size if self.path.exists() else 0

    def requests(self, *, user: str, since: int = 0) -> Iterator[Request]:
        """Yield the requests of a user that were answered after a position; of a watch, its begin."""
        with self.path.open("rb") as file:
            file.seek(since)
            for line in file:
                if not line.endswith(b"\n"):
                    return  # still being written
                entry = json.loads(line)
                if entry["user"]["username"] == user and "objectRef" in entry and not _is_end_of_watch(entry):
                    yield _request(entry)

    def writes(self, *, user: str, since: int = 0) -> list[Request]:
        """Return the writes of a user after a position, Leases apart."""
        return [request for request in self.requests(user=user, since=since) if request.is_write]


class Tail:
    """Follows an audit log from where it ends now, and keeps each user's requests until somebody takes them.

    May be used from several threads.
    """

    def __init__(self, log: AuditLog, *users: str) -> None:
        self._log = log
        self._users = frozenset(users)
        self._at = log.position()
        self._rest = b""
        self._kept: dict[tuple[str, str], list[Request]] = {}
        self._lock = threading.Lock()

    def take(self, user: str, namespace: str) -> list[Request]:
        """Return what a user asked for in a namespace since it was last taken."""
        with self._lock:
            self._read()
            return self._kept.pop((user, namespace), [])

    def _read(self) -> None:
        with self._log.path.open("rb") as file:
            file.seek(self._at)
            text = file.read()
        self._at += len(text)
        *lines, self._rest = (self._rest + text).split(b"\n")
        for line in lines:
            entry = json.loads(line)
            user = entry["user"]["username"]
            if user in self._users and "objectRef" in entry and not _is_end_of_watch(entry):
                request = _request(entry)
                self._kept.setdefault((user, request.namespace), []).append(request)


def _is_end_of_watch(entry: dict[str, Any]) -> bool:
    return bool(entry["verb"] == "watch" and entry["stage"] == "ResponseComplete")


def _request(entry: dict[str, Any]) -> Request:
    ref = entry["objectRef"]
    subresource = f"/{ref['subresource']}" if "subresource" in ref else ""
    return Request(
        user=entry["user"]["username"],
        verb=entry["verb"],
        group=ref.get("apiGroup", ""),
        resource=ref["resource"] + subresource,
        namespace=ref.get("namespace", ""),
        name=ref.get("name", ""),
        code=int(entry.get("responseStatus", {}).get("code", 0)),
        at=entry["requestReceivedTimestamp"],
        agent=entry.get("userAgent", ""),
        uri=entry.get("requestURI", ""),
        until=entry["stageTimestamp"],
    )
