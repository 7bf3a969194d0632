"""The hot path: one ASGI callable, from the client's request to an upstream and back, streaming both ways.

Order of checks: spelling of the path, route, size, token, one script call (revocation and rate limit), circuit,
in-flight cap. A request that is refused costs its upstream nothing. The gateway signs nothing: the user's token goes
on unchanged beside the gateway's own service token. Retry: at most once, before the first byte, for idempotent methods
or when no connection came about, within a budget.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Final, Literal

import aiohttp
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from yarl import URL

from novacore.common import context, errors
from novacore.common.app import Platform
from novacore.common.callers import SERVICE_REALM, User, bearer, read_user, refused_token
from novacore.common.errors import ServiceError, problem
from novacore.common.keyring import TokenError
from novacore.common.log import get_logger
from novacore.common.middleware import CLIENT_LEFT
from novacore.common.peers import RENEW_CODES
from novacore.common.tokens import NoTokenError
from novacore.gateway.circuit import GAUGE, Circuit, RetryBudget
from novacore.gateway.headers import client_ip, inbound, outbound
from novacore.gateway.limits import Bucket, Limiter, Verdict, account_key
from novacore.gateway.routes import STREAM_IDLE_S, STREAM_SECONDS, Route, bad_path, match
from novacore.gateway.settings import GatewaySettings
from novacore_contracts.identity import DEADLINE_HEADER, REQUEST_ID_HEADER, SERVICE_TOKEN_HEADER
from novacore_contracts.services import BY_NAME

log = get_logger()

HEADER_BYTES_MAX: Final = 16_384
LOCAL: Final = frozenset({"/health", "/api/status", "/openapi.json"})
TOKEN_CACHE_S: Final = 30.0
"""A verified token is trusted this long without another look at its signature; revocation is looked up each time."""
BUFFERED_BYTES_MAX: Final = 65_536
"""Bodies up to this size are read first, so that they can be sent twice; larger ones stream through."""
IDEMPOTENT: Final = frozenset({"GET", "HEAD", "PUT", "DELETE"})
UPSTREAM_DOWN: Final = frozenset({500, 503, 504})
CORS_METHODS: Final = "GET, POST, PUT, PATCH, DELETE"
CORS_HEADERS: Final = "Authorization, Content-Type, Idempotency-Key, Last-Event-ID, X-Request-ID"
CORS_EXPOSED: Final = "X-Request-ID, X-Run-Id, Retry-After, RateLimit-Limit, RateLimit-Remaining, RateLimit-Reset"
_AUTH_REASONS: Final = {
    "token_missing": "missing", "token_expired": "expired", "kid_unknown": "unknown_kid", "kid_retired": "revoked",
    "kid_revoked": "revoked", "denied": "revoked",
}  # fmt: skip
Outcome = Literal["ok", "error", "timeout", "connect"]


class ClientLeftError(Exception):
    """The client closed the connection before its answer was complete."""


@dataclass(slots=True)
class Upstream:
    """What the gateway knows of one upstream."""

    name: str
    url: str
    circuit: Circuit
    in_flight: int = 0


@dataclass(slots=True)
class Inbound:
    """One request on its way."""

    scope: Scope
    receive: Receive
    send: Send
    headers: Headers
    route: Route
    ip: str
    user: User | None = None
    body: bytes | None = None  # None: it streams
    started: float = field(default_factory=time.monotonic)
    waited_s: float = 0.0  # for the upstream's first byte
    read_bytes: int = 0

    gone: bool = False  # the client left while it sent its body

    @property
    def method(self) -> str:
        """The request's method."""
        return str(self.scope["method"])


class Proxy:
    """The gateway's ASGI application; paths of its own go to `app`."""

    def __init__(self, app: ASGIApp, platform: Platform[GatewaySettings]) -> None:
        self._app = app
        self._platform = platform
        self._settings = platform.settings
        self._limiter: Limiter | None = None
        self._budget = RetryBudget()
        self._origins = frozenset(platform.settings.cors_origins)
        self.upstreams = {
            name: Upstream(name, self._url(name), Circuit(platform.clock.monotonic))
            for name in platform.spec.peers
            if BY_NAME[name].port is not None
        }
        metrics = platform.metrics
        self._limited = metrics.counter("novacore_rate_limited_total")
        self._refused = metrics.counter("novacore_auth_failures_total")
        self._shed = metrics.counter("novacore_http_shed_total").labels("in_flight")
        self._overhead = metrics.histogram("novacore_gateway_overhead_seconds")
        self._peer_requests = metrics.counter("http_client_requests_total")
        self._peer_seconds = metrics.histogram("http_client_request_duration_seconds")
        self._circuits = metrics.gauge("novacore_circuit_state")
        for name in self.upstreams:
            self._circuits.labels(name).set(0)
            for outcome in ("ok", "error", "timeout", "open"):
                self._peer_requests.labels(name, outcome)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        if origin is not None:
            send = _with_cors(send, origin if origin in self._origins else None)
            if scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
                await _preflight(send, allowed=origin in self._origins)
                return
        try:
            await self._serve(scope, receive, send, headers)
        except ServiceError as error:
            await problem(error, instance=scope["path"])(scope, receive, send)
        except ClientLeftError:
            _note(CLIENT_LEFT)

    async def _serve(self, scope: Scope, receive: Receive, send: Send, headers: Headers) -> None:
        path: str = scope["path"]
        if sum(len(name) + len(value) for name, value in scope["headers"]) > HEADER_BYTES_MAX:
            raise ServiceError(431, "too_large", "The request headers are too large.")
        raw: bytes = scope.get("raw_path") or path.encode()
        if bad_path(raw):
            raise ServiceError(400, "bad_path", "This spelling of the path is not accepted.")
        trail = context.current()
        if path == "/health":
            await self._app(scope, receive, send)  # never limited: load balancers ask from one address
            return
        ip = self._client_ip(scope, headers)
        route = match(scope["method"], raw.decode())
        if route is None:
            await self._limit_ip("anon", ip)
            if path in LOCAL:
                await self._app(scope, receive, send)
                return
            raise ServiceError(404, "not_found", "There is no such path.", extra={"path": path})
        if trail is not None:
            trail.route = route.template
        request = Inbound(scope, receive, send, headers, route, ip)
        await self._read_small_body(request)
        await self._admit(request)
        if trail is not None and request.user is not None:
            trail.user_id = request.user.id
        await self._forward(request)

    # --- who, and how often ---------------------------------------------------------------------------------------

    async def _admit(self, request: Inbound) -> None:
        """Check token, revocation and rate; ServiceError when the request must not go on."""
        route, user, refusal = request.route, None, None
        token = bearer(request.headers.get("authorization"))
        if token is None:
            refusal = TokenError("token_missing")
        else:
            try:
                user = read_user(self._platform.keyrings, token, cache_seconds=TOKEN_CACHE_S)
            except TokenError as error:
                refusal = error
        # A public route never looks at a bad token, except where it can only mean "my token has expired" (`/auth/me`).
        needed = route.user or (token is not None and route.class_ == "anon" and route.template.startswith("/api/auth"))
        if refusal is not None and needed:
            await self._limit_ip("anon", request.ip)
            self._refused.labels(_AUTH_REASONS.get(refusal.code, "invalid")).inc()
            raise self._challenge(refused_token(refusal, realm="novacore-api"), route)
        if user is not None and route.user and user.scope not in route.scopes:
            self._refused.labels("scope").inc()
            raise errors.forbidden("scope_missing", "This token is not meant for this path.")
        verdict = await self._check(request, user)
        if verdict.state == "revoked":
            if needed:
                self._refused.labels("revoked").inc()
                raise self._challenge(errors.unauthorized("token_invalid", "The session has ended."), route)
            # The script stops at a revoked token before it charges anything: charge as for a caller without one.
            user = None
            verdict = await self._check(request, None)
        self._raise_if_limited(verdict, route.class_, by_user=user is not None and route.user)
        request.user = user

    async def _check(self, request: Inbound, user: User | None) -> Verdict:
        limits, route = self._settings.limits, request.route
        if route.user and user is not None:
            buckets = [Bucket(f"rl:{route.class_}:{user.id}", 0)]
        else:
            rate = {"auth": limits.auth_per_minute, "webhook": limits.webhook_per_minute}
            buckets = [Bucket(f"rl:{route.class_}:{request.ip}", rate.get(route.class_, limits.anon_per_minute))]
        if route.template == "/api/auth/login" and (email := _email_in(request.body)) is not None:
            buckets.append(Bucket(account_key(email), limits.login_per_account_per_minute))
        return await self._limits.check(
            buckets, user=user, rates=self._rates(route.class_), fail_closed=route.class_ == "auth"
        )

    async def _limit_ip(self, class_: str, ip: str) -> None:
        bucket = Bucket(f"rl:{class_}:{ip}", self._settings.limits.anon_per_minute)
        verdict = await self._limits.check([bucket], user=None, rates={}, fail_closed=False)
        self._raise_if_limited(verdict, class_, by_user=False)

    def _raise_if_limited(self, verdict: Verdict, class_: str, *, by_user: bool) -> None:
        if verdict.state == "closed":
            raise errors.unavailable("not_ready", "Signing in is not possible at the moment.")
        if verdict.state == "limited":
            self._limited.labels(class_, "user" if by_user else "ip").inc()
            reset = str(max(1, math.ceil(verdict.wait_s)))
            headers = {"RateLimit-Limit": str(verdict.limit), "RateLimit-Remaining": "0", "RateLimit-Reset": reset}
            raise errors.rate_limited(verdict.wait_s, headers=headers)

    def _rates(self, class_: str) -> dict[str, int]:
        tiers = self._settings.tiers
        field_ = "requests_per_minute" if class_ == "costly" else "read_per_minute"
        return {tier: getattr(tiers.of(tier), field_) for tier in ("free_trial", "basic", "pro")}

    @property
    def _limits(self) -> Limiter:
        if self._limiter is None:
            platform = self._platform
            assert platform.cache is not None
            tokens = platform.redis if platform.redis is not platform.cache else None
            self._limiter = Limiter(platform.cache, patient=platform.cache_blocking, tokens=tokens)
        return self._limiter

    def _challenge(self, error: ServiceError, route: Route) -> ServiceError:
        """MCP clients find the sign-in from the challenge (RFC 9728 §5.1)."""
        base = self._settings.frontend_url.rstrip("/")
        if route.upstream == "mcp-server" and base:
            where = f', resource_metadata="{base}/.well-known/oauth-protected-resource/api/mcp"'
            error.headers["WWW-Authenticate"] += where
        return error

    # --- there and back -------------------------------------------------------------------------------------------

    async def _forward(self, request: Inbound) -> None:
        upstream = self.upstreams[request.route.upstream]
        if upstream.in_flight >= self._settings.in_flight_max:
            self._shed.inc()
            raise errors.unavailable("shed", "Too many requests at once. Try again shortly.")
        self._budget.earn()
        upstream.in_flight += 1
        try:
            await self._exchange(request, upstream)
        finally:
            upstream.in_flight -= 1
            self._circuits.labels(upstream.name).set(GAUGE[upstream.circuit.state])
            self._overhead.observe(max(0.0, time.monotonic() - request.started - request.waited_s))

    async def _exchange(self, request: Inbound, upstream: Upstream) -> None:
        """Send, and stream the answer back; watch for the client leaving meanwhile."""
        relay = asyncio.ensure_future(self._relay(request, upstream))
        # While the body still streams in, `receive` is the body's; afterwards it tells when the client leaves.
        watch = asyncio.ensure_future(_until_gone(request.receive)) if request.body is not None else None
        try:
            await asyncio.wait({relay, watch} if watch else {relay}, return_when=asyncio.FIRST_COMPLETED)
            if not relay.done():
                raise ClientLeftError
            relay.result()
        finally:
            for task in (relay, watch):
                if task is not None and not task.done():
                    task.cancel()
                    await asyncio.wait({task})

    async def _relay(self, request: Inbound, upstream: Upstream) -> None:
        response = await self._send(request, upstream)
        try:
            await self._answer(request, response)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            # The head is out: an answer left incomplete is the only way to say so; the server cuts the connection.
            _note("upstream_down")
            log.warning("answer_broken_off", reason=type(error).__name__)
        finally:
            response.close()

    async def _send(self, request: Inbound, upstream: Upstream) -> aiohttp.ClientResponse:
        """Return the upstream's response, its body unread; retried once where that is safe."""
        retried = False
        while True:
            if not upstream.circuit.admit():
                self._peer_requests.labels(upstream.name, "open").inc()
                raise errors.unavailable(
                    "upstream_down", "This part of the service is not answering.",
                    retry_after_s=max(1, math.ceil(upstream.circuit.retry_after_s)),
                )  # fmt: skip
            outcome: Outcome | None = None
            try:
                response = await self._once(request, upstream)
                outcome = "error" if response.status in UPSTREAM_DOWN else "ok"
            except aiohttp.ClientConnectorError:
                outcome = "connect"
                if retried or request.body is None or not self._budget.spend():
                    raise errors.unavailable("upstream_down", "This part of the service is not answering.") from None
            except TimeoutError:
                outcome = "timeout"
                raise errors.deadline() from None
            except (aiohttp.ClientError, OSError):
                _raise_for_body(request)
                outcome = "error"
                if retried or not self._may_repeat(request) or not self._budget.spend():
                    raise errors.unavailable("upstream_down", "This part of the service broke off.") from None
            else:
                drained = response.status == 503 and not retried and self._may_repeat(request)
                if not drained or not self._budget.spend():
                    return response
                response.release()
            finally:
                self._settle(upstream, outcome)
            retried = True
            await asyncio.sleep(0.05)  # a Service needs a moment to drop a pod that drains

    def _settle(self, upstream: Upstream, outcome: Outcome | None) -> None:
        """Tell the circuit how an admitted call ended, once for each; None: it says nothing about the upstream."""
        if outcome is None:
            upstream.circuit.abandoned()
            return
        if outcome == "ok":
            upstream.circuit.succeeded()
        else:
            upstream.circuit.failed(connect=outcome == "connect")
        self._peer_requests.labels(upstream.name, "error" if outcome == "connect" else outcome).inc()

    def _may_repeat(self, request: Inbound) -> bool:
        return request.method in IDEMPOTENT and request.body is not None

    async def _once(self, request: Inbound, upstream: Upstream) -> aiohttp.ClientResponse:
        tokens = self._platform.tokens
        assert tokens is not None
        try:
            token = await tokens.get()
            response = await self._call(request, upstream, token)
            if response.status != 401 or SERVICE_REALM not in response.headers.get("WWW-Authenticate", ""):
                return response
            # Our own token was refused, before any handler ran: renew once and send again.
            code = _code_of(await response.content.read(BUFFERED_BYTES_MAX))
            response.release()
            if code in RENEW_CODES and request.body is not None:
                response = await self._call(request, upstream, await tokens.renew(token, code))
                if response.status != 401:
                    return response
                response.release()
        except NoTokenError:
            pass
        raise errors.unavailable("upstream_down", "This part of the service is not answering.")

    async def _call(self, request: Inbound, upstream: Upstream, token: str) -> aiohttp.ClientResponse:
        query = request.scope["query_string"].decode("latin-1")
        url = URL(f"{upstream.url}{request.route.path}{'?' + query if query else ''}", encoded=True)
        started = time.monotonic()
        try:
            async with asyncio.timeout(self._first_byte_s(request)):
                return await self._platform.session.request(
                    request.method,
                    url,
                    headers=self._outgoing(request, token),
                    data=request.body if request.body is not None else _streamed(request),
                    timeout=aiohttp.ClientTimeout(total=None, sock_connect=2.0, sock_read=None),
                    allow_redirects=False,
                    skip_auto_headers=("User-Agent", "Content-Type", "Accept", "Accept-Encoding"),
                )
        finally:
            waited = time.monotonic() - started
            request.waited_s += waited
            self._peer_seconds.labels(upstream.name).observe(waited)

    def _first_byte_s(self, request: Inbound) -> float:
        return max(0.0, request.route.deadline_s - (time.monotonic() - request.started))

    def _outgoing(self, request: Inbound, token: str) -> dict[str, str]:
        stream = request.headers.get("accept", "").startswith("text/event-stream") or request.route.path.endswith(
            "/stream"
        )
        left_s = STREAM_SECONDS if stream else self._first_byte_s(request)
        headers = inbound(request.headers.items()) | {
            SERVICE_TOKEN_HEADER: token,
            REQUEST_ID_HEADER: context.request_id(),
            "traceparent": context.traceparent(),
            DEADLINE_HEADER: str(max(1, int(left_s * 1000))),
            "X-Forwarded-For": request.ip,
            "X-Forwarded-Proto": request.scope.get("scheme", "http"),
        }
        if host := request.headers.get("host"):
            headers["X-Forwarded-Host"] = host
        if request.user is not None:
            headers["Authorization"] = f"Bearer {request.user.token}"
        return headers

    async def _answer(self, request: Inbound, response: aiohttp.ClientResponse) -> None:
        await request.send(
            {"type": "http.response.start", "status": response.status, "headers": outbound(response.headers)}
        )
        stream = response.headers.get("Content-Type", "").startswith("text/event-stream")
        ends = time.monotonic() + (STREAM_SECONDS if stream else self._first_byte_s(request))
        while True:
            limit = min(STREAM_IDLE_S, max(0.1, ends - time.monotonic()))
            async with asyncio.timeout(limit):  # the head is out: a late body can only be broken off
                chunk = await response.content.readany()
            if not chunk:
                break
            await request.send({"type": "http.response.body", "body": chunk, "more_body": True})
        await request.send({"type": "http.response.body", "body": b"", "more_body": False})

    # --- the request as it came -----------------------------------------------------------------------------------

    async def _read_small_body(self, request: Inbound) -> None:
        """Read a body that is known to be small; refuse one that is known to be too large."""
        limit = request.route.body_bytes_max
        declared = request.headers.get("content-length")
        if declared is not None and declared.isdigit() and int(declared) > limit:
            raise ServiceError(413, "too_large", f"The body may have at most {limit} bytes here.")
        if declared is None and "transfer-encoding" not in request.headers:
            request.body = b""
            return
        if declared is None or not declared.isdigit() or int(declared) > BUFFERED_BYTES_MAX:
            return
        parts = [chunk async for chunk in _streamed(request)]
        request.body = b"".join(parts)

    def _client_ip(self, scope: Scope, headers: Headers) -> str:
        peer = scope["client"][0] if scope.get("client") else "unknown"
        return client_ip(peer, headers.get("x-forwarded-for"), self._settings.trusted_proxy_hops)

    def _url(self, name: str) -> str:
        override = self._settings.peers.get(name)
        if override is not None and override.service_url:
            return override.service_url.rstrip("/")
        return f"http://{BY_NAME[name].full_name}:{BY_NAME[name].port}"


async def _streamed(request: Inbound) -> AsyncIterator[bytes]:
    """Yield the request's body as it arrives. ServiceError 413 when it outgrows its limit."""
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            request.gone = True
            raise ClientLeftError
        chunk = message.get("body", b"")
        request.read_bytes += len(chunk)
        _raise_for_body(request)
        if chunk:
            yield chunk
        if not message.get("more_body", False):
            return


def _raise_for_body(request: Inbound) -> None:
    """Raise what is wrong with a body that streams: aiohttp reports it as a connection that broke."""
    limit = request.route.body_bytes_max
    if request.read_bytes > limit:
        raise ServiceError(413, "too_large", f"The body may have at most {limit} bytes here.")
    if request.gone:
        raise ClientLeftError


def _note(code: str) -> None:
    trail = context.current()
    if trail is not None:
        trail.code = code


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _email_in(body: bytes | None) -> str | None:
    try:
        email = json.loads(body or b"").get("email")
    except (ValueError, AttributeError):
        return None
    return email if isinstance(email, str) and len(email) <= 254 else None


def _code_of(raw: bytes) -> str:
    try:
        return str(json.loads(raw).get("code"))
    except (ValueError, AttributeError):
        return ""


def _with_cors(send: Send, origin: str | None) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers.add_vary_header("Origin")
            if origin is not None:
                headers["Access-Control-Allow-Origin"] = origin
                headers["Access-Control-Expose-Headers"] = CORS_EXPOSED
        await send(message)

    return sending


async def _preflight(send: Send, *, allowed: bool) -> None:
    """Answer a browser's question; for an origin that is not listed, without the permission it asks for."""
    headers: list[tuple[bytes, bytes]] = [(b"content-length", b"0")]
    if allowed:
        headers += [
            (b"access-control-allow-methods", CORS_METHODS.encode()),
            (b"access-control-allow-headers", CORS_HEADERS.encode()),
            (b"access-control-max-age", b"600"),
        ]
    await send({"type": "http.response.start", "status": 204, "headers": headers})
    await send({"type": "http.response.body", "body": b""})
