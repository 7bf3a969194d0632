"""What travels between the operator and the pods when keys are proven: pods' claims, requests for canaries, canaries.

A canary of a key that is trusted is made by a signer, which so proves that it holds the private half. One of a revoked
key is made here: no signer should be able to any more.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from novacore_contracts.identity import CANARY_SUBJECT, ISSUER, SERVICE_AUDIENCE, USER_AUDIENCE
from novacore_contracts.keyset import CANARY_REQUEST_SECONDS_MAX, CANARY_REQUEST_TYPE, CanaryRequest
from novacore_operator.rotation import forms
from novacore_operator.rotation.forms import Jwk
from novacore_operator.rotation.seen import Report

AUDIENCES: Mapping[str, str] = {"serviceJwt": SERVICE_AUDIENCE, "userJwt": USER_AUDIENCE}
REQUEST_S = CANARY_REQUEST_SECONDS_MAX // 2
"""What a request for a canary lives: clocks differ by up to half a minute."""
CANARY_S = 60
NUMBER_MAX = 1 << 40


def report_of(body: Any, ring: str, *, asked_at: float, answered_at: float) -> Report | None:
    """Return a pod's claims about a ring, from the body of its `/readyz`; None when it says nothing of it.

    `asked_at`, `answered_at`: Unix seconds by our clock. The pod tells whole seconds, so its clock counts as right when
    the middle of the request lies within the second that it told.
    """
    try:
        claim = body["rings"][ring]
        signer = (body.get("signer") or {}).get(ring) or {}
        since = signer.get("active_since")
        return Report(
            generation=_bounded(claim["generation"]),
            active_kid=str(claim["active_kid"]),
            kids=frozenset(str(kid) for kid in claim["kids"]),
            last_ok={str(kid): float(_bounded(at)) for kid, at in claim["last_ok"].items()},
            token_kid=str(body["token_kid"]) if ring == "serviceJwt" and body["token_kid"] is not None else None,
            skew_s=_skew_s(_bounded(body["clock"]), (asked_at + answered_at) / 2),
            signer_kids=frozenset(str(kid) for kid in signer.get("kids", ())),
            active_since=float(_bounded(since)) if since is not None else None,
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return None


def _bounded(value: Any) -> int:
    """Return a whole number that a pod may claim. ValueError for one that no generation and no clock has."""
    number = int(value)
    if not 0 <= number < NUMBER_MAX:
        raise ValueError(number)
    return number


def _skew_s(told: int, middle: float) -> float:
    if told <= middle < told + 1:
        return 0.0
    return told - middle if told > middle else told + 1 - middle


def canary_request(ring: str, kid: str, root: Jwk, *, now: float) -> str:
    """Return the signed request for a canary, a compact JWS by the root key."""
    asked = CanaryRequest(ring, kid, int(now) + REQUEST_S)
    return forms.sign(asked.to_bytes(), root, typ=CANARY_REQUEST_TYPE).decode()


def canary(ring: str, half: Jwk, *, now: float, ttl_max_s: int) -> str:
    """Return a canary signed with a private entry: for the proof that a revoked key is refused."""
    issued = int(now)
    claims = {
        "iss": ISSUER,
        "aud": AUDIENCES[ring],
        "sub": CANARY_SUBJECT,
        "permissions": [],
        "iat": issued,
        "exp": issued + min(CANARY_S, ttl_max_s),
        "jti": f"canary-{half['kid']}-{issued}",
    }
    return forms.sign(forms.dumps(claims), half, typ="JWT").decode()
