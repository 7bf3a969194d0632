"""Calls to Stripe: which key signs them, and what a failure allows. The only module that uses the `stripe` library.

Keys come from the ring `stripeKey`: all of its entries are accepted, the active one first, one client for each entry.
Invariants: STRIPE-1 a call refused with 401 was not executed, so it goes once to the other accepted key; STRIPE-2 a
call that may have been executed (time-out, broken connection, 5xx) is repeated with the same key and the same
Idempotency-Key only: nobody says whether that key is known beyond the API key it came with; STRIPE-3 if the first key
is refused after that, the outcome is looked up, and only what is not found is sent again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp
import stripe

from novacore.auth_billing.payments.settings import StripeSettings
from novacore.common.errors import ServiceError, unavailable
from novacore.common.keyring import KeyRings
from novacore.common.log import get_logger

log = get_logger()

RING: Final = "stripeKey"
TIMEOUT_S: Final = 8.0
PAUSES_S: Final = (0.2, 1.0)
"""Before the second and the third attempt: the one loop of repetitions on this path."""
LOOKUPS: Final = 5
"""How often an uncertain outcome is looked up, a time-out apart: the call may still be on its way."""
RETIRED_S: Final = 60.0
"""How long a client outlives its key: longer than all attempts of a call together."""
PAGE: Final = 100

_UNCERTAIN: Final = (
    stripe.APIConnectionError,
    stripe.APIError,
    stripe.RateLimitError,
    # The library reads the body outside of its own net: an answer that breaks off in its middle comes as what it is.
    aiohttp.ClientError,
    TimeoutError,
)

Json = dict[str, Any]
Find = Callable[[], Awaitable[Json | None]]


class StripeError(Exception):
    """Stripe did not do it. `reason` is a machine word; no answer of Stripe is in it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class StripeAwayError(StripeError):
    """Nobody's fault of the object's: Stripe is away, is too busy, or takes none of our keys. Try later."""


@dataclass(slots=True)
class _Client:
    material: str = field(repr=False)
    client: stripe.StripeClient
    http: stripe.AIOHTTPClient


class Gate:
    """The way out to Stripe."""

    def __init__(
        self,
        keyrings: KeyRings,
        settings: StripeSettings,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        stripe.enable_telemetry = False
        self._keyrings = keyrings
        self._settings = settings
        self._sleep = sleep
        self._timeout_s = timeout_s
        self._clients: dict[str, _Client] = {}
        self._retired: list[tuple[float, stripe.AIOHTTPClient]] = []  # from when on nobody uses it, by the loop's time

    async def get(self, path: str, params: Mapping[str, Any] | None = None) -> Json | None:
        """Return an object, or None when Stripe has none of that id. A read is harmless: any accepted key may do it."""
        try:
            return await self._call("get", path, params or {}, idempotency_key=None, find=None)
        except stripe.InvalidRequestError as error:
            if error.http_status == 404:
                return None
            raise _refused(error) from None

    async def pages(self, path: str, params: Mapping[str, Any]) -> AsyncIterator[list[Json]]:
        """Yield a list page by page, the newest first as Stripe has it."""
        after: dict[str, Any] = {}
        while True:
            page = await self.get(path, {**params, **after, "limit": PAGE})
            data: list[Json] = (page or {}).get("data", [])
            if data:
                yield data
            if page is None or not page.get("has_more") or not data:
                return
            after = {"starting_after": data[-1]["id"]}

    async def post(
        self, path: str, params: Mapping[str, Any], *, idempotency_key: str, find: Find, tried_before: bool = False
    ) -> Json:
        """Do something once and return what came of it. `find` looks up whether it was done, when nobody can say.

        `tried_before`: an earlier call of this ended with StripeAwayError, so it is looked up first.
        """
        if tried_before and (done := await find()) is not None:
            return done
        try:
            return await self._call("post", path, params, idempotency_key=idempotency_key, find=find)
        except stripe.StripeError as error:
            raise _refused(error) from None

    async def probe(self, key_id: str) -> bool:
        """Return whether Stripe takes one key: the proof that it may become the active one."""
        client = next((client for id_, client in self._accepted() if id_ == key_id), None)
        if client is None:
            return False
        try:
            await client.raw_request_async("get", "/v1/events", limit=1)
        except (stripe.StripeError, *_UNCERTAIN):
            return False
        return True

    async def close(self) -> None:
        """Close all connections."""
        self._retire(keep={})
        await self._close_retired(at_once=True)

    async def _call(
        self, method: str, path: str, params: Mapping[str, Any], *, idempotency_key: str | None, find: Find | None
    ) -> Json:
        keys = self._accepted()
        if not keys:
            raise StripeAwayError("no_key")
        self._retire(keep=dict(keys))
        await self._close_retired()
        options = dict(params) | ({"idempotency_key": idempotency_key} if idempotency_key else {})
        (key_id, client), others = keys[0], keys[1:2]
        executed = False  # as far as we can know
        attempt = 0
        while True:
            try:
                answer = await client.raw_request_async(method, path, **options)
            except (stripe.AuthenticationError, stripe.PermissionError) as error:
                if not others:
                    log.error("stripe_key_refused", key_id=key_id, status=error.http_status)
                    raise StripeAwayError("key_refused") from None
                log.warning("stripe_key_refused", key_id=key_id, other=others[0][0], status=error.http_status)
                if executed and find is not None and (done := await self._look_up(find)) is not None:
                    return done
                ((key_id, client), others, executed) = (others[0], [], False)
                continue
            except _UNCERTAIN as error:
                executed |= method == "post" and not isinstance(error, stripe.RateLimitError)
                if attempt == len(PAUSES_S):
                    raise StripeAwayError(_reason(error)) from None
                await self._sleep(PAUSES_S[attempt])
                attempt += 1
                continue
            data: Json = dict(answer.data)
            return data

    async def _look_up(self, find: Find) -> Json | None:
        """Return what an uncertain call did. Not found at once is no proof: it may still be on its way."""
        for number in range(LOOKUPS):
            if (done := await find()) is not None:
                return done
            if number < LOOKUPS - 1:
                await self._sleep(self._timeout_s / LOOKUPS)
        return None

    def _accepted(self) -> list[tuple[str, stripe.StripeClient]]:
        """Return the accepted keys' clients, the active one first."""
        found = []
        for key in self._keyrings.accepted(RING):
            value = str(key.material.get("api_key", ""))
            held = self._clients.get(key.kid)
            if held is None or held.material != value:
                self._retire(keep={id_: None for id_ in self._clients if id_ != key.kid})
                held = self._clients[key.kid] = self._build(value)
            found.append((key.kid, held.client))
        return found

    def _build(self, api_key: str) -> _Client:
        timeout = aiohttp.ClientTimeout(total=self._timeout_s)
        http = stripe.AIOHTTPClient(timeout=timeout)
        base: Any = {"api": self._settings.api_url} if self._settings.api_url else None
        client = stripe.StripeClient(api_key, http_client=http, base_addresses=base, max_network_retries=0)
        return _Client(api_key, client, http)

    def _retire(self, *, keep: Mapping[str, object]) -> None:
        """Let go of clients whose key is accepted no more. Calls on their way still end on theirs."""
        until = asyncio.get_running_loop().time() + RETIRED_S
        for id_ in [id_ for id_ in self._clients if id_ not in keep]:
            self._retired.append((until, self._clients.pop(id_).http))

    async def _close_retired(self, *, at_once: bool = False) -> None:
        now = asyncio.get_running_loop().time()
        due = [http for until, http in self._retired if at_once or until <= now]
        self._retired = [(until, http) for until, http in self._retired if http not in due]
        for http in due:
            await http.close_async()  # type: ignore[no-untyped-call]  # untyped there


def _reason(error: Exception) -> str:
    status = error.http_status if isinstance(error, stripe.StripeError) else None
    return "unreachable" if status is None else f"status_{status}"


def _refused(error: stripe.StripeError) -> StripeError:
    """Return our error: Stripe's own sentence may name a customer."""
    log.error("stripe_refused", status=error.http_status, code=error.code, reference=error.request_id)
    return StripeError(f"status_{error.http_status}")


def as_service_error(error: StripeError) -> ServiceError:
    """Return what a person is told."""
    if isinstance(error, StripeAwayError):
        return unavailable("upstream_down", "The payment provider does not answer now. Try again.")
    return ServiceError(502, "provider_error", "The payment provider refused this.")
