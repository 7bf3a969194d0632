"""Who can reach an installation from outside its namespace, tried for real: the gateway's port and nothing else.

A pod in a namespace of its own opens a TCP connection to every port of every Service of the installation. Where the
cluster's network enforces NetworkPolicies (kindnet of the stock node image does), only the gateway answers. The bare
node image has a bridge that enforces none: there this command says so and fails.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from hack.demo.deploy import RESTRICTED, read_images
from hack.demo.kube import Cluster, Manifest
from hack.demo.terminal import DemoError, colour, say, table

NAMESPACE = "novacore-probe"
POD = "probe"
OPEN = frozenset({("novacore-gateway", "http"), ("novacore-gateway-public", "http")})
"""The door: Service and port name that anyone may reach."""
PROBE = """
import json, socket, sys
found = {}
for name, port in json.loads(sys.argv[1]):
    try:
        socket.create_connection((name, port), timeout=3).close()
        found[f"{name}:{port}"] = True
    except OSError:
        found[f"{name}:{port}"] = False
print(json.dumps(found))
"""

Target = tuple[str, str, int]
"""Service, port name, port."""


def isolation(cluster: Cluster, namespace: str) -> None:
    """Print who is reachable from outside. DemoError unless it is the gateway and nobody else."""
    cluster.check()
    wanted = targets(cluster.items("services", "-n", namespace))
    if not wanted:
        raise DemoError(f"namespace {namespace} holds no Service of NovaCore: run `make up`")
    reached = probe(cluster, namespace, wanted)
    rows, wrong = judge(wanted, reached)
    say(table(("service", "port", "from outside", "expected"), rows))
    if wrong:
        raise DemoError(
            f"not as the NetworkPolicies say: {', '.join(wrong)}; does this cluster's network enforce them?"
        )
    say(colour("only the gateway can be reached from outside", "green"))


def targets(services: Iterable[Manifest]) -> list[Target]:
    """Return every TCP port of the installation's Services."""
    return [
        (service["metadata"]["name"], str(port.get("name", "")), int(port["port"]))
        for service in services
        if service["metadata"]["name"].startswith("novacore-")
        for port in service["spec"].get("ports", [])
    ]


def judge(wanted: Iterable[Target], reached: dict[Target, bool]) -> tuple[list[tuple[str, ...]], list[str]]:
    """Return a row per target, and the targets that are open or closed against the rule."""
    rows: list[tuple[str, ...]] = []
    wrong: list[str] = []
    for target in wanted:
        name, port_name, port = target
        expected = (name, port_name) in OPEN
        rows.append((name, f"{port_name} {port}", word(open_=reached[target]), word(open_=expected)))
        if reached[target] != expected:
            wrong.append(f"{name}:{port}")
    return rows, wrong


def word(*, open_: bool) -> str:
    """Return how a person reads it."""
    return "open" if open_ else "closed"


def probe(cluster: Cluster, namespace: str, wanted: list[Target]) -> dict[Target, bool]:
    """Run the pod and return which targets accepted a connection."""
    addresses = {target: (f"{target[0]}.{namespace}.svc", target[2]) for target in wanted}
    manifests = {
        "apiVersion": "v1",
        "kind": "List",
        "items": [namespace_manifest(), pod_manifest(read_images()["workloads"], list(addresses.values()))],
    }
    cluster.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", timeout_s=120)
    cluster.kubectl("apply", "-f", "-", stdin=json.dumps(manifests))
    try:
        done = "jsonpath={.status.phase}=Succeeded"
        cluster.kubectl("wait", f"--for={done}", "-n", NAMESPACE, f"pod/{POD}", "--timeout=180s", timeout_s=190)
        found = json.loads(cluster.kubectl("logs", "-n", NAMESPACE, POD))
    finally:
        cluster.kubectl("delete", "namespace", NAMESPACE, "--wait=false", "--ignore-not-found")
    return {target: bool(found[f"{host}:{port}"]) for target, (host, port) in addresses.items()}


def namespace_manifest() -> Manifest:
    """Return the probe's namespace, as strict as the installation's."""
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": RESTRICTED}}


def pod_manifest(image: str, addresses: list[tuple[str, int]]) -> Manifest:
    """Return the probe's pod; the workloads image has a Python."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": POD, "namespace": NAMESPACE},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "probe",
                    "image": image,
                    "command": ["python", "-c", PROBE, json.dumps(addresses)],
                    "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "64Mi"}},
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "readOnlyRootFilesystem": True,
                        "capabilities": {"drop": ["ALL"]},
                    },
                }
            ],
        },
    }
