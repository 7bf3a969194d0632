"""A killed pod loses no acknowledged message (part 10), and the next one goes on."""

from __future__ import annotations

import threading
import time
from typing import Any

import httpx

from tests.cluster.client import PlatformUser, frames
from tests.cluster.conftest import ready
from tests.cluster.kube import Kube, until

ENDED = {"done", "interrupted", "failed", "cancelled"}


def test_a_pod_kill_loses_no_acknowledged_message(kube: Kube, user: PlatformUser, platform: str) -> None:
    question = "Write a long story about the sea."
    acknowledged: dict[str, Any] = {}
    seen: list[str] = []
    started = threading.Event()

    def ask() -> None:
        body = {"message": question, "max_tokens": 600}
        try:
            with user.http.stream("POST", "/api/chat/stream", json=body, headers=user.headers) as answer:
                for frame in frames(answer.iter_lines()):
                    acknowledged.update({k: frame[k] for k in ("run_id", "session_id") if k in frame})
                    acknowledged.setdefault("run_id", answer.headers.get("X-Run-Id"))
                    if frame.get("content"):
                        seen.append(frame["content"])
                        if len(seen) >= 5:
                            started.set()
        except httpx.HTTPError:
            pass  # the socket dies with the pod: what counts is the run
        finally:
            started.set()

    asking = threading.Thread(target=ask)
    asking.start()
    assert started.wait(60), "no token came"
    assert acknowledged.get("run_id"), "the stream names its run"
    kube.run(
        "delete", "pod", "-n", platform, "-l", "app.kubernetes.io/component=intelligence", "--grace-period=0", "--force"
    )
    killed = time.monotonic()
    asking.join(60)

    def ended() -> dict[str, Any] | None:
        answer = user.get(f"/api/chat/runs/{acknowledged['run_id']}")
        return answer.json() if answer.status_code == 200 and answer.json()["status"] in ENDED else None

    run = until(ended, within_s=90, what=f"run {acknowledged['run_id']} ended", report=lambda: kube.report(platform))
    assert run["status"] in ("interrupted", "done")
    assert time.monotonic() - killed < 90

    def kept() -> dict[str, Any] | None:
        rows = user.get(f"/api/chat/history/{run['session_id']}")
        found = [row for row in rows.json() if row["input_text"] == question] if rows.status_code == 200 else []
        return found[0] if found else None

    until(kept, within_s=60, what="the acknowledged message is in the session's history")

    def billed() -> bool:
        return bool(user.get("/api/usage/quota").json()["tokens"]["used"] > 0)

    until(billed, within_s=60, what="the tokens produced before the kill are billed")
    ready(kube, within_s=120)
    again = until(
        lambda: _ok(user.post("/api/chat/message", {"message": "Hello again.", "max_tokens": 8})),
        within_s=60,
        what="the next chat is answered",
    )
    assert again["status"] == "done"


def _ok(answer: httpx.Response) -> dict[str, Any] | None:
    return answer.json() if answer.status_code == 200 else None
