"""Reading what `doctor` judges: a dozen questions to the cluster, four at a time. Nothing is written."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from novacore_operator.api import GROUP, PLURAL
from novacore_operator.cli.doctor import Facts
from novacore_operator.cli.doctor.rights import read_rights
from novacore_operator.cli.errors import VERSION, BadInput, Failed, NotFound
from novacore_operator.cli.kubectl import Kubectl
from novacore_operator.cli.operators import operators
from novacore_operator.cli.options import Options
from novacore_operator.cli.resource import RESOURCE
from novacore_operator.state.names import LABEL_NAME, LEASE

AT_ONCE = 4
MINE = f"--selector={LABEL_NAME}=novacore"


def gather(kubectl: Kubectl, options: Options) -> Facts:
    """Return the facts. Failed when the API server does not answer at all."""
    server = kubectl.json("version")
    namespace = options.namespace or _default_namespace(kubectl)
    unread: dict[str, str] = {}
    reads: dict[str, Callable[[], Any]] = {
        "crd": lambda: _or_none(lambda: kubectl.json("get", "crd", f"{PLURAL}.{GROUP}")),
        "operators": lambda: operators(kubectl),
        "server_time": lambda: _server_offset(kubectl),
        "classes": lambda: kubectl.items("storageclasses.storage.k8s.io"),
        "resources": lambda: _resources(kubectl, namespace, options.name),
        "pods": lambda: kubectl.items("pods", MINE, namespace=namespace),
        "claims": lambda: kubectl.items("persistentvolumeclaims", MINE, namespace=namespace),
        "dns": lambda: kubectl.items(
            "endpointslices.discovery.k8s.io", "--selector=kubernetes.io/service-name=kube-dns", namespace="kube-system"
        ),
        "policies": lambda: kubectl.items("networkpolicies.networking.k8s.io", MINE, namespace=namespace),
        "metrics": lambda: _metrics(kubectl),
    }
    with ThreadPoolExecutor(AT_ONCE) as pool:
        read = _all(pool, reads, unread)
        offset = read.pop("server_time", None)
        found = Facts(namespace=namespace, version=VERSION, local_time=datetime.now(UTC), server=server, **read)
        if found.operators:
            found = replace(found, **_all(pool, _about_operator(kubectl, found), unread))
    return replace(found, server_time=found.local_time - offset if offset is not None else None, unread=unread)


def _about_operator(kubectl: Kubectl, found: Facts) -> dict[str, Callable[[], Any]]:
    body = found.operators[0]
    own = body["metadata"]["namespace"]
    account = body["spec"]["template"]["spec"].get("serviceAccountName", "default")
    user = f"system:serviceaccount:{own}:{account}"
    return {
        "lease": lambda: _or_none(lambda: kubectl.json("get", "leases.coordination.k8s.io", LEASE, namespace=own)),
        "rights": lambda: read_rights(kubectl, user, namespace=found.namespace, own_namespace=own),
    }


def _all(pool: ThreadPoolExecutor, reads: dict[str, Callable[[], Any]], unread: dict[str, str]) -> dict[str, Any]:
    """Read all; what fails is told in `unread`."""
    asked = {key: pool.submit(read) for key, read in reads.items()}
    found = {}
    for key, answer in asked.items():
        try:
            found[key] = answer.result()
        except (Failed, BadInput) as error:
            unread[key] = error.message
    return found


def _or_none(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except NotFound:
        return None


def _resources(kubectl: Kubectl, namespace: str, name: str | None) -> list[dict[str, Any]]:
    """Return the namespace's resources, the named one first. Without the CRD there are none."""
    found = _or_none(lambda: kubectl.items(RESOURCE, namespace=namespace)) or []
    return sorted(found, key=lambda resource: resource["metadata"]["name"] != name)


def _metrics(kubectl: Kubectl) -> str:
    """Return why the metrics of pods cannot be had. Everybody may ask which APIs a server has."""
    try:
        kubectl.text("get", "--raw", "/apis/metrics.k8s.io/v1beta1")
    except NotFound:
        return "the cluster has no metrics.k8s.io"
    except Failed as error:
        return f"metrics.k8s.io does not answer ({error.message})"
    return ""


def _default_namespace(kubectl: Kubectl) -> str:
    """Return the namespace of the context, as kubectl itself would choose it."""
    _, answer, _ = kubectl.attempt("config", "view", "--minify", "--output=jsonpath={..namespace}")
    return answer.strip() or "default"  # also where there is no kubeconfig, as in a pod


def _server_offset(kubectl: Kubectl) -> Any:
    """Return by how much this clock is ahead of the API server's.

    Who one is is asked of the server, which stamps its answer; everybody may ask, and nothing is stored.
    """
    before = datetime.now(UTC)
    answer = kubectl.json("auth", "whoami")
    middle = before + (datetime.now(UTC) - before) / 2
    stamp = (answer.get("metadata") or {}).get("creationTimestamp")
    if not stamp:
        raise Failed("the API server does not stamp its answer")
    return middle.replace(microsecond=0) - datetime.fromisoformat(stamp)  # the stamp has whole seconds
