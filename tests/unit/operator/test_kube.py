"""The client's door: every failure of the wire becomes the operator's own error."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from novacore_operator.errors import Blocked, Fatal, NovaError, Retry
from novacore_operator.kube import ApiException, Forbidden, Kube, _translated
from novacore_operator.reasons import Reason
from novacore_operator.telemetry import Metrics


class Cut:
    """An answer whose body breaks off."""

    def __init__(self, outcome: Exception | bytes) -> None:
        self._outcome = outcome

    async def read(self) -> bytes:
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome


@pytest.mark.parametrize(
    "outcome", [aiohttp.ClientPayloadError("cut"), TimeoutError(), ConnectionResetError(), b'{"items": [', b""]
)
async def test_an_answer_cut_in_mid_body_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, outcome: Exception | bytes
) -> None:
    async def raw(*_: Any, **__: Any) -> Cut:
        return Cut(outcome)

    kube = Kube.__new__(Kube)
    monkeypatch.setattr(kube, "_raw", raw, raising=False)
    with pytest.raises(Retry):
        await kube._call("get", "Deployment")


@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [
        (422, "spec is invalid", Blocked),
        (500, "failed to create typed patch object (n/d; apps/v1, Kind=Deployment): .spec: expected map", Blocked),
        (500, "etcdserver: request timed out", Retry),
    ],
)
def test_what_asking_again_cannot_mend_is_for_a_person(status: int, message: str, kind: type[NovaError]) -> None:
    answer = ApiException(status=status, reason="no")
    answer.body = json.dumps({"message": message})
    found = _translated(answer, "apply Deployment d in n")
    assert type(found) is kind
    assert message in found.message


async def test_the_guard_is_asked_again_when_the_request_goes_to_the_socket(tmp_path: Path) -> None:
    """KUBE-1: the process may have been stopped between the first question and the sending."""
    reached = []

    async def answer(request: web.Request) -> web.Response:
        reached.append(f"{request.method} {request.path}")
        return web.json_response({"metadata": {"resourceVersion": "1"}, "items": []})

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "a", "cluster": {"server": f"http://127.0.0.1:{runner.addresses[0][1]}"}}],
        "users": [{"name": "a", "user": {}}],
        "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
        "current-context": "a",
    }
    file = tmp_path / "kubeconfig"
    file.write_text(json.dumps(config))
    kube = await Kube.connect(Metrics(), kubeconfig=str(file))
    asked = []

    def guard() -> None:
        asked.append(len(reached))
        if len(asked) % 2 == 0:
            raise Fatal(Reason.API_UNAVAILABLE, "the Lease is not ours")

    kube.guard = guard
    try:
        for _ in range(2):  # a new connection, and one that is used again
            with pytest.raises(Fatal):
                await kube.apply({"kind": "ConfigMap", "metadata": {"name": "x", "namespace": "y"}}, force=True)
            assert not [line for line in reached if line.startswith("PATCH")]
            assert await kube.list("ConfigMap", namespace="y") == ([], "1")
        assert len(asked) == 4, "reading asks nobody"
    finally:
        await kube.close()
        await runner.cleanup()


def test_the_synchronous_client_is_never_loaded() -> None:
    """It is 9 MiB of an operator that has 100."""
    script = "import sys, novacore_operator.main; print('kubernetes.client.api_client' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("message", "right_is_missing"),
    [
        (
            'secrets "a" is forbidden: User "system:serviceaccount:n:o" cannot get resource "secrets" in API group ""',
            True,
        ),
        ('namespaces is forbidden: User "a@example.org" cannot list resource "namespaces"', True),
        ('persistentvolumeclaims "d" is forbidden: only dynamically provisioned pvc can be resized', False),
        ('pods "p" is forbidden: exceeded quota: q, requested: pods=1, used: pods=9, limited: pods=9', False),
        ("admission webhook said no: this image cannot run here", False),
    ],
)
def test_a_403_of_admission_is_no_missing_right(message: str, right_is_missing: bool) -> None:
    """With `Forbidden` for both, a plan ended in an error where admission refused one of its writes."""
    error = ApiException(status=403, reason="Forbidden")
    error.body = json.dumps({"message": message})
    translated = _translated(error, "apply X x")
    assert isinstance(translated, Blocked)
    assert isinstance(translated, Forbidden) is right_is_missing
    assert translated.reason is (Reason.FORBIDDEN if right_is_missing else Reason.APPLY_REFUSED)
