"""One process, two uvicorn servers, one way to end.

uvicorn seizes the signals in each server, so `capture_signals` is overridden and this module handles them alone.
Drain: SIGTERM → `/readyz` 503 → serve on while endpoints are removed → stop reading queues → finish requests → close
pools, exit 0. A second signal ends at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import Iterator

import uvicorn
import uvloop
from starlette.types import ASGIApp

from novacore.common.app import Apps, S, ServiceDefinition, make_apps
from novacore.common.log import get_logger
from novacore.common.settings import SettingsError, load_settings, refuse
from novacore_contracts.services import INTERNAL_PORT

log = get_logger()

GRACEFUL_SECONDS = 25
HEADER_BYTES_MAX = 16_384


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to `serve`."""
        yield


def serve(definition: ServiceDefinition[S]) -> None:
    """Run a service until SIGTERM. Ends the process: 0 after a drain, 78 for settings it must not start with."""
    settings = load_settings(definition.settings)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run(definition, settings))


async def _run(definition: ServiceDefinition[S], settings: S) -> None:
    started = time.monotonic()
    try:
        apps = make_apps(definition, settings)
    except SettingsError as error:
        refuse(error)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _on_signal, stop)
    port = apps.platform.spec.port
    async with apps.running():
        listeners = [_server(apps.internal, INTERNAL_PORT)]
        if port is not None:
            listeners.append(_server(apps.public, port))
        async with asyncio.TaskGroup() as tasks:
            for listener in listeners:
                tasks.create_task(listener.serve())
            log.info("serving", ms=round((time.monotonic() - started) * 1000), port=port, internal_port=INTERNAL_PORT)
            await stop.wait()
            await _drain(apps, settings.drain_seconds)
            for listener in listeners:
                listener.should_exit = True
    log.info("stopped")


async def _drain(apps: Apps[S], seconds: float) -> None:
    log.info("draining", seconds=seconds)
    apps.platform.metrics.gauge("novacore_shutdown_draining").set(1)
    apps.platform.draining.set()
    apps.platform.readiness.forget()
    await asyncio.sleep(seconds)


def _on_signal(stop: asyncio.Event) -> None:
    if stop.is_set():
        sys.exit(130)
    stop.set()


def _server(app: ASGIApp, port: int) -> _Server:
    return _Server(
        uvicorn.Config(
            app,
            host="0.0.0.0",  # noqa: S104 - a pod's listener
            port=port,
            loop="none",
            http="httptools",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=GRACEFUL_SECONDS,
            backlog=1024,
        )
    )
