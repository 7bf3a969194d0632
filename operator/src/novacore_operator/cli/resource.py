"""The installation a verb is about: one NovaCoreDeployment, found by name or by being the only one."""

from __future__ import annotations

from typing import Any

from novacore_operator.api import GROUP, KIND, PLURAL
from novacore_operator.cli.errors import BadInput, Failed, NotFound
from novacore_operator.cli.kubectl import Kubectl
from novacore_operator.cli.options import Options

RESOURCE = f"{PLURAL}.{GROUP}"

Resource = dict[str, Any]
"""A NovaCoreDeployment as the API server returns it."""


def find(kubectl: Kubectl, options: Options) -> Resource:
    """Return the one that is meant."""
    where = f"namespace {options.namespace}" if options.namespace else "this context's namespace"
    if options.name is None:
        return only(kubectl.items(RESOURCE), where=where)
    try:
        found: Resource = kubectl.json("get", RESOURCE, options.name)
    except NotFound as error:
        if "not found" not in error.message:
            raise
        raise NotFound(f"there is no {KIND} {options.name} in {where}: see `kubectl get nova -A`") from None
    return found


def only(found: list[Resource], *, where: str) -> Resource:
    """Return the only one. BadInput when there are several, Failed when there is none."""
    if not found:
        raise Failed(f"there is no {KIND} in {where}: apply one, or name its namespace with -n")
    if len(found) > 1:
        names = ", ".join(sorted(resource["metadata"]["name"] for resource in found))
        raise BadInput(f"there are several in {where} ({names}): choose one with --name")
    return found[0]


def identity(resource: Resource) -> tuple[str, str]:
    """Return namespace and name."""
    return str(resource["metadata"].get("namespace", "")), str(resource["metadata"]["name"])
