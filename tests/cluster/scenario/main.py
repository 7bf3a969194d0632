"""Stands in for `novacore serve` and `novacore migrate`, and fails as `SCENARIO` says."""

import http.server
import json
import os
import signal
import sys

SCENARIO = os.environ["SCENARIO"]
INTERNAL_PORT = 9090


class Unready(http.server.BaseHTTPRequestHandler):
    """Alive, started, never ready."""

    def do_GET(self) -> None:
        """Answer the probes."""
        self.send_response(503 if self.path == "/readyz" else 200)
        self.end_headers()

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
