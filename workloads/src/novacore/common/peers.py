"""Calls to the other services: tokens, request id, trace and deadline go along; a refusal comes back as `PeerError`.

Who calls is our service token; for whom is the user's own token, forwarded unchanged, or `X-Act-For`. A 401 about *our*
token (`kid_revoked`, `denied`, `token_expired`) is retried once with a new one: authentication fails before the handler
runs, so nothing is done twice. There is no other retry here: the only retry loop is the gateway's.
"""

from __future__ import annotations

import json as json_
import time
from collections.abc import AsyncIterator, Container, Mapping
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import aiohttp

from novacore.common import context
from novacore.common.callers import SERVICE_REALM, Caller
from novacore.common.metrics import Metrics
from novacore.common.settings import PeerUrls
from novacore.common.tokens import NoTokenError, ServiceTokens
from novacore_contracts.identity import ACT_FOR_HEADER, DEADLINE_HEADER, REQUEST_ID_HEADER, SERVICE_TOKEN_HEADER
from novacore_contracts.services import internal_url, service_url

RENEW_CODES = frozenset({"kid_revoked", "denied", "token_expired"})
ANSWER_BYTES_MAX = 8 << 20


class PeerError(Exception):
    """A peer refused, failed or was not reached. `status` is None when there was no answer."""

    def __init__(self, peer: str, status: int | None, code: str, *, body: Any = None) -> None:
        super().__init__(f"{peer}: {status or 'no answer'} {code}")
        self.peer = peer
        self.status = status
        self.code = code
        self.body = body  # the problem document, when there was one


class Peers:
    """The client for all peers of one service."""

    def __init__(
        self,
        *,
        urls: Mapping[str, PeerUrls],
        tokens: ServiceTokens | None,
        metrics: Metrics,
        session: aiohttp.ClientSession,
    ) -> None:
        self._urls = urls
        self._tokens = tokens
        self._session = session
        self._metrics = metrics
        self._requests = metrics.counter("http_client_requests_total")
        self._seconds = metrics.histogram("http_client_request_duration_seconds")

    def url(self, peer: str, path: str = "", *, internal: bool = False) -> str:
        """Return a peer's URL: from the settings' override, else from the contracts."""
        override = self._urls.get(peer)
        base = (override.internal_url if internal else override.service_url) if override else None
        if base is not None:
            return base.rstrip("/") + path
        return internal_url(peer, path) if internal else service_url(peer, path)

    async def call(
        self,
        peer: str,
        method: str,
        path: str,
        *,
        json: Any = None,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        caller: Caller | None = None,
        act_for: UUID | None = None,
        internal: bool = False,
        timeout_s: float = 5.0,
        expect: Container[int] = (200, 201, 204),
    ) -> Any:
        """Return the parsed JSON of the answer, or None when it has no body. PeerError for anything unexpected."""
        async with self.stream(
            peer, method, path, json=json, params=params, headers=headers, caller=caller, act_for=act_for,
            internal=internal, timeout_s=timeout_s, expect=expect,
        ) as response:  # fmt: skip
            try:
                raw = await response.content.read(ANSWER_BYTES_MAX)
                while chunk := await response.content.read(ANSWER_BYTES_MAX - len(raw)):
                    raw += chunk
            except (aiohttp.ClientError, TimeoutError) as error:
                raise PeerError(peer, None, _network_code(error)) from None
            return _parse(peer, response.status, raw)

    @asynccontextmanager
    async def stream(
        self,
        peer: str,
        method: str,
        path: str,
        *,
        json: Any = None,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        caller: Caller | None = None,
        act_for: UUID | None = None,
        internal: bool = False,
        timeout_s: float | None = 5.0,
        idle_s: float | None = None,
        expect: Container[int] = (200, 201, 204),
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Yield the response with its body unread. `timeout_s` None: no total limit, `idle_s` between chunks."""
        remaining = context.deadline_remaining_s()
        if timeout_s is not None and remaining is not None:
            timeout_s = min(timeout_s, remaining)
        if timeout_s is not None and timeout_s <= 0:
            self._count(peer, "timeout")
            raise PeerError(peer, None, "deadline")
        sent = dict(headers or {}) | _pass_on(caller, act_for, timeout_s if timeout_s is not None else remaining)
        options: dict[str, Any] = {
            "json": json,
            "params": params,
            "timeout": aiohttp.ClientTimeout(
                total=timeout_s, sock_connect=min(2.0, timeout_s or 2.0), sock_read=idle_s
            ),
            "allow_redirects": False,
        }
        url = self.url(peer, path, internal=internal)
        started = time.monotonic()
        response = await self._send(peer, method, url, sent, options)
        self._seconds.labels(self._metrics.bounded("http_client_request_duration_seconds", "peer", peer)).observe(
            time.monotonic() - started
        )
        try:
            if response.status not in expect:
                self._count(peer, "error" if response.status >= 500 else "ok")
                raise await _refusal(peer, response)
            self._count(peer, "ok")
            yield response
        finally:
            response.release()

    async def _send(
        self, peer: str, method: str, url: str, headers: dict[str, str], options: dict[str, Any]
    ) -> aiohttp.ClientResponse:
        try:
            token = await self._tokens.get() if self._tokens else None
            response = await self._once(method, url, headers, token, options)
            if token is not None and self._tokens is not None and _our_token_refused(response):
                body = _parse(peer, response.status, await response.content.read(65_536))
                if isinstance(body, dict) and body.get("code") in RENEW_CODES:
                    response.release()
                    fresh = await self._tokens.renew(token, str(body["code"]))
                    return await self._once(method, url, headers, fresh, options)
                response.release()
                self._count(peer, "error")
                raise PeerError(
                    peer, 401, str(body.get("code")) if isinstance(body, dict) else "token_invalid", body=body
                )
            return response
        except NoTokenError:
            self._count(peer, "error")
            raise PeerError(peer, None, "no_token") from None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            code = _network_code(error)
            self._count(peer, "timeout" if code == "deadline" else "error")
            raise PeerError(peer, None, code) from None

    async def _once(
        self, method: str, url: str, headers: dict[str, str], token: str | None, options: dict[str, Any]
    ) -> aiohttp.ClientResponse:
        own = {SERVICE_TOKEN_HEADER: token} if token is not None else {}
        return await self._session.request(method, url, headers=headers | own, **options)

    def _count(self, peer: str, outcome: str) -> None:
        self._requests.labels(self._metrics.bounded("http_client_requests_total", "peer", peer), outcome).inc()


def _pass_on(caller: Caller | None, act_for: UUID | None, seconds: float | None) -> dict[str, str]:
    headers = {REQUEST_ID_HEADER: context.request_id(), "traceparent": context.traceparent()}
    if seconds is not None:
        headers[DEADLINE_HEADER] = str(max(1, int(seconds * 1000)))
    if act_for is not None:
        headers[ACT_FOR_HEADER] = str(act_for)
    elif caller is not None and caller.user is not None:
        headers["Authorization"] = f"Bearer {caller.user.token}"
    elif caller is not None and caller.act_for is not None:
        headers[ACT_FOR_HEADER] = str(caller.act_for)
    return headers


def _our_token_refused(response: aiohttp.ClientResponse) -> bool:
    return response.status == 401 and SERVICE_REALM in response.headers.get("WWW-Authenticate", "")


def _network_code(error: BaseException) -> str:
    return "deadline" if isinstance(error, TimeoutError) else "unreachable"


def _parse(peer: str, status: int, raw: bytes) -> Any:
    if not raw:
        return None
    try:
        return json_.loads(raw)
    except ValueError:
        raise PeerError(peer, status, "not_json") from None


async def _refusal(peer: str, response: aiohttp.ClientResponse) -> PeerError:
    try:
        body = json_.loads(await response.content.read(65_536))
    except (ValueError, aiohttp.ClientError, TimeoutError):
        body = None
    code = str(body.get("code", "error")) if isinstance(body, dict) else "error"
    return PeerError(peer, response.status, code, body=body)
