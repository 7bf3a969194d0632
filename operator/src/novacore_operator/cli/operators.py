"""Finding the operator: its Deployment, in whichever namespace its chart was installed."""

from __future__ import annotations

from typing import Any

from novacore_operator.cli.errors import Forbidden
from novacore_operator.cli.kubectl import Kubectl
from novacore_operator.state.names import LABEL_NAME, MANAGER

DEFAULT_NAMESPACE = "novacore-system"
KIND = "deployments.apps"


def operators(kubectl: Kubectl) -> list[dict[str, Any]]:
    """Return the operator's Deployments. Who may not look everywhere looks in the default namespace."""
    labels = f"--selector={LABEL_NAME}={MANAGER}"
    try:
        return kubectl.items(KIND, labels, "--all-namespaces")
    except Forbidden:
        return kubectl.items(KIND, labels, namespace=DEFAULT_NAMESPACE)
