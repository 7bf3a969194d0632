"""auth-billing on real stores, with a clock that can be moved and an API server that answers TokenReviews."""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import json
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from novacore_contracts.paths import Paths
from tests.kit.billing import COUNTED, Billing, connected, settings_of
from tests.kit.keys import put
from tests.kit.stripechaos import Chaos

NAMESPACE = "novacore"
PASSWORD = "correct horse battery"


class MovableClock:
    """Real time plus what the test adds."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead.total_seconds()

    def advance(self, **amount: float) -> None:
        self.ahead += timedelta(**amount)


@pytest.fixture
def clock() -> MovableClock:
    return MovableClock()


@dataclass
class ApiServer:
    """The part of the Kubernetes API that a TokenReview needs, with the real shape of its answers."""

    url: str
    ca: str
    pods: dict[str, dict[str, Any]] = field(default_factory=dict)
    reviews: list[dict[str, Any]] = field(default_factory=list)
    broken: bool = False

    def projected_token(
        self,
        service: str,
        *,
        namespace: str = NAMESPACE,
        audience: str = "novacore-auth",
        pod_uid: str | None = "6f1a0000-0000-4000-8000-000000000001",
    ) -> str:
        """A token as the kubelet projects it; known to this server from now on."""
        subject = f"system:serviceaccount:{namespace}:{service}"
        token = jwt.encode({"aud": [audience], "sub": subject, "exp": int(time.time()) + 3600}, "k" * 32, "HS256")
        extra = {"authentication.kubernetes.io/pod-name": [f"{service}-x"]}
        if pod_uid is not None:
            extra["authentication.kubernetes.io/pod-uid"] = [pod_uid]
        self.pods[token] = {
            "authenticated": True,
            "user": {"username": subject, "uid": "1", "groups": ["system:serviceaccounts"], "extra": extra},
            "audiences": [audience],
        }
        return token

    async def review(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.reviews.append({"authorization": request.headers.get("authorization"), **body})
        if self.broken:
            return web.json_response({"kind": "Status", "code": 500}, status=500)
        known = self.pods.get(body["spec"]["token"])
        audiences = set(body["spec"]["audiences"])
        if known is None or not audiences & set(known["audiences"]):
            status: dict[str, Any] = {"user": {}, "error": "[invalid bearer token]"}
        else:
            status = known
        return web.json_response({"kind": "TokenReview", "status": status}, status=201)


def _certificate() -> tuple[bytes, bytes]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "kubernetes")])
    now = dt.datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificate.public_bytes(serialization.Encoding.PEM), private


@pytest.fixture
async def api_server(tmp_path: Path) -> AsyncIterator[ApiServer]:
    certificate, key = _certificate()
    put(tmp_path / "api/tls.crt", certificate)
    put(tmp_path / "api/tls.key", key)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "api/tls.crt", tmp_path / "api/tls.key")
    server = ApiServer("", certificate.decode())
    app = web.Application()
    app.router.add_post("/apis/authentication.k8s.io/v1/tokenreviews", server.review)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    server.url = f"https://127.0.0.1:{runner.addresses[0][1]}"
    yield server
    await runner.cleanup()


@pytest.fixture
async def auth(client_for, clock, api_server, tmp_path):
    """The service. Its loops run, but sweep and figures are called by hand."""
    settings = {
        "kube_api_url": api_server.url,
        "sweep_seconds": 3600,
    }
    async with client_for("auth-billing", settings=settings, clock=clock) as running:
        kube_api = running.platform.paths.kube_api
        put(kube_api / "token", "auth-billings-own-token")
        put(kube_api / "ca.crt", api_server.ca)
        put(kube_api / "namespace", NAMESPACE)
        async with asyncio.timeout(30):  # on a busy machine the first connection takes its time
            while not await running.platform.db.ping():
                await asyncio.sleep(0.05)
        yield running


@pytest.fixture
def register(auth):
    """`session = await register("a@example.org")`: a new account's answer."""

    async def make(email: str = "ada@example.org", password: str = PASSWORD) -> dict[str, Any]:
        answer = await auth.public.post("/auth/register", json={"email": email, "password": password})
        assert answer.status_code == 201, answer.text
        return answer.json()

    return make


@pytest.fixture
def as_user(auth):
    """Headers of the gateway with a session's access token."""

    def headers(session: dict[str, Any]) -> dict[str, str]:
        return auth.headers() | {"Authorization": f"Bearer {session['access_token']}"}

    return headers


@pytest.fixture
async def chaos(clock) -> AsyncIterator[Chaos]:
    async with Chaos(clock).listening() as stripe:
        yield stripe


@pytest.fixture
async def billing_for(client_for, clock, chaos, keys, admin_conn):
    """`billing = await billing_for(replicas=3, workers=2)`: receivers on real sockets, one key and one secret mounted."""
    async with AsyncExitStack() as stack:

        async def make(*, replicas: int = 1, **stripe: Any) -> Billing:
            running = [
                await stack.enter_async_context(
                    client_for("auth-billing", settings=settings_of(chaos, **stripe), clock=clock, listen=True)
                )
                for _ in range(replicas)
            ]
            for service in running:
                await connected(service)
            await admin_conn.execute(COUNTED)
            billing = Billing(chaos, keys, admin_conn, running)
            billing.mount("stripeKey", {"stripeKey-1": ("active", next(iter(chaos.keys)))})
            billing.mount("stripeWebhook", {"stripeWebhook-1": ("active", "whsec_first")})
            return billing

        yield make


@pytest.fixture
async def billing(billing_for) -> Billing:
    return await billing_for()


@pytest.fixture
def people(admin_conn):
    """`users = await people(5)`: accounts that may buy something."""

    async def make(count: int) -> list[Any]:
        rows = await admin_conn.fetch(
            "INSERT INTO auth.users (email, password_hash) SELECT 'p' || n || '@example.org', 'x'"
            " FROM generate_series(1, $1) AS n RETURNING id",
            count,
        )
        return [row["id"] for row in rows]

    return make


def claims_of(token: str) -> dict[str, Any]:
    """A token's claims, unchecked."""
    return jwt.decode(token, options={"verify_signature": False})


def mounted(paths: Paths, name: str, jwk: dict[str, Any]) -> None:
    """Put a private key where the kubelet would."""
    put(paths.user_jwt_private / name, json.dumps(jwk))
