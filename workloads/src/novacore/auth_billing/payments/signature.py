"""The header `Stripe-Signature`, judged. Pure: secrets and time are parameters.

The `stripe` library takes one secret, and never refuses a time in the future; here several secrets are accepted at
once, and a time is refused on both sides. Invariants: SIGN-1 a body passes only with a `v1` made by an accepted secret
over exactly these bytes and this time; SIGN-2 |now - t| > 300 s is refused, old and future alike.
Scheme: https://docs.stripe.com/webhooks#verify-manually. `v0` is Stripe's mark for test events and counts for nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from novacore_contracts.keyset import KeyState

TOLERANCE_S: Final = 300
HEADER_CHARS_MAX: Final = 4096
SIGNATURES_MAX: Final = 16
_DIGITS: Final = re.compile(r"[0-9]{1,12}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Secret:
    """A webhook secret that is accepted; `id` is its entry in the ring, `stripeWebhook-<n>`."""

    id: str
    state: KeyState
    value: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whose secret matched, if any, and whether the call passes."""

    secret: Secret | None
    passed: bool


REFUSED: Final = Verdict(None, passed=False)


def judge(body: bytes, header: str | None, secrets: Sequence[Secret], *, now_s: float) -> Verdict:
    """Return the verdict about one call. Every accepted secret is tried against every `v1`."""
    if not header or len(header) > HEADER_CHARS_MAX:
        return REFUSED
    time, signatures = _parts(header)
    if time is None:
        return REFUSED
    signed = time.encode() + b"." + body
    for secret in secrets:
        made = hmac.digest(secret.value.encode(), signed, hashlib.sha256).hex().encode()
        if any(hmac.compare_digest(made, given) for given in signatures):
            return Verdict(secret, passed=abs(now_s - int(time)) <= TOLERANCE_S)
    return REFUSED


def sign(body: bytes, secrets: Sequence[str], *, now_s: int) -> str:
    """Return the header that Stripe would send: one `v1` for each secret."""
    signed = f"{now_s}.".encode() + body
    made = (hmac.digest(secret.encode(), signed, hashlib.sha256).hex() for secret in secrets)
    return ",".join([f"t={now_s}", *(f"v1={signature}" for signature in made)])


def _parts(header: str) -> tuple[str | None, list[bytes]]:
    """Return the time as it was signed, and the `v1` signatures. Two times are none: which one was signed?"""
    times: list[str] = []
    signatures: list[bytes] = []
    for part in header.split(","):
        name, _, value = part.strip().partition("=")
        if name == "t":
            times.append(value)
        elif name == "v1" and len(signatures) < SIGNATURES_MAX:
            signatures.append(value.encode())
    if len(times) != 1 or _DIGITS.fullmatch(times[0]) is None:
        return None, []
    return times[0], signatures
