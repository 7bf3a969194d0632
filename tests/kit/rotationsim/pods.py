"""What a pod does, by the rules of `novacore.common.keyring` and `.tokens`: takes in documents, verifies, signs, renews.

Signatures are left out: a kid stands for its key, and only the private Secret's mount gives a signer the private half.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

from novacore.common.tokens import AFTER_SWITCH_SECONDS, JITTER, RENEW_AT
from novacore_contracts.keyset import RingDocument

SIGNER = "auth-billing"


class Token(NamedTuple):
    """A token. Times are by the signer's clock."""

    kid: str
    iat: int
    exp: int
    sub: str


class View:
    """One accepted document, ready to verify with."""

    __slots__ = ("denied", "document", "gone", "trusted")

    def __init__(self, document: RingDocument) -> None:
        self.document = document
        self.gone = {stone.kid: stone.why for stone in document.tombstones}
        self.trusted = frozenset(key.kid for key in document.keys) - self.gone.keys()
        self.denied = {entry.sub: entry.iat_before or 0 for entry in document.deny if entry.sub}


VIEWS: dict[int, View] = {}


def view_of(document: RingDocument) -> View:
    """Return a document's view, made once for all pods that hold it."""
    found = VIEWS.get(id(document))
    if found is None or found.document is not document:
        if len(VIEWS) > 4096:
            VIEWS.clear()
        found = VIEWS[id(document)] = View(document)
    return found


@dataclass(slots=True, eq=False)
class SimPod:
    """One pod. `claimed` is what it says it holds; `view` is what it verifies with (a deaf pod's is older)."""

    name: str
    uid: str
    service: str
    created_at: float
    skew_s: float = 0.0
    phase: str = "Running"
    fenced: bool = False
    gone_at: float | None = None  # terminating until then
    frozen_until: float = 0.0  # SIGSTOP
    cut_off_until: float = 0.0  # the operator does not reach it
    mount_stuck_until: float = 0.0
    deaf_s: float = 0.0
    view: View | None = None
    claimed: View | None = None
    coming: list[tuple[float, View]] = field(default_factory=list)  # a deaf pod's
    halves: frozenset[str] = frozenset()
    active_since: float | None = None
    token: Token | None = None
    renew_at: float = 0.0
    retry_at: float = 0.0
    switch: tuple[str, float] | None = None
    last_ok: dict[str, float] = field(default_factory=dict)
    told: dict[str, float] | None = None  # the `last_ok` that the operator was shown
    refused_canary_of: set[str] = field(default_factory=set)

    @property
    def signs(self) -> bool:
        return self.service == SIGNER

    def serves(self, now: float) -> bool:
        """Whether it answers requests of others now."""
        return self.phase == "Running" and not self.fenced and self.view is not None and self.frozen_until <= now

    def reachable(self, now: float) -> bool:
        """Whether it answers the operator."""
        return (
            self.phase == "Running" and self.view is not None and self.frozen_until <= now and self.cut_off_until <= now
        )

    def take_in(self, document: RingDocument, now: float) -> None:
        """Accept a document, if its generation is above the one in use."""
        held = self.claimed
        if held is not None and document.generation <= held.document.generation:
            return
        new = view_of(document)
        self.claimed = new
        if self.deaf_s and self.view is not None:
            self.coming.append((now + self.deaf_s, new))
        else:
            self._use(new, now)

    def hear(self, now: float) -> None:
        """Let a deaf pod catch up with what it claimed."""
        while self.coming and self.coming[0][0] <= now:
            self._use(self.coming.pop(0)[1], now)

    def _use(self, new: View, now: float) -> None:
        old = self.view
        self.view = new
        if old is None or old.document.active_kid != new.document.active_kid:
            self.active_since = now + self.skew_s
        if self.last_ok:
            self.last_ok = {kid: at for kid, at in self.last_ok.items() if kid in new.trusted}

    def verify(self, token: Token, now: float) -> str:
        """Return `ok`, or the code of the 401."""
        view = self.view
        assert view is not None
        if token.kid not in view.trusted:
            why = view.gone.get(token.kid)
            return f"kid_{why}" if why else "kid_unknown"
        clock, leeway = now + self.skew_s, view.document.leeway
        if token.exp - token.iat > view.document.ttl_max or token.iat > clock + leeway:
            return "token_invalid"
        if token.exp <= clock - leeway:
            return "token_expired"
        if token.iat < view.denied.get(token.sub, 0):
            return "denied"
        return "ok"

    def sign(self, sub: str, now: float, *, at_least: int = 0) -> Token | None:
        """Return a token by the key that signs, if this signer has its private half and is not behind the caller."""
        view = self.view
        if view is None or view.document.generation < at_least or view.document.active_kid not in self.halves:
            return None
        iat = int(now + self.skew_s)
        return Token(view.document.active_kid, iat, iat + view.document.ttl_max, sub)

    def canary(self, kid: str, now: float) -> Token | None:
        """Return a canary by a key it holds the private half of."""
        iat = int(now + self.skew_s)
        life = min(60, self.view.document.ttl_max) if self.view is not None else 60
        return Token(kid, iat, iat + life, "canary") if kid in self.halves else None

    # --- as a caller ------------------------------------------------------------------------------------------------

    def is_due(self, now: float, draw: Random, spread_s: float = AFTER_SWITCH_SECONDS) -> bool:
        """Return whether its own token is to be renewed, as `ServiceTokens._due` does."""
        held, view, clock = self.token, self.view, now + self.skew_s
        if held is None:
            return True
        if view is not None and held.kid != view.document.active_kid:
            if view.document.renew_now or held.kid not in view.trusted:
                return True
            if self.switch is None or self.switch[0] != view.document.active_kid:
                self.switch = (view.document.active_kid, clock + draw.uniform(0, spread_s))
            if clock >= self.switch[1]:
                return True
        return clock >= self.renew_at

    def got(self, token: Token, now: float, draw: Random) -> None:
        """Keep a new token, to be renewed at 80 % of its life."""
        life = token.exp - token.iat
        self.token = token
        self.renew_at = now + self.skew_s + life * RENEW_AT * (1 - draw.uniform(0, JITTER))
