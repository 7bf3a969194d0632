"""A user of the platform, over real HTTP through the published port of the gateway."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx


@dataclass(frozen=True, slots=True)
class StreamedAnswer:
    """What came over the stream: the text, the final frame, and the id of the run."""

    text: str
    last: dict[str, Any]
    run_id: str


class PlatformUser:
    """One registered user with a token."""

    def __init__(self, url: str) -> None:
        # Docker's port proxy resets a connection now and then right after a roll-out: connect errors alone are retried.
        self.http = httpx.Client(base_url=url, timeout=120, transport=httpx.HTTPTransport(retries=5))
        self.email = f"user-{uuid.uuid4().hex[:12]}@example.test"
        self.password = uuid.uuid4().hex
        self.headers: dict[str, str] = {}

    def register(self) -> httpx.Response:
        """Register and keep the token."""
        answer = self.http.post("/api/auth/register", json={"email": self.email, "password": self.password})
        if answer.status_code == 201:
            self.headers = {"Authorization": f"Bearer {answer.json()['access_token']}"}
        return answer

    def login(self) -> httpx.Response:
        """Log in and keep the token."""
        answer = self.http.post("/api/auth/login", json={"email": self.email, "password": self.password})
        if answer.status_code == 200:
            self.headers = {"Authorization": f"Bearer {answer.json()['access_token']}"}
        return answer

    def get(self, path: str, **kwargs: Any) -> httpx.Response:
        """GET as this user."""
        return self.http.get(path, headers=self.headers, **kwargs)

    def post(self, path: str, body: dict[str, Any], **headers: str) -> httpx.Response:
        """POST JSON as this user."""
        return self.http.post(path, json=body, headers={**self.headers, **headers})

    def stream(self, message: str, **headers: str) -> StreamedAnswer:
        """Ask through `/api/chat/stream` and read to the end."""
        text, last, run_id = "", {}, ""
        with self.http.stream(
            "POST",
            "/api/chat/stream",
            json={"message": message, "max_tokens": 60},
            headers={**self.headers, **headers},
        ) as answer:
            assert answer.status_code == 200, answer.read()
            run_id = answer.headers.get("X-Run-Id", "")
            for frame in frames(answer.iter_lines()):
                text += frame.get("content", "")
                last = frame
        return StreamedAnswer(text, last, run_id)


def frames(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    """Yield the JSON of each `data:` line of a server-sent event stream."""
    for line in lines:
        if line.startswith("data:"):
            yield json.loads(line[5:])
