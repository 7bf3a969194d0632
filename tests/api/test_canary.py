"""A canary on a real API server: its pods are played, the metrics they serve are read over real HTTP."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from novacore_contracts.services import INTERNAL_PORT
from tests.kit.api import Api
from tests.kit.nova import NAME, await_condition, await_ready, condition, nova
from tests.kit.operator_process import OperatorProcess
from tests.kit.player import Player
from tests.kit.wait import until

CANARY = "novacore-memory-canary"
ROLLOUT = {"canary": {"enabled": True, "seconds": 10}}
OLD, NEW = "127.0.9.1", "127.0.9.2"
"""Addresses of the two pods: the whole of 127/8 is this machine."""


class Page:
    """A pod's `/metrics` at an address of its own. Each time it is read, a hundred requests more have come."""

    def __init__(self, address: str, *, failing: int = 0) -> None:
        page = self
        self.reads = 0

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                page.reads += 1
                lines = [
                    f'http_requests_total{{method="GET",route="/x",code="200"}} {page.reads * (100 - failing)}',
                    f'http_requests_total{{method="GET",route="/x",code="503"}} {page.reads * failing}',
                ]
                self.send_response(200)
                self.end_headers()
                self.wfile.write(("\n".join(lines) + "\n").encode())

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer((address, INTERNAL_PORT), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def pages() -> Iterator[Callable[..., Page]]:
    """Return a function that opens a page; all are closed in the end."""
    opened: list[Page] = []

    def open_page(address: str, **options: Any) -> Page:
        opened.append(Page(address, **options))
        return opened[-1]

    yield open_page
    for page in opened:
        page.close()


@pytest.fixture
def installed(api: Api, operator: OperatorProcess, player: Player, namespace: str) -> str:
    """A Ready installation with canaries, and a change of memory's pods under way."""
    api.create(nova(namespace, rollout=ROLLOUT))
    await_ready(api, namespace, report=operator.report)
    pod(api, player, namespace, "novacore-memory", OLD)
    api.patch("NovaCoreDeployment", NAME, namespace, {"spec": {"services": {"memory": {"podAnnotations": {"a": "b"}}}}})
    until(lambda: api.get("Deployment", CANARY, namespace), within_s=10, what="the canary is there")
    return namespace


def pod(api: Api, player: Player, namespace: str, deployment: str, address: str) -> None:
    """Play a ready pod of a Deployment at an address."""
    template = api.must("Deployment", deployment, namespace)["spec"]["template"]
    ready = {"type": "Ready", "status": "True"}
    status = {"podIP": address, "podIPs": [{"ip": address}], "conditions": [ready]}
    player.pod(namespace, "memory", status, name=f"{deployment}-0", annotations=template["metadata"]["annotations"])


def progress(api: Api, namespace: str, words: str) -> str:
    """Return what condition Progressing says once it has these words."""
    said: str = condition(api.get("NovaCoreDeployment", NAME, namespace), "Progressing").get("message", "")
    return said if words in said else ""


def test_a_canary_that_serves_as_well_passes_and_goes(
    api: Api, player: Player, installed: str, pages: Callable[..., Page]
) -> None:
    old, new = pages(OLD), pages(NEW)
    before = api.must("Deployment", "novacore-memory", installed)
    pod(api, player, installed, CANARY, NEW)
    said = until(lambda: progress(api, installed, "5xx of"), within_s=15, what="figures of the canary")
    assert said.startswith("canary of memory: ")
    assert " of 10 s, 0.0 % 5xx of " in said
    now = api.must("Deployment", "novacore-memory", installed)
    assert now["metadata"]["generation"] == before["metadata"]["generation"]
    await_ready(api, installed)
    assert api.get("Deployment", CANARY, installed) is None
    assert min(old.reads, new.reads) >= 3  # at the start, in the middle, at the end


def test_a_canary_that_fails_is_taken_back_and_the_old_template_was_never_replaced(
    api: Api, player: Player, installed: str, pages: Callable[..., Page]
) -> None:
    pages(OLD)
    pages(NEW, failing=50)
    before = api.must("Deployment", "novacore-memory", installed)
    pod(api, player, installed, CANARY, NEW)
    back = await_condition(api, installed, "RolledBack", reason="CanaryWorse", within_s=20)
    assert "memory: the canary is worse: 50.0 % 5xx of " in condition(back, "RolledBack")["message"]
    until(lambda: api.get("Deployment", CANARY, installed) is None, within_s=10, what="the canary is gone")
    now = api.must("Deployment", "novacore-memory", installed)
    assert now["metadata"]["generation"] == before["metadata"]["generation"]
