"""What every builder may look at: the resource, what is observed of it, and what was made from its material."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from novacore_operator.state import Material, Nova, Observed


@dataclass(frozen=True, slots=True)
class Contents:
    """What the builders need beside spec and observation: material, and what was derived from it."""

    material: Material = field(repr=False)
    root_jwks: str
    ca_bundle: str
    redis_users: Mapping[str, Mapping[str, str]]  # store -> user -> SHA-256 of his password
    roles_hash: str
    store_hash: Mapping[str, str]  # store -> hash of the Secrets it reads when it starts


@dataclass(frozen=True, slots=True)
class Site:
    """One installation, as its builders see it."""

    nova: Nova
    seen: Observed
    contents: Contents
