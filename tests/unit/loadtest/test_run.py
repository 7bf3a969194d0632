"""The load test as a process, against a small HTTP server of this test on the loopback address.

What is under test is the load test itself: that it counts, judges and reports what it received.
"""

from __future__ import annotations

import http.server
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
ANSWERS = {
    "/api/auth/register": (201, {"access_token": "t"}),
    "/api/auth/login": (200, {"access_token": "t"}),
    "/api/chat/message": (200, {"response": "yes"}),
    "/api/memory": (200, {"memories": [], "total": 0}),
    "/api/memory/search": (200, {"results": [], "total": 0}),
    "/api/ngs/progress": (200, {"current_level": 1}),
    "/api/usage/quota": (200, {"tokens": {"used": 0, "limit": 1000}}),
    "/health": (200, {"status": "ok"}),
}


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers each documented path; the server's `answers` may be changed by a test."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.rfile.read(length)
        status, body = self.server.answers.get(self.path, (404, {}))  # type: ignore[attr-defined] # set by the fixture
        raw = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    do_GET = do_POST  # noqa: N815 # the name is the standard library's

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[http.server.ThreadingHTTPServer]:
    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.answers = dict(ANSWERS)  # type: ignore[attr-defined] # read by the handler
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()


def loadtest(server: http.server.ThreadingHTTPServer, *extra: str) -> subprocess.CompletedProcess[str]:
    url = f"http://127.0.0.1:{server.server_port}"
    command = [
        sys.executable,
        "-m",
        "loadtest",
        "--users",
        "10",
        "--time",
        "3s",
        "--think",
        "0-0.1",
        "--url",
        url,
        *extra,
    ]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def test_passes_with_figures_for_every_operation_and_an_html_report(server: http.server.ThreadingHTTPServer) -> None:
    done = loadtest(server)
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("register", "login", "chat", "memory list", "memory search", "progress", "quota", "health", "all"):
        assert f"\n{name} " in done.stdout
    assert "PASS   0 errors" in done.stdout
    assert "<html" in (ROOT / "loadtest/out/report.html").read_text()


def test_fails_on_an_empty_reply_even_with_status_200(server: http.server.ThreadingHTTPServer) -> None:
    server.answers["/api/chat/message"] = (200, {"response": ""})  # type: ignore[attr-defined] # see the fixture
    done = loadtest(server)
    assert done.returncode == 1
    assert "field response is empty" in done.stdout
    assert "FAIL   chat:" in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [("--url", "http://example.test"), ("--users", "9999"), ("--time", "1h"), ("--nonsense",)],
)
def test_bad_input_is_one_line_and_exit_64(arguments: tuple[str, ...]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "loadtest", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 64
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stderr.startswith("loadtest: ")
