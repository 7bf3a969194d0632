"""ServiceAccounts: one per component, none with a token mounted by default."""

from __future__ import annotations

from novacore_operator.build.common import manifest
from novacore_operator.state import Manifest, Nova


def build_service_account(nova: Nova, component: str) -> Manifest:
    """Return the ServiceAccount of a component. Pods that need a token project it with an audience of its own."""
    return manifest(
        "ServiceAccount", nova, f"novacore-{component}", component=component, automountServiceAccountToken=False
    )
