"""Whose pod is this? A projected ServiceAccount token, judged by the API server (TokenReview).

The token of a deleted pod is dead there at once, which no offline check of ours could know. Tokens made by hand
(`kubectl create token`) carry no pod and are refused: an identity belongs to a running pod.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from dataclasses import dataclass
from typing import Any

import aiohttp
import jwt

from novacore.common.errors import ServiceError, forbidden, unauthorized, unavailable
from novacore.common.log import get_logger
from novacore_contracts.identity import BOOTSTRAP_AUDIENCE, PERMISSIONS, TOKEN_BYTES_MAX
from novacore_contracts.paths import Paths
from novacore_contracts.services import BY_NAME

log = get_logger()

POD_UID = "authentication.kubernetes.io/pod-uid"
TIMEOUT_S = 4.0
PARALLEL = 8
WAITING_MAX = 64
_REALM = "novacore-auth"


@dataclass(frozen=True, slots=True)
class Identity:
    """A service and the pod that speaks for it."""

    service: str
    pod_uid: str


class TokenReviewer:
    """Asks the API server. `session` is the process's one."""

    def __init__(self, paths: Paths, session: aiohttp.ClientSession, *, url: str = "") -> None:
        self._folder = paths.kube_api
        self._session = session
        self._url = (url or api_server_url()).rstrip("/")
        self._gate = asyncio.Semaphore(PARALLEL)
        self._waiting = 0
        self._ca = b""
        self._tls: ssl.SSLContext | None = None

    async def identify(self, token: str) -> Identity:
        """Return who presents this token. ServiceError 401, 403, or 503 when the API server cannot be asked."""
        if not looks_right(token):
            raise _refused()
        if self._waiting >= WAITING_MAX:
            raise unavailable("shed", "Too many services ask for a token right now.")
        self._waiting += 1
        try:
            async with self._gate:
                status = await self._review(token)
        finally:
            self._waiting -= 1
        return identity_of(status, namespace=await self._namespace())

    async def _review(self, token: str) -> dict[str, Any]:
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": [BOOTSTRAP_AUDIENCE]},
        }
        try:
            own = await asyncio.to_thread((self._folder / "token").read_text)
            async with self._session.post(
                f"{self._url}/apis/authentication.k8s.io/v1/tokenreviews",
                json=body,
                headers={"Authorization": f"Bearer {own.strip()}", "Accept-Encoding": "identity"},
                ssl=await asyncio.to_thread(self._context),
                timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
            ) as response:
                if response.status not in (200, 201):
                    raise ValueError(f"status {response.status}")
                answer = await response.json(content_type=None)
                status = answer["status"]
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError, KeyError, TypeError) as error:
            log.error("token_review_failed", reason=f"{type(error).__name__}: {error}"[:200])
            raise unavailable("upstream_down", "The Kubernetes API server cannot be asked now.") from None
        return status if isinstance(status, dict) else {}

    def _context(self) -> ssl.SSLContext:
        ca = (self._folder / "ca.crt").read_bytes()
        if self._tls is None or ca != self._ca:
            self._tls, self._ca = ssl.create_default_context(cadata=ca.decode()), ca
        return self._tls

    async def _namespace(self) -> str:
        try:
            return (await asyncio.to_thread((self._folder / "namespace").read_text)).strip()
        except OSError:
            raise unavailable("not_ready", "The namespace file is not mounted.") from None


def api_server_url() -> str:
    """Return the API server's URL as every pod is told it; its certificate holds the address."""
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT_HTTPS", "443")
    if not host:
        return "https://kubernetes.default.svc"
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"


def looks_right(token: str) -> bool:
    """Return whether asking is worth it: a JWT of bearable size that names our audience. Proves nothing."""
    if len(token) > TOKEN_BYTES_MAX:
        return False
    try:
        claims = jwt.decode(token, options={"verify_signature": False})
    except jwt.PyJWTError:
        return False
    audience = claims.get("aud")
    return BOOTSTRAP_AUDIENCE in (audience if isinstance(audience, list) else [audience])


def identity_of(status: dict[str, Any], *, namespace: str) -> Identity:
    """Return the identity in a TokenReview's status. ServiceError 401 or 403 on anything but a pod of ours."""
    if status.get("authenticated") is not True or BOOTSTRAP_AUDIENCE not in (status.get("audiences") or ()):
        raise _refused()
    user = status.get("user") or {}
    pods = (user.get("extra") or {}).get(POD_UID) or []
    if len(pods) != 1 or not pods[0]:
        raise _refused("The token belongs to no pod.")
    subject = str(user.get("username", ""))
    prefix = f"system:serviceaccount:{namespace}:novacore-"
    service = subject.removeprefix(prefix)
    if not subject.startswith(prefix) or service not in BY_NAME or service not in PERMISSIONS:
        raise forbidden("scope_missing", "This ServiceAccount is none of the platform's services.")
    return Identity(service, pods[0])


def _refused(detail: str = "The token is not valid.") -> ServiceError:
    return unauthorized("token_invalid", detail, realm=_REALM)
