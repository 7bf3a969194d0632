"""Stands in for `novacore serve` and `novacore migrate`, and fails as `SCENARIO` says."""

import http.server
import json
import os
import signal
import sys
import threading

SCENARIO = os.environ["SCENARIO"]
INTERNAL_PORT = 9090
GATEWAY_PORT = 5000


class Unready(http.server.BaseHTTPRequestHandler):
    """Alive, started, never ready."""

    def do_GET(self) -> None:
        """Answer the probes."""
        self.send_response(503 if self.path == "/readyz" else 200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Failing(http.server.BaseHTTPRequestHandler):
    """Alive, started, ready; every request fails, and the metrics say so."""

    failed = 0
    lock = threading.Lock()

    def do_GET(self) -> None:
        """Answer."""
        probe = self.path in ("/livez", "/startupz", "/readyz", "/metrics")
        with self.lock:
            Failing.failed += not probe
            line = f'http_requests_total{{method="GET",route="/health",code="500"}} {Failing.failed}\n'
        body = line.encode() if self.path == "/metrics" else b""
        self.send_response(200 if probe else 500)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


if SCENARIO in ("crash", "migration-fails"):
    print(json.dumps({"ts": "now", "level": "error", "event": "start_refused", "reason": "scenario"}), flush=True)
    sys.exit(3)
if SCENARIO == "oom":
    hog = []
    while True:
        hog.append(b"x" * (16 << 20))
if SCENARIO == "migration-hangs":
    signal.pause()
if SCENARIO == "unready":
    http.server.ThreadingHTTPServer(("", INTERNAL_PORT), Unready).serve_forever()
if SCENARIO == "errors":
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))  # else the first process of a container does not hear it
    public = http.server.ThreadingHTTPServer(("", GATEWAY_PORT), Failing)
    threading.Thread(target=public.serve_forever, daemon=True).start()
    http.server.ThreadingHTTPServer(("", INTERNAL_PORT), Failing).serve_forever()
