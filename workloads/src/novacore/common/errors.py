"""Errors a client sees: RFC 9457 `application/problem+json`, one shape for all nine services.

`detail` is a public sentence: never a stack, SQL, a pattern, a peer's address or a value the client did not send.
`error` repeats `detail`, because old clients read it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from novacore.common import context

MEDIA_TYPE = "application/problem+json"


class ServiceError(Exception):
    """A refusal or failure with a status, a machine code and a sentence for the client."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(f"{status} {code}")
        self.status = status
        self.code = code
        self.detail = detail
        self.headers = dict(headers or {})
        self.extra = dict(extra or {})


def not_found(detail: str = "There is no such thing here.") -> ServiceError:
    """404: missing, or someone else's. The same body for both, so that ids cannot be probed."""
    return ServiceError(404, "not_found", detail)


def conflict(code: str = "conflict", detail: str = "The request contradicts the current state.") -> ServiceError:
    """409 with the given code."""
    return ServiceError(409, code, detail)


def validation_error(detail: str, errors: list[dict[str, Any]] | None = None) -> ServiceError:
    """400 for a request of the wrong shape."""
    return ServiceError(400, "validation_error", detail, extra={"errors": errors or []})


def unauthorized(code: str, detail: str, *, realm: str = "novacore-api") -> ServiceError:
    """401 with `WWW-Authenticate`. The realm tells a service whether its own token or the user's was refused."""
    return ServiceError(401, code, detail, headers={"WWW-Authenticate": f'Bearer realm="{realm}", error="{code}"'})


def forbidden(code: str, detail: str) -> ServiceError:
    """403 with the given code."""
    return ServiceError(403, code, detail)


def payment_required(code: str, detail: str) -> ServiceError:
    """402: `trial_over` or `payment_required`."""
    return ServiceError(402, code, detail)


def policy_blocked(detail: str, *, extra: Mapping[str, Any] | None = None) -> ServiceError:
    """422: the constitution forbids it."""
    return ServiceError(422, "policy_blocked", detail, extra=extra)


def rate_limited(retry_after_s: float, *, headers: Mapping[str, str] | None = None) -> ServiceError:
    """429 with `Retry-After`."""
    seconds = max(1, math.ceil(retry_after_s))
    return ServiceError(
        429,
        "rate_limited",
        f"Too many requests. Try again in {seconds} s.",
        headers={"Retry-After": str(seconds), **(headers or {})},
    )


def quota_exceeded(
    *, resource: str, used: int, limit: int, resets_at: str | None, retry_after_s: float
) -> ServiceError:
    """429: the account's allowance of `resource` is used up."""
    return ServiceError(
        429,
        "quota_exceeded",
        f"The allowance of {resource} is used up.",
        headers={"Retry-After": str(max(1, math.ceil(retry_after_s)))},
        extra={"resource": resource, "used": used, "limit": limit, "resets_at": resets_at},
    )


def unavailable(code: str, detail: str, *, retry_after_s: int = 2) -> ServiceError:
    """503 with `Retry-After`: `not_ready`, `upstream_down`, `shed`, `billing_disabled`."""
    return ServiceError(503, code, detail, headers={"Retry-After": str(retry_after_s)})


def deadline(detail: str = "The answer took too long.") -> ServiceError:
    """504."""
    return ServiceError(504, "deadline", detail)


def provider_error(detail: str = "The model provider failed.") -> ServiceError:
    """502: a model provider answered with an error."""
    return ServiceError(502, "provider_error", detail)


def problem(error: ServiceError, *, instance: str) -> JSONResponse:
    """Return the response of an error; remembers its code for the access log."""
    trail = context.current()
    if trail is not None:
        trail.code = error.code
    body: dict[str, Any] = {
        "type": f"urn:novacore:problem:{error.code}",
        "title": HTTPStatus(error.status).phrase,
        "status": error.status,
        "detail": error.detail,
        "error": error.detail,
        "instance": instance,
        "code": error.code,
        "request_id": context.request_id(),
        **error.extra,
    }
    return JSONResponse(body, status_code=error.status, headers=error.headers, media_type=MEDIA_TYPE)


def internal_error() -> ServiceError:
    """500: a fault of ours; what it was is in the log under the request id."""
    return ServiceError(500, "internal", "Something went wrong on our side. The request id finds it in the logs.")


def install_handlers(app: FastAPI) -> None:
    """Make every error of an app a problem document."""

    async def on_service_error(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, ServiceError)
        return problem(error, instance=request.url.path)

    async def on_validation(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        # `input` and `ctx` echo what was sent: they may hold a password.
        errors = [{name: entry[name] for name in ("loc", "msg", "type")} for entry in error.errors()]
        where = ".".join(str(part) for part in errors[0]["loc"]) if errors else "request"
        detail = f"{where}: {errors[0]['msg']}" if errors else "The request is not valid."
        return problem(validation_error(detail, errors), instance=request.url.path)

    async def on_http(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        code, detail = _HTTP_CODES.get(error.status_code, ("error", "The request was refused."))
        refusal = ServiceError(error.status_code, code, detail, headers=error.headers)
        return problem(refusal, instance=request.url.path)

    async def on_bug(request: Request, _error: Exception) -> JSONResponse:
        return problem(internal_error(), instance=request.url.path)

    app.add_exception_handler(ServiceError, on_service_error)
    app.add_exception_handler(RequestValidationError, on_validation)
    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(Exception, on_bug)


_HTTP_CODES: dict[int, tuple[str, str]] = {
    400: ("validation_error", "The request is not valid."),
    404: ("not_found", "There is no such thing here."),
    405: ("method_not_allowed", "This method is not offered here."),
    413: ("too_large", "The request body is too large."),
    415: ("unsupported_media", "This media type is not accepted here."),
}
