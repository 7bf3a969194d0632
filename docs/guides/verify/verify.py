"""Verify NovaCore user tokens: python verify.py JWKS_URL, one token a line on standard input. Needs PyJWT[crypto]."""

from __future__ import annotations

import json
import sys
import time
import urllib.request
from typing import Any

import jwt

ISSUER, AUDIENCE = "novacore-auth", "novacore-api"
TOKEN_BYTES_MAX = 8192
LEEWAY_S = 30  # clocks differ
LIFE_MAX_S = 900  # a stolen key must not make a token for a year
KEYS_MAX_AGE_S = 60.0  # a revoked key is refused after this; the answer's Cache-Control says the same
PAUSE_S = 10.0  # between two fetches for kids we do not know: forged tokens must not make us fetch
REQUIRED = ["exp", "iat", "sub", "iss", "aud"]


class Refused(Exception):
    """The token is not valid."""


class Verifier:
    """Holds the public keys; one per process."""

    def __init__(self, url: str, max_age_s: float = KEYS_MAX_AGE_S) -> None:
        self._url = url
        self._max_age_s = max_age_s
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetched_at = float("-inf")

    def verify(self, token: str) -> dict[str, Any]:
        """Return the claims of a valid token; Refused otherwise."""
        if len(token) > TOKEN_BYTES_MAX:
            raise Refused("too long")
        try:
            header = jwt.get_unverified_header(token)
            if "crit" in header:
                raise Refused("crit")
            key = self._key(header.get("kid"))
            # The algorithm is ours to choose, never the token's.
            claims = jwt.decode(
                token, key, algorithms=["ES256"], issuer=ISSUER, audience=AUDIENCE, leeway=LEEWAY_S,
                options={"require": REQUIRED, "strict_aud": True},
            )  # fmt: skip
        except jwt.PyJWTError as error:
            raise Refused(type(error).__name__) from None
        if not isinstance(claims["exp"], int) or not isinstance(claims["iat"], int):  # PyJWT takes texts too
            raise Refused("exp or iat")
        if claims["exp"] - claims["iat"] > LIFE_MAX_S:
            raise Refused("lives too long")
        if claims["sub"] == "canary":  # proves a key to the platform itself, and is nobody
            raise Refused("canary")
        return claims

    def _key(self, kid: object) -> jwt.PyJWK:
        if not isinstance(kid, str):
            raise Refused("no kid")
        age_s = time.monotonic() - self._fetched_at
        if age_s >= self._max_age_s or (kid not in self._keys and age_s >= PAUSE_S):
            self._fetch()
        if kid not in self._keys:
            raise Refused("unknown kid")
        return self._keys[kid]

    def _fetch(self) -> None:
        self._fetched_at = time.monotonic()
        with urllib.request.urlopen(self._url, timeout=5) as answer:
            keys = json.load(answer)["keys"]
        self._keys = {key["kid"]: jwt.PyJWK(key, algorithm="ES256") for key in keys}


def main(url: str, max_age_s: str = str(KEYS_MAX_AGE_S)) -> None:
    """Say of each token on standard input whose it is, or why it is refused."""
    verifier = Verifier(url, float(max_age_s))
    for line in sys.stdin:
        try:
            said = {"sub": verifier.verify(line.strip())["sub"]}
        except Refused as refused:
            said = {"refused": str(refused)}
        print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
