"""A service as a real process: `novacore serve`, its two ports, SIGTERM."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys

import aiohttp
import pytest

from novacore_contracts.paths import Paths
from tests.kit.harness import Stores, mount
from tests.kit.keys import put
from tests.kit.peers import StubPeer, token_issuer


@pytest.fixture
async def start(tmp_path, keys, redis_port):
    """Start `novacore serve gateway` on ports of its own below a tree of its own."""
    processes = []
    auth = await token_issuer(keys, "gateway", StubPeer("auth-billing")).start()

    async def run(settings, *, public=15990, internal=15991):
        paths = Paths(tmp_path)
        peers = {"auth-billing": {"service_url": auth.url, "internal_url": auth.url}}
        mount(paths, "gateway", keys, Stores(redis_port=redis_port), {"peers": peers, **settings})
        # Ports are constants of the contracts; a process beside a cluster needs others, so the constants are moved.
        program = (
            "import dataclasses, sys\n"
            "from novacore_contracts import services\n"
            f"services.INTERNAL_PORT = {internal}\n"
            f"services.BY_NAME['gateway'] = dataclasses.replace(services.BY_NAME['gateway'], port={public})\n"
            "from novacore.cli import main\n"
            "main(['serve', 'gateway'])\n"
        )
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, env={**os.environ, "NOVA_ROOT": str(tmp_path)},
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        processes.append(process)
        return process, f"http://127.0.0.1:{public}", f"http://127.0.0.1:{internal}"

    yield run
    for process in processes:
        if process.returncode is None:
            process.kill()
    await auth.stop()


async def until(session, url, status):
    async with asyncio.timeout(30):
        while True:
            try:
                async with session.get(url) as answer:
                    if answer.status == status:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.05)


async def test_drains_on_sigterm_unready_first_then_serving_on_then_exit_0(start):
    process, public, internal = await start({"drain_seconds": 1.5})
    async with aiohttp.ClientSession() as session:
        await until(session, f"{internal}/readyz", 200)
        process.send_signal(signal.SIGTERM)
        await until(session, f"{internal}/readyz", 503)
        async with session.get(f"{public}/health") as answer:
            assert answer.status == 200  # requests that are still on their way are served
    async with asyncio.timeout(20):
        output, _ = await process.communicate()

    assert process.returncode == 0, output.decode()
    events = [json.loads(line)["event"] for line in output.decode().splitlines()]
    assert [event for event in events if event in ("serving", "draining", "stopped")] == [
        "serving",
        "draining",
        "stopped",
    ]


async def test_every_line_on_stdout_is_json(start):
    process, public, internal = await start({"drain_seconds": 0})
    async with aiohttp.ClientSession() as session:
        await until(session, f"{internal}/readyz", 200)
        async with session.get(f"{public}/nothing") as answer:
            assert answer.status == 404
    process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(20):
        output, _ = await process.communicate()

    for line in output.decode().splitlines():
        assert {"ts", "level", "service", "version", "pod", "event"} <= set(json.loads(line))


@pytest.mark.parametrize(
    ("change", "setting"),
    [
        (lambda paths: put(paths.settings / "settings.yaml", "surprise: 1"), "surprise"),
        (lambda paths: put(paths.creds / "log.key", "0102"), "log.key"),
        (lambda paths: (paths.creds / "log.key").unlink(), "log.key"),
    ],
)
async def test_bad_settings_end_the_process_with_78_and_one_line(
    start, tmp_path, keys, redis_port, change, setting, monkeypatch
):
    paths = Paths(tmp_path / "bad")
    mount(paths, "gateway", keys, Stores(redis_port=redis_port), {})
    change(paths)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "novacore", "serve", "gateway", env={**os.environ, "NOVA_ROOT": str(paths.root)},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    async with asyncio.timeout(30):
        output, _ = await process.communicate()

    assert process.returncode == 78
    assert [json.loads(line)["setting"] for line in output.decode().splitlines()] == [setting]
