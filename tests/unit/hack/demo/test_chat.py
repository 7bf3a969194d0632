"""The demo chat against a scripted HTTP server of this test: what it sends, prints and does when it is refused."""

from __future__ import annotations

import http.server
import json
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hack.demo.chat import chat
from hack.demo.terminal import DemoError

SESSION = {"access_token": "token", "accessToken": "token"}
DONE = {"content": "", "done": True, "tokens_used": 12, "run_id": "r1", "session_id": "s1", "status": "done"}


class Script(http.server.ThreadingHTTPServer):
    """Answers per path, in order; the last one is repeated. Keeps what it was sent."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen: list[tuple[str, dict[str, str], Any]] = []
        self.answers: dict[str, list[tuple[int, Any]]] = {
            "/health": [(200, {"status": "ok"})],
            "/api/auth/register": [(201, SESSION)],
            "/api/auth/login": [(200, SESSION)],
            "/api/usage/quota": [(200, quota(12 * call)) for call in range(20)],
            "/api/chat/stream": [(200, [{"content": "Hel", "done": False}, {"content": "lo", "done": False}, DONE])],
        }

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def paths(self) -> list[str]:
        return [path for path, _, _ in self.seen]

    def sent(self, path: str) -> list[tuple[dict[str, str], Any]]:
        return [(headers, body) for sent, headers, body in self.seen if sent == path]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Script

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.seen.append((self.path, dict(self.headers), json.loads(raw) if raw else None))
        answers = self.server.answers[self.path]
        status, body = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(body, list):
            payload = "".join(f"data: {json.dumps(event)}\n\n" for event in body).encode()
        else:
            payload = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    do_GET = do_POST  # noqa: N815 # the name is the standard library's

    def log_message(self, *args: object) -> None:
        """Say nothing."""


def quota(used: int, limit: int = 1000) -> dict[str, Any]:
    return {"tier": "free_trial", "tokens": {"used": used, "limit": limit, "percentage": 0, "resets_at": "…"}}


@pytest.fixture
def server() -> Iterator[Script]:
    made = Script()
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


def test_registers_logs_in_asks_and_prints_answer_tokens_and_quota(
    server: Script, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reply = chat(server.url, "Hi?", wait_s=5, state=tmp_path)
    out = capsys.readouterr().out
    assert reply.text == "Hello"
    assert "novacore  Hello" in out
    assert "12 · first after" in out
    assert "988 of 1 000 left today" in out
    assert server.paths()[:3] == ["/health", "/api/auth/register", "/api/auth/login"]
    headers, body = server.sent("/api/chat/stream")[0]
    assert headers["Authorization"] == "Bearer token"
    assert body == {"message": "Hi?"}


def test_the_id_it_sends_is_the_id_it_shows(server: Script, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chat(server.url, "Hi?", verbose=True, wait_s=5, state=tmp_path)
    request_id = server.sent("/api/chat/stream")[0][0]["X-Request-ID"]
    assert f"make logs ID={request_id}" in capsys.readouterr().out


def test_the_account_is_kept_private_and_used_again(server: Script, tmp_path: Path) -> None:
    chat(server.url, "Hi?", wait_s=5, state=tmp_path)
    chat(server.url, "Hi?", wait_s=5, state=tmp_path)
    assert len(server.sent("/api/auth/register")) == 1
    (kept,) = tmp_path.iterdir()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600


def test_an_account_the_platform_does_not_know_is_replaced(server: Script, tmp_path: Path) -> None:
    chat(server.url, "Hi?", wait_s=5, state=tmp_path)
    server.answers["/api/auth/login"] = [(401, {"code": "invalid_credentials"}), (200, SESSION)]
    chat(server.url, "Hi?", wait_s=5, state=tmp_path)
    emails = {body["email"] for _, body in server.sent("/api/auth/register")}
    assert len(emails) == 2


def test_a_used_up_quota_goes_on_as_a_new_user(server: Script, tmp_path: Path) -> None:
    good = server.answers["/api/chat/stream"][0]
    server.answers["/api/chat/stream"] = [(429, {"code": "quota_exceeded", "detail": "used up"}), good]
    assert chat(server.url, "Hi?", wait_s=5, state=tmp_path).text == "Hello"
    assert len(server.sent("/api/auth/register")) == 2


def test_a_gateway_that_comes_up_late_is_waited_for(server: Script, tmp_path: Path) -> None:
    server.answers["/health"] = [(503, {"code": "not_ready"}), (404, {}), (200, {"status": "ok"})]
    assert chat(server.url, "Hi?", wait_s=10, state=tmp_path).text == "Hello"


def test_a_question_is_sent_again_under_the_same_key(server: Script, tmp_path: Path) -> None:
    good = server.answers["/api/chat/stream"][0]
    server.answers["/api/chat/stream"] = [(503, {"code": "upstream_down"}), good]
    chat(server.url, "Hi?", wait_s=10, state=tmp_path)
    keys = {headers["Idempotency-Key"] for headers, _ in server.sent("/api/chat/stream")}
    assert len(server.sent("/api/chat/stream")) == 2
    assert len(keys) == 1


def test_a_refusal_is_one_sentence_with_its_code(server: Script, tmp_path: Path) -> None:
    server.answers["/api/chat/stream"] = [(422, {"code": "policy_blocked", "detail": "The question is blocked."})]
    with pytest.raises(DemoError, match=r"The question is blocked\. \(HTTP 422 policy_blocked\)"):
        chat(server.url, "Hi?", wait_s=5, state=tmp_path)


def test_an_error_in_the_stream_fails(server: Script, tmp_path: Path) -> None:
    events = [
        {"content": "Hel", "done": False},
        {"content": "", "error": "gone", "code": "provider_error", "done": True},
    ]
    server.answers["/api/chat/stream"] = [(200, events)]
    with pytest.raises(DemoError, match=r"the answer failed: gone \(provider_error\)"):
        chat(server.url, "Hi?", wait_s=5, state=tmp_path)


def test_a_stream_that_ends_early_fails(server: Script, tmp_path: Path) -> None:
    server.answers["/api/chat/stream"] = [(200, [{"content": "Hel", "done": False}])]
    with pytest.raises(DemoError, match="ended before the answer did"):
        chat(server.url, "Hi?", wait_s=5, state=tmp_path)


def test_an_empty_question_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(DemoError) as refused:
        chat("http://127.0.0.1:9", "  ", state=tmp_path)
    assert refused.value.exit_code == 64
