"""A user of the platform under locust: registers, logs in, then works in the weights of the plan.

Every answer is read and judged: a 200 with an empty reply is an error here.
"""

from __future__ import annotations

import random
import secrets
from typing import Any

from locust import between, task
from locust.contrib.fasthttp import FastHttpUser
from locust.exception import StopUser

from loadtest import plan


class PlatformUser(FastHttpUser):
    """One registered user with a token."""

    wait_time = between(*plan.think_s(plan.THINK))
    connection_timeout = 10.0
    network_timeout = 30.0
    concurrency = 1  # one connection per user, as in life

    def on_start(self) -> None:
        """Register and log in; a user who cannot is counted as errors and leaves."""
        self.random = random.Random(secrets.randbits(64))
        account = {"email": f"load-{secrets.token_hex(10)}@example.test", "password": secrets.token_urlsafe(24)}
        registered = self.send(plan.REGISTER, {}, expect=201, field="access_token", body=account)
        if registered is None:
            raise StopUser
        entered = self.send(plan.LOGIN, {}, expect=200, field="access_token", body=account)
        if entered is None:
            raise StopUser
        self.headers = {"Authorization": f"Bearer {entered['access_token']}"}

    @task(plan.CHAT.weight)
    def chat(self) -> None:
        """Ask a question; the reply must have text."""
        question = self.random.choice(plan.QUESTIONS)
        self.send(
            plan.CHAT, self.headers, field="response", body={"message": question, "max_tokens": plan.CHAT_MAX_TOKENS}
        )

    @task(plan.MEMORY_LIST.weight)
    def memory_list(self) -> None:
        """List memories."""
        self.send(plan.MEMORY_LIST, self.headers, field="memories", may_be_empty=True)

    @task(plan.MEMORY_SEARCH.weight)
    def memory_search(self) -> None:
        """Search memories."""
        query = self.random.choice(plan.SEARCHES)
        self.send(plan.MEMORY_SEARCH, self.headers, field="results", may_be_empty=True, body={"query": query})

    @task(plan.PROGRESS.weight)
    def progress(self) -> None:
        """Read the learning progress."""
        self.send(plan.PROGRESS, self.headers)

    @task(plan.QUOTA.weight)
    def quota(self) -> None:
        """Read the quota."""
        self.send(plan.QUOTA, self.headers, field="tokens")

    @task(plan.HEALTH.weight)
    def health(self) -> None:
        """Read the gateway's health."""
        self.send(plan.HEALTH, {}, field="status")

    def send(
        self,
        operation: plan.Operation,
        headers: dict[str, str],
        *,
        expect: int = 200,
        field: str | None = None,
        may_be_empty: bool = False,
        body: dict[str, Any] | None = None,
    ) -> dict[str, Any] | None:
        """Send one call and return its JSON, or None when it counts as failed."""
        with self.client.request(
            operation.method, operation.path, name=operation.name, json=body, headers=headers, catch_response=True
        ) as answer:
            if answer.status_code != expect:
                answer.failure(f"HTTP {answer.status_code} {_code(answer)}".rstrip())
                return None
            found = answer.json()
            if not isinstance(found, dict) or (field and field not in found):
                answer.failure(f"the answer has no field {field}")
                return None
            if field and not may_be_empty and not found[field]:
                answer.failure(f"field {field} is empty")
                return None
            answer.success()
            return found


def _code(answer: Any) -> str:
    """Return the machine word of a problem document, for the table of errors."""
    try:
        body = answer.json()
    except ValueError:
        return ""
    return str(body.get("code", "")) if isinstance(body, dict) else ""
