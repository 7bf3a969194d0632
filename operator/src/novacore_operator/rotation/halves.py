"""The entries of a ring's private Secret: how one is minted, and what of them `plan` may see.

Invariant HALF-1: a `Half` holds no private member; an entry that is not sound, or not under its own number, is none.
"""

from __future__ import annotations

from collections.abc import Mapping

from novacore_contracts.identity import KID_PREFIX
from novacore_operator.rotation import forms
from novacore_operator.rotation.forms import Entropy
from novacore_operator.rotation.mint import sound_es256
from novacore_operator.rotation.rings import Half, entry_name

SUFFIX = ".jwk"


def mint(ring: str, n: int, *, why: str, now: float, entropy: Entropy) -> tuple[str, bytes]:
    """Return name and bytes of a new private entry: what `actions.MintHalf` asks for."""
    jwk = forms.es256_jwk(forms.new_p256(entropy), prefix=KID_PREFIX[ring], n=n)
    return f"{entry_name(ring, n)}{SUFFIX}", forms.dumps(jwk | {"minted_at": int(now), "why": why})


def read(ring: str, data: Mapping[str, bytes]) -> tuple[Half, ...]:
    """Return the sound entries of a private Secret, by number, without their private halves."""
    found = []
    for name, value in data.items():
        jwk = sound_es256(value, KID_PREFIX[ring])
        if jwk is None or name != f"{entry_name(ring, jwk['n'])}{SUFFIX}":
            continue
        minted_at, why = jwk.get("minted_at", 0), jwk.get("why", "")
        found.append(
            Half(
                name=name,
                n=jwk["n"],
                kid=jwk["kid"],
                public=forms.public_material(jwk),
                minted_at=float(minted_at) if isinstance(minted_at, int) else 0.0,
                why=why if isinstance(why, str) else "",
            )
        )
    return tuple(sorted(found, key=lambda half: half.n))
