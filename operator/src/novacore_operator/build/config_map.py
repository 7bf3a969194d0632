"""ConfigMaps that carry public key material."""

from __future__ import annotations

from novacore_operator.build.common import manifest
from novacore_operator.state import Manifest, Nova, names


def build_ca(nova: Nova, certificates: str) -> Manifest:
    """Return the ConfigMap with the CA certificates (PEM) that clients of Postgres and Redis trust."""
    return manifest("ConfigMap", nova, names.CA, component="keyset", data={"ca.crt": certificates})


def build_keyset_root(nova: Nova, jwks: str) -> Manifest:
    """Return the ConfigMap with the public root keys, against which every ring document is verified."""
    return manifest("ConfigMap", nova, names.KEYSET_ROOT, component="keyset", data={"root.jwks": jwks})
