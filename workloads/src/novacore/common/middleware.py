"""The outermost layer of each listener, pure ASGI: request id, trace, deadline, metrics, access log, and the last net
for exceptions. BaseHTTPMiddleware would run the endpoint in another task and buffer streams.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from novacore.common import context
from novacore.common.errors import ServiceError, internal_error, problem
from novacore.common.ids import REQUEST_ID, uuid7
from novacore.common.log import get_logger
from novacore.common.metrics import Metrics
from novacore_contracts.identity import DEADLINE_HEADER, REQUEST_ID_HEADER
from novacore_contracts.metrics import METHOD, QUIET_ROUTES, STATUS_CODES

log = get_logger()

DEADLINE_MS_MAX = 900_000
BODY_BYTES_MAX = 1 << 20
UNMATCHED = "unmatched"
CLIENT_LEFT = "client_left"


class TooLargeError(Exception):
    """The body outgrew its limit while it was read."""


class RequestMiddleware:
    """Wraps one listener."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        metrics: Metrics,
        body_bytes_max: int = BODY_BYTES_MAX,
        larger_bodies: Mapping[str, int] | None = None,
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._body_bytes_max = body_bytes_max
        self._larger_bodies = larger_bodies or {}
        self._total = metrics.counter("http_requests_total")
        self._seconds = metrics.histogram("http_request_duration_seconds")
        self._first_byte = metrics.histogram("http_response_start_seconds")
        self._in_flight = metrics.gauge("http_requests_in_flight")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get(REQUEST_ID_HEADER, "")
        request_id = given if REQUEST_ID.fullmatch(given) else str(uuid7())
        with context.bind(
            request_id=request_id, traceparent=headers.get("traceparent"), deadline_s=_deadline(headers)
        ) as trail:
            bytes_max = self._larger_bodies.get(scope["path"], self._body_bytes_max)
            await _Exchange(self, scope, trail, bytes_max).run(self._app, receive, send)

    def record(self, exchange: _Exchange) -> None:
        """Count and time an answered request."""
        method = exchange.scope["method"] if exchange.scope["method"] in METHOD.values else "other"
        route = self._metrics.bounded("http_requests_total", "route", exchange.route)
        code = str(exchange.status) if str(exchange.status) in STATUS_CODES else "other"
        self._total.labels(method, route, code).inc()
        exemplar = {"trace_id": exchange.trail.traceparent.split("-")[1]}
        # A stream's length is the reader's wish, not our speed: it is timed to its first byte.
        timed = exchange.first_byte_s if exchange.slo == "stream" else exchange.total_s
        self._seconds.labels(method, route, exchange.slo).observe(timed, exemplar)
        self._first_byte.labels(route).observe(exchange.first_byte_s)


class _Exchange:
    """One request and its answer."""

    def __init__(self, owner: RequestMiddleware, scope: Scope, trail: context.Trail, body_bytes_max: int) -> None:
        self.scope = scope
        self.trail = trail
        self.status = 500
        self.slo = "batch" if scope["path"] in QUIET_ROUTES else "interactive"
        self.bytes_in = 0
        self.bytes_out = 0
        self.first_byte_s = 0.0
        self.total_s = 0.0
        self._owner = owner
        self._started_at = time.monotonic()
        self._answering = False
        self._body_bytes_max = body_bytes_max

    @property
    def route(self) -> str:
        """The template of the matched route."""
        return self.trail.route or route_template(self.scope)

    async def run(self, app: ASGIApp, receive: Receive, send: Send) -> None:  # noqa: C901 - three small closures
        async def counted_receive() -> Message:
            message = await receive()
            if message["type"] == "http.request":
                self.bytes_in += len(message.get("body", b""))
                if self.bytes_in > self._body_bytes_max:
                    raise TooLargeError
            return message

        async def counted_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._start(message)
            elif message["type"] == "http.response.body":
                self.bytes_out += len(message.get("body", b""))
            await send(message)

        self._owner._in_flight.inc()  # noqa: SLF001 - same module
        try:
            declared = Headers(scope=self.scope).get("content-length", "")
            if declared.isdigit() and int(declared) > self._body_bytes_max:
                raise TooLargeError
            await app(self.scope, counted_receive, counted_send)
        except TooLargeError:
            await self._answer(ServiceError(413, "too_large", "The request body is too large."), receive, counted_send)
        except ServiceError as error:
            await self._answer(error, receive, counted_send)
        except Exception as error:
            log.error("request_failed", error=error, route=self.route, method=self.scope["method"])
            await self._answer(internal_error(), receive, counted_send)
        finally:
            self._owner._in_flight.dec()  # noqa: SLF001 - same module
            self.total_s = time.monotonic() - self._started_at
            if self.trail.code == CLIENT_LEFT:
                self.status = 499  # nginx's number for it; logged and counted, never sent
            self._owner.record(self)
            self._write_line()

    def _start(self, message: Message) -> None:
        self._answering = True
        self.status = message["status"]
        self.first_byte_s = time.monotonic() - self._started_at
        headers = MutableHeaders(scope=message)
        headers[REQUEST_ID_HEADER] = self.trail.request_id
        if headers.get("content-type", "").startswith("text/event-stream"):
            self.slo = "stream"

    async def _answer(self, error: ServiceError, receive: Receive, send: Send) -> None:
        if self._answering:
            self.trail.code = error.code
            return  # the head is out: all that is left is to break the connection
        await problem(error, instance=self.scope["path"])(self.scope, receive, send)

    def _write_line(self) -> None:
        if self.scope["path"] in QUIET_ROUTES:
            return
        fields: dict[str, Any] = {
            "route": self.route,
            "method": self.scope["method"],
            "status": self.status,
            "ms": round(self.total_s * 1000, 1),
            "bytes_in": self.bytes_in,
            "bytes_out": self.bytes_out,
        }
        if self.trail.code is not None:
            fields["code"] = self.trail.code
        log.info("request", **fields)


def route_template(scope: Scope) -> str:
    """Return the path template of the matched route; `unmatched` without one: never the raw path."""
    effective = scope.get("fastapi", {}).get("effective_route_context")
    for source in (effective, scope.get("route")):
        path = getattr(source, "path_format", None) or getattr(source, "path", None)
        if path:
            return str(path)
    return UNMATCHED


def _deadline(headers: Headers) -> float | None:
    value = headers.get(DEADLINE_HEADER, "")
    if not value.isdigit():
        return None
    return min(int(value), DEADLINE_MS_MAX) / 1000
