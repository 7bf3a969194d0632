"""The gateway's HTTP interface as the demo needs it: JSON calls, server-sent events, and patience while it comes up.

Retried until the deadline: refused and reset connections (Docker's port proxy accepts before an endpoint exists), and
502, 503 and 429 with their Retry-After. A chat carries an Idempotency-Key, so that sending it again cannot bill twice.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from hack.demo.terminal import EXIT_USAGE, Deadline, DemoError, pause

READ_TIMEOUT_S = 130.0
"""A little over the gateway's own deadline for an answer (120 s)."""
RETRIED = frozenset({429, 502, 503})
_TROUBLE = (OSError, http.client.HTTPException)

Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """Status and JSON body of one call."""

    status: int
    body: Body
    retry_after_s: float | None = None

    @property
    def code(self) -> str:
        """The machine word of a problem document, or an empty string."""
        return str(self.body.get("code", ""))

    @property
    def detail(self) -> str:
        """The sentence of a problem document."""
        return str(self.body.get("detail") or self.body.get("error") or f"HTTP {self.status}")


class Stream:
    """An open stream of server-sent events."""

    def __init__(self, connection: http.client.HTTPConnection, response: http.client.HTTPResponse) -> None:
        self._connection = connection
        self._response = response

    def events(self) -> Iterator[Body]:
        """Yield the JSON of each event as it arrives; DemoError when the connection breaks."""
        try:
            yield from events(self._response)
        except _TROUBLE as error:
            raise DemoError(f"the stream broke: {error or type(error).__name__}") from error
        finally:
            self._connection.close()


class Gateway:
    """One gateway by URL."""

    def __init__(self, url: str, deadline: Deadline) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise DemoError(f"{url!r} is no URL: give one like http://127.0.0.1:5000", exit_code=EXIT_USAGE)
        self.url = url.rstrip("/")
        self._secure = parts.scheme == "https"
        self._host = parts.hostname
        self._port = parts.port
        self._prefix = parts.path.rstrip("/")
        self._deadline = deadline

    @property
    def address(self) -> str:
        """Host and port, as a file name may carry them."""
        return f"{self._host}-{self._port or (443 if self._secure else 80)}"

    def wait_until_up(self) -> None:
        """Return when GET /health answers 200."""
        answer = self.call("GET", "/health", retry_any=True)
        if answer.status != 200:
            raise DemoError(f"the gateway at {self.url} answers HTTP {answer.status}: see `make status`")

    def call(
        self,
        method: str,
        path: str,
        body: Body | None = None,
        *,
        headers: dict[str, str] | None = None,
        retry_any: bool = False,
    ) -> Answer:
        """Return the answer of one JSON call; what is worth retrying is retried until the deadline."""
        while True:
            connection, response = self._send(method, path, body, headers or {})
            try:
                raw = response.read()
            except _TROUBLE as error:
                raise DemoError(f"{method} {path}: the answer broke off: {error or type(error).__name__}") from error
            finally:
                connection.close()
            answer = Answer(response.status, decode(raw), retry_after(response.getheader("Retry-After")))
            again = answer.status in RETRIED and answer.code != "quota_exceeded"
            if not (again or (retry_any and answer.status != 200)) or not self._may_wait(answer.retry_after_s):
                return answer

    def stream(self, path: str, body: Body, *, headers: dict[str, str]) -> Stream | Answer:
        """Return the open stream, or the answer that refused it."""
        while True:
            connection, response = self._send("POST", path, body, {**headers, "Accept": "text/event-stream"})
            if response.status == 200:
                return Stream(connection, response)
            answer = Answer(response.status, decode(response.read()), retry_after(response.getheader("Retry-After")))
            connection.close()
            again = answer.status in RETRIED and answer.code != "quota_exceeded"
            if not again or not self._may_wait(answer.retry_after_s):
                return answer

    def _send(
        self, method: str, path: str, body: Body | None, headers: dict[str, str]
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        payload = None if body is None else json.dumps(body).encode()
        kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        while True:
            connection = kind(self._host, self._port, timeout=READ_TIMEOUT_S)
            try:
                connection.request(
                    method, self._prefix + path, payload, {"Content-Type": "application/json", **headers}
                )
                return connection, connection.getresponse()
            except _TROUBLE as error:
                connection.close()
                if not self._may_wait(None):
                    raise DemoError(
                        f"no answer at {self.url} within {self._deadline.seconds:.0f} s"
                        f" ({error or type(error).__name__}): is the platform up? see `make status`"
                    ) from error

    def _may_wait(self, wanted_s: float | None) -> bool:
        """Pause before the next try; False when the deadline does not allow it."""
        wait_s = 1.0 if wanted_s is None else wanted_s
        if wait_s >= self._deadline.left_s:
            return False
        pause(wait_s)
        return True


def events(lines: Iterable[bytes]) -> Iterator[Body]:
    """Yield the JSON object of each event of a stream of lines (WHATWG HTML, server-sent events).

    Several `data:` lines of one event are joined; comments and other fields are skipped.
    """
    data: list[str] = []
    for raw in lines:
        line = raw.decode("utf-8", "replace").rstrip("\r\n")
        if line.startswith("data:"):
            data.append(line[5:].removeprefix(" "))
        elif not line and data:
            yield decode("\n".join(data).encode())
            data = []
    if data:
        yield decode("\n".join(data).encode())


def decode(raw: bytes) -> Body:
    """Return a JSON object, or an empty one: a proxy's HTML page is no answer of ours."""
    try:
        body = json.loads(raw)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def retry_after(header: str | None) -> float | None:
    """Return the seconds of a Retry-After header; None when there is none or it is a date."""
    return float(header) if header and header.isdigit() else None
