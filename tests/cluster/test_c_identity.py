"""Identity comes from two verified tokens and from nothing else (acceptance E)."""

from __future__ import annotations

import json

import httpx
import pytest

from tests.cluster.client import PlatformUser
from tests.cluster.kube import Kube

# Runs inside a pod of the installation, where every service port can be reached.
CALL = """
import json, sys, urllib.error, urllib.request
url, headers = sys.argv[1], json.loads(sys.stdin.read())
try:
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as answer:
        print(json.dumps([answer.status, answer.read().decode()]))
except urllib.error.HTTPError as error:
    print(json.dumps([error.code, error.read().decode()]))
"""


def call_from_a_pod(kube: Kube, namespace: str, url: str, headers: dict[str, str]) -> tuple[int, str]:
    """Call a service port directly from the gateway's pod, past the gateway's own checks."""
    out = kube.exec("deploy/novacore-gateway", namespace, "python", "-c", CALL, url, stdin=json.dumps(headers))
    status, body = json.loads(out)
    return status, body


@pytest.mark.parametrize(
    "path", ["/api/memory", "/api/chat/sessions", "/api/ngs/progress", "/api/usage/quota", "/api/policy/active"]
)
def test_no_token_is_401(url: str, platform: str, path: str) -> None:
    answer = httpx.get(f"{url}{path}")
    assert answer.status_code == 401
    assert answer.json()["code"] == "token_missing"
    assert "WWW-Authenticate" in answer.headers


def test_forged_identity_headers_without_a_token_are_401(url: str, user: PlatformUser) -> None:
    user_id = user.get("/api/auth/me").json()["id"]
    forged = {"X-User-Id": user_id, "X-User-Email": user.email, "X-User-Role": "admin", "X-Act-For": user_id}
    assert httpx.get(f"{url}/api/memory", headers=forged).status_code == 401


def test_a_service_called_directly_with_a_forged_header_is_401(kube: Kube, user: PlatformUser, platform: str) -> None:
    user_id = user.get("/api/auth/me").json()["id"]
    status, body = call_from_a_pod(
        kube, platform, "http://novacore-memory:8001/memory/list", {"X-User-Id": user_id, "X-Act-For": user_id}
    )
    assert status == 401
    assert json.loads(body)["code"] == "token_missing"


def test_a_user_token_alone_is_refused_at_the_memory_port(kube: Kube, user: PlatformUser, platform: str) -> None:
    assert user.get("/api/memory").status_code == 200, "the token is good through the gateway"
    status, _ = call_from_a_pod(kube, platform, "http://novacore-memory:8001/memory/list", user.headers)
    assert status in (401, 403)


@pytest.mark.parametrize(
    "path",
    [
        "/internal/keyset",
        "/api/internal/keyset",
        "/api/auth/../internal/token",
        "/api/auth/..%2finternal/token",
        "/api/memory//internal/memory/users",
        "/api/auth/%2e%2e/internal/token",
        "/metrics",
        "/readyz",
    ],
)
def test_internal_routes_are_not_reachable_through_the_public_port(url: str, user: PlatformUser, path: str) -> None:
    request = httpx.Request("GET", url, headers=user.headers)
    request.url = request.url.copy_with(raw_path=path.encode())  # no client-side normalisation
    answer = user.http.send(request)
    assert answer.status_code in (400, 404), answer.text


def test_the_public_service_carries_only_the_http_port(kube: Kube, platform: str) -> None:
    ports = kube.must("service", "novacore-gateway-public", platform)["spec"]["ports"]
    assert [port["name"] for port in ports] == ["http"]


def test_private_keys_are_mounted_by_auth_billing_only(kube: Kube, platform: str) -> None:
    private = {"novacore-svcjwt-private", "novacore-userjwt-private"}
    holders = {
        pod["metadata"]["labels"]["app.kubernetes.io/component"]
        for pod in kube.list("pods", platform)
        for volume in pod["spec"]["volumes"]
        if volume.get("secret", {}).get("secretName") in private
    }
    assert holders == {"auth-billing"}


def test_the_keyset_has_an_active_and_a_standby_key(kube: Kube, platform: str) -> None:
    import base64

    from novacore_contracts.keyset import RingDocument

    data = kube.must("secret", "novacore-keyset", platform)["data"]
    for ring in ("serviceJwt", "userJwt"):
        payload = base64.b64decode(data[f"{ring}.jws"]).decode().split(".")[1]
        document = RingDocument.from_bytes(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        assert sorted(key.state for key in document.keys) == ["active", "pending"]


def test_a_hand_made_token_without_a_pod_gets_no_service_token(kube: Kube, platform: str) -> None:
    token = kube.run(
        "create", "token", "novacore-memory", "-n", platform, "--audience=novacore-auth", "--duration=10m"
    ).strip()
    script = CALL.replace("headers=headers)", "headers=headers, data=b'{\"min_generation\": 0}', method='POST')")
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    out = kube.exec(
        "deploy/novacore-gateway",
        platform,
        "python",
        "-c",
        script,
        "http://novacore-auth-billing:9090/internal/token",
        stdin=json.dumps(headers),
    )
    assert json.loads(out)[0] in (401, 403)
