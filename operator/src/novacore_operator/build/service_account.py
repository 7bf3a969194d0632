"""ServiceAccounts: one per component, none with a token mounted by default."""

from __future__ import annotations

from collections.abc import Iterator

from novacore_operator.build.common import manifest
from novacore_operator.build.site import Site
from novacore_operator.state import Kind, Manifest, Nova, stores

SERVICE_ACCOUNT = Kind("ServiceAccount", "v1", "serviceaccounts", wave=1)


def service_accounts(site: Site) -> Iterator[Manifest | None]:
    """Return the ServiceAccounts of an installation."""
    for component in (*stores.run_by_us(site.nova.spec), "migrate"):
        yield build_service_account(site.nova, component)
    for service in site.nova.spec.enabled_services():
        yield build_service_account(site.nova, service.name)


def build_service_account(nova: Nova, component: str) -> Manifest:
    """Return the ServiceAccount of a component. Pods that need a token project it with an audience of its own."""
    return manifest(
        SERVICE_ACCOUNT, nova, f"novacore-{component}", component=component, automountServiceAccountToken=False
    )
