"""ConfigMaps: public key material, the services' settings, the data stores' configuration."""

from __future__ import annotations

from collections.abc import Iterator

from novacore_operator.build.common import CONFIG_MAP, manifest
from novacore_operator.build.settings import build_settings
from novacore_operator.build.site import Site
from novacore_operator.build.store_config import build_store_config
from novacore_operator.state import Manifest, Nova, names, stores


def config_maps(site: Site) -> Iterator[Manifest | None]:
    """Return all ConfigMaps of an installation."""
    nova, contents = site.nova, site.contents
    yield build_keyset_root(nova, contents.root_jwks)
    yield build_ca(nova, contents.ca_bundle)
    for store in stores.run_by_us(nova.spec):
        yield build_store_config(nova, store, contents.redis_users)
    for service in nova.spec.enabled_services():
        yield build_settings(nova, service.name)


def build_ca(nova: Nova, certificates: str) -> Manifest:
    """Return the ConfigMap with the CA certificates (PEM) that clients of Postgres and Redis trust."""
    return manifest(CONFIG_MAP, nova, names.CA, component="keyset", data={"ca.crt": certificates})


def build_keyset_root(nova: Nova, jwks: str) -> Manifest:
    """Return the ConfigMap with the public root keys, against which every ring document is verified."""
    return manifest(CONFIG_MAP, nova, names.KEYSET_ROOT, component="keyset", data={"root.jwks": jwks})
