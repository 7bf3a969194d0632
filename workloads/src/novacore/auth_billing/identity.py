"""Issuing tokens: user tokens, service tokens, canaries, with the claims a verifier asks for, no more.

`nbf` is ten seconds in the past, because a verifier's clock may be behind.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from novacore.auth_billing.repository import Account
from novacore.auth_billing.review import TokenReviewer
from novacore.auth_billing.schemas import CanaryRead
from novacore.auth_billing.settings import AuthBillingSettings
from novacore.auth_billing.signer import NoKeyError, Signer
from novacore.common.clock import Clock
from novacore.common.errors import not_found, unauthorized, unavailable
from novacore.common.ids import uuid7
from novacore.common.keyring import AUDIENCES, DocumentError, KeyRings
from novacore.common.log import get_logger
from novacore.common.metrics import Metrics
from novacore_contracts.identity import (
    CANARY_SUBJECT,
    ISSUER,
    LEEWAY_SECONDS,
    PERMISSIONS,
    SERVICE_AUDIENCE,
    USER_AUDIENCE,
)
from novacore_contracts.keyset import (
    CANARY_REQUEST_SECONDS_MAX,
    CANARY_REQUEST_TYPE,
    CanaryRequest,
    RingDocumentError,
)

log = get_logger()

NOT_BEFORE_SECONDS = 10
CANARY_SECONDS = 60


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A signed user token."""

    token: str = field(repr=False)
    jti: UUID
    expires_in: int


class Issuer:
    """The one place where tokens are made."""

    def __init__(
        self,
        *,
        settings: AuthBillingSettings,
        keyrings: KeyRings,
        users: Signer,
        services: Signer,
        reviewer: TokenReviewer,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._settings = settings
        self._keyrings = keyrings
        self._signers = {signer.ring: signer for signer in (users, services)}
        self._users = users
        self._services = services
        self._reviewer = reviewer
        self._clock = clock
        self._issued = metrics.counter("novacore_tokens_issued_total")

    def access_token(self, account: Account) -> AccessToken:
        """Return a user token of an account as it is now."""
        jti = uuid7()
        life = min(self._settings.user_token_seconds, self._users.ttl_max or self._settings.user_token_seconds)
        claims = {
            "iss": ISSUER,
            "aud": USER_AUDIENCE,
            "sub": str(account.id),
            "email": account.email,
            "role": account.role,
            "tier": account.tier,
            "scope": "api",
            "sv": account.sv,
            "jti": str(jti),
            **self._times(life),
        }
        token = self._users.sign(claims)
        self._issued.labels("access").inc()
        return AccessToken(token=token, jti=jti, expires_in=life)

    async def service_token(self, bootstrap: str, *, min_generation: int) -> tuple[str, int, int]:
        """Return (token, seconds it lives, generation) for the pod that presents a projected token.

        ServiceError 401 or 403 for a stranger; 503 `keyset_behind` while this signer is older than the caller.
        """
        identity = await self._reviewer.identify(bootstrap)
        if self._services.generation < min_generation:
            self._keyrings.load()
            self._services.load()
        if self._services.generation < min_generation:
            raise unavailable("keyset_behind", "This signer has not seen that keyset yet.", retry_after_s=1)
        life = min(self._settings.service_token_seconds, self._services.ttl_max or self._settings.service_token_seconds)
        claims = {
            "iss": ISSUER,
            "aud": SERVICE_AUDIENCE,
            "sub": identity.service,
            "permissions": sorted(PERMISSIONS[identity.service]),
            "jti": str(uuid7()),
            **self._times(life),
        }
        token = self._services.sign(claims)
        self._issued.labels("service").inc()
        log.info("service_token_issued", subject=identity.service, pod_uid=identity.pod_uid, expires_in=life)
        return token, life, self._services.generation

    def canary(self, request: str) -> CanaryRead:
        """Return a token that proves the private half of a key is here and means nothing else.

        `request`: a `CanaryRequest` as a compact JWS by a root key; nobody but the operator has one. That needs no
        service token, so it works in an emergency too, when the key of all service tokens is the one that leaked.
        ServiceError 401 when no root key signed it, or it has ended; 404 when the private half is not here.
        """
        asked = self._asked(request)
        signer = self._signers[asked.ring]
        claims: dict[str, Any] = {
            "iss": ISSUER,
            "aud": AUDIENCES[asked.ring],
            "sub": CANARY_SUBJECT,
            "permissions": [],
            "jti": str(uuid7()),
            **self._times(min(CANARY_SECONDS, signer.ttl_max or CANARY_SECONDS)),
        }
        try:
            token = signer.sign_with(asked.kid, claims)
        except NoKeyError:
            raise not_found("The private half of that key is not here.") from None
        return CanaryRead(token=token, kid=asked.kid, generation=signer.generation)

    def _asked(self, request: str) -> CanaryRequest:
        try:
            asked = CanaryRequest.from_bytes(
                self._keyrings.signed_by_root(request.encode("ascii", "replace"), typ=CANARY_REQUEST_TYPE)
            )
        except (DocumentError, RingDocumentError) as error:
            raise unauthorized("token_invalid", f"The request was refused: {error}.") from None
        left = asked.exp - self._clock.now().timestamp()
        if not -LEEWAY_SECONDS < left <= CANARY_REQUEST_SECONDS_MAX + LEEWAY_SECONDS:
            raise unauthorized("token_expired", "The request has ended, or it is for longer than a minute.")
        return asked

    def jwks(self) -> dict[str, Any]:
        """Return the public user keys as a JWK set, for outsiders; our services use the ring."""
        ring = self._keyrings.ring("userJwt")
        if ring is None:
            raise unavailable("not_ready", "The keyset is not here yet.")
        keys = [
            {
                **{name: key.material[name] for name in ("kty", "crv", "x", "y", "alg", "use") if name in key.material},
                "kid": key.kid,
            }
            for key in ring.document.keys
            if key.kid in ring.keys
        ]
        return {"keys": keys}

    def _times(self, life: int) -> dict[str, int]:
        issued = int(self._clock.now().timestamp())
        return {"iat": issued, "nbf": issued - NOT_BEFORE_SECONDS, "exp": issued + life}
