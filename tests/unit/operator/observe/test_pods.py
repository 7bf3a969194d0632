"""Which pods are asked, and what becomes of answers that are none."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from novacore_operator.observe.pods import Address, Pods, addresses, pod_of
from novacore_operator.rotation.seen import PASSED


def body(name: str, component: str, **changes: Any) -> dict[str, Any]:
    labels = {"app.kubernetes.io/component": component, "novacore.ai/serving": changes.pop("serving", "true")}
    metadata = {"name": name, "uid": f"uid-{name}", "creationTimestamp": "2026-11-29T00:00:00Z", "labels": labels}
    status = {"phase": "Running", "podIP": "10.0.0.1", "conditions": [{"type": "Ready", "status": "True"}]}
    return {"metadata": metadata | changes.pop("metadata", {}), "status": status | changes}


def test_only_pods_of_the_nine_services_count() -> None:
    found = addresses([body("m", "memory"), body("p", "postgres"), body("j", "migrate"), {"metadata": {"name": "x"}}])
    assert [pod.name for pod in found] == ["m"]


def test_a_pod_is_what_the_list_says() -> None:
    (fenced, going, young) = addresses(
        [
            body("a", "memory", serving="false"),
            body("b", "memory", metadata={"deletionTimestamp": "2026-11-29T00:00:00Z"}),
            {"metadata": body("c", "memory")["metadata"], "status": {"phase": "Pending"}},
        ]
    )
    assert (fenced.fenced, pod_of(fenced, "serviceJwt", None).endpoint) == (True, False)
    assert going.terminating
    assert (young.ip, young.phase, young.ready) == ("", "Pending", False)


def address(name: str, ip: str) -> Address:
    return Address(name, name, "memory", ip, "Running", False, True, False, 0.0)


@pytest.fixture
async def pods(unused_tcp_port: int) -> AsyncIterator[Pods]:
    """Pods at 127.0.0.1 (good), .2 (refuses), .3 (nobody), .4 (answers too much)."""
    runners = []

    async def serve(ip: str, handler: Any) -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", handler)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, ip, unused_tcp_port).start()
        runners.append(runner)

    async def good(request: web.Request) -> web.Response:
        if request.path == "/internal/canary":
            return web.json_response({"token": "canary-of-" + (await request.json())["request"]})
        if request.path == "/internal/keyset/document":
            return web.Response(body=b"signed")
        return web.json_response({"clock": 1})

    async def refuses(_: web.Request) -> web.Response:
        return web.json_response({"code": "kid_revoked"}, status=401)

    async def floods(_: web.Request) -> web.Response:
        return web.Response(body=b"[" + b"1," * 400_000 + b"1]")

    await serve("127.0.0.1", good)
    await serve("127.0.0.2", refuses)
    await serve("127.0.0.4", floods)
    asked = Pods(unused_tcp_port)
    yield asked
    await asked.close()
    for runner in runners:
        await runner.cleanup()


ALL = [address("good", "127.0.0.1"), address("refuses", "127.0.0.2"), address("nobody", "127.0.0.3")]
FLOODS = address("floods", "127.0.0.4")


async def test_an_answer_is_what_a_pod_said_and_silence_is_none(pods: Pods) -> None:
    assert {uid: answer.body for uid, answer in (await pods.claims([*ALL, FLOODS])).items()} == {"good": {"clock": 1}}
    assert await pods.try_canary(ALL, "serviceJwt", "t") == {"good": PASSED, "refuses": "kid_revoked"}
    assert await pods.canary(ALL[0], "me") == "canary-of-me"
    assert await pods.canary(ALL[1], "me") is None
    assert await pods.canary(ALL[2], "me") is None
    assert await pods.documents([*ALL, FLOODS], "serviceJwt") == [b"signed"]
    await pods.push(ALL, "serviceJwt", b"compact")


async def test_a_pod_without_an_address_is_not_asked(pods: Pods) -> None:
    assert await pods.claims([address("young", "")]) == {}
