"""The cluster itself: its kind configuration (pure) and its life (create, start again, delete).

From the start the configuration carries what tests need later: an audit log of writes, the gateway's port mapped to
loopback, and the kubelet patch for cgroup v1.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from hack.cluster import engine
from hack.cluster.decide import Path as ClusterPath
from hack.cluster.decide import node_action
from hack.cluster.errors import Problem
from hack.cluster.paths import BIN, STATE, kubeconfig
from hack.cluster.stages import Stages, run, succeeds

GATEWAY_NODE_PORT = 30500
STOCK_IMAGE = "kindest/node:v1.35.4"
AUDIT_POLICY = """apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - level: None
    resources: [{group: "", resources: [events]}, {group: events.k8s.io, resources: [events]}]
  - level: Metadata
    verbs: [create, update, patch, delete, deletecollection]
  - level: None
"""
AUDIT_FILES = "/etc/kubernetes/audit"
AUDIT_LOGS = "/var/log/kubernetes/audit"


def config(*, port: int, path: ClusterPath, cgroup_v1: bool, audit_directory: Path) -> str:
    """Return the kind cluster configuration. `audit_directory` holds policy.yaml on this machine."""
    patches = [_audit_patch()]
    if cgroup_v1:
        patches.append("kind: KubeletConfiguration\napiVersion: kubelet.config.k8s.io/v1beta1\nfailCgroupV1: false\n")
    node = {
        "role": "control-plane",
        "kubeadmConfigPatches": patches,
        "extraPortMappings": [
            {"containerPort": GATEWAY_NODE_PORT, "hostPort": port, "listenAddress": "127.0.0.1", "protocol": "TCP"}
        ],
        "extraMounts": [{"hostPath": str(audit_directory), "containerPath": AUDIT_FILES, "readOnly": True}],
    }
    cluster = {
        "kind": "Cluster",
        "apiVersion": "kind.x-k8s.io/v1alpha4",
        "networking": {
            # The bare node image has a static bridge; the stock one brings kindnet, which enforces policies.
            "disableDefaultCNI": path == "bare",
            "apiServerAddress": "127.0.0.1",
        },
        "nodes": [node],
    }
    return json.dumps(cluster, indent=2)  # JSON is YAML


def _audit_patch() -> str:
    # kind writes kubeadm v1beta3 for Kubernetes below 1.36: there extraArgs is a map.
    return f"""kind: ClusterConfiguration
apiServer:
  extraArgs:
    audit-policy-file: {AUDIT_FILES}/policy.yaml
    audit-log-path: {AUDIT_LOGS}/audit.log
    audit-log-maxsize: "200"
    audit-log-maxbackup: "1"
  extraVolumes:
    - name: audit-policy
      hostPath: {AUDIT_FILES}
      mountPath: {AUDIT_FILES}
      readOnly: true
      pathType: DirectoryOrCreate
    - name: audit-log
      hostPath: {AUDIT_LOGS}
      mountPath: {AUDIT_LOGS}
      pathType: DirectoryOrCreate
"""


def ensure(*, name: str, port: int, path: ClusterPath, cgroup_v1: bool, node_image: str, stages: Stages) -> None:
    """Make the cluster exist and answer. A stopped node is started, an unusable one made anew."""
    action = node_action(
        exists=exists(name),
        running=_running(name),
        api_answers=_api_answers(name),
        port_matches=_mapped_port(name) == port,
    )
    if action == "start":
        with stages.stage("starting the cluster's node again"):
            run([engine.docker(), "start", _node(name)])
            if _wait(name):
                return
        action = "recreate"
    if action == "recreate":
        delete(name)
    if action in ("create", "recreate"):
        with stages.stage(f"creating cluster {name}"):
            _create(name, port, path, cgroup_v1, node_image)


def exists(name: str) -> bool:
    """Return whether a node container of that cluster exists, running or not."""
    return succeeds([engine.docker(), "container", "inspect", _node(name)])


def names() -> list[str]:
    """Return the names of all kind clusters the engine knows."""
    out = run(
        [
            engine.docker(),
            "ps",
            "-a",
            "--filter",
            "label=io.x-k8s.kind.cluster",
            "--format",
            '{{.Label "io.x-k8s.kind.cluster"}}',
        ]
    )
    return sorted(set(out.split()))


def delete(name: str) -> None:
    """Delete the cluster, its node container and its kubeconfig."""
    run([BIN / "kind", "delete", "cluster", "--name", name, "--kubeconfig", kubeconfig(name)], env=_docker_first())
    kubeconfig(name).unlink(missing_ok=True)


def _create(name: str, port: int, path: ClusterPath, cgroup_v1: bool, node_image: str) -> None:
    audit = STATE / "audit"
    audit.mkdir(parents=True, exist_ok=True)
    (audit / "policy.yaml").write_text(AUDIT_POLICY)
    file = STATE / f"kind-{name}.json"
    file.write_text(config(port=port, path=path, cgroup_v1=cgroup_v1, audit_directory=audit))
    command: list[str | Path] = [
        BIN / "kind",
        "create",
        "cluster",
        "--name",
        name,
        "--config",
        file,
        "--image",
        node_image,
    ]
    run([*command, "--kubeconfig", kubeconfig(name), "--wait", "120s"], env=_docker_first())
    if not _api_answers(name):
        raise Problem(f"cluster {name} was created but its API server does not answer", "run: make down && make up")


def _wait(name: str) -> bool:
    return succeeds(
        [
            BIN / "kubectl",
            "--kubeconfig",
            kubeconfig(name),
            "wait",
            "node",
            "--all",
            "--for=condition=Ready",
            "--timeout=90s",
        ],
        timeout_s=100,
    )


def _api_answers(name: str) -> bool:
    return kubeconfig(name).exists() and succeeds(
        [BIN / "kubectl", "--kubeconfig", kubeconfig(name), "get", "--raw", "/readyz", "--request-timeout=5s"]
    )


def _running(name: str) -> bool:
    return exists(name) and run([engine.docker(), "inspect", "-f", "{{.State.Running}}", _node(name)]).strip() == "true"


def _mapped_port(name: str) -> int | None:
    if not exists(name):
        return None
    form = "{{json .HostConfig.PortBindings}}"
    bindings = json.loads(run([engine.docker(), "inspect", "-f", form, _node(name)]))
    mapped = bindings.get(f"{GATEWAY_NODE_PORT}/tcp") or []
    return int(mapped[0]["HostPort"]) if mapped else None


def _node(name: str) -> str:
    return f"{name}-control-plane"


def _docker_first() -> dict[str, str]:
    """Environment in which kind finds the same Docker client as we do."""
    return {"PATH": f"{Path(engine.docker()).parent}:{os.environ['PATH']}"}
