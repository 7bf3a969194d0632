"""The cluster itself: its kind configuration (pure) and its life (create, start again, delete).

From the start the configuration carries what tests need later: an audit log of writes, the gateway's port mapped to
loopback, and the kubelet patch for cgroup v1.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

from hack.cluster import engine
from hack.cluster.decide import Path as ClusterPath
from hack.cluster.decide import check_mapping, node_action
from hack.cluster.errors import Problem
from hack.cluster.paths import BIN, STATE, kubeconfig, loaded
from hack.cluster.stages import Stages, run, say, succeeds

GATEWAY_NODE_PORT = 30500
STOCK_IMAGE = "kindest/node:v1.35.4"
WAIT_S = 150  # a restarted node answers after about 50 s on 2 cores; then patience, since the alternative loses data
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


def ensure(
    *,
    name: str,
    port: int,
    path: ClusterPath,
    cgroup_v1: bool,
    node_image: Callable[[], str],
    stages: Stages,
    replace: bool = False,
) -> None:
    """Make the cluster exist and answer. A stopped node is started; one that stays silent is a Problem.

    With `replace` a silent cluster is made anew, its data lost: for clusters of tests.

    `node_image` builds or names the image, and is called only when a node must be made.
    """
    found = exists(name)
    if found:
        check_mapping(name, _mapped_port(name), port)
        _write_kubeconfig(name)
    action = node_action(exists=found, running=_running(name), api_answers=_api_answers(name))
    if action == "none":
        return
    if action == "start":
        run([engine.docker(), "start", _node(name)])
    if action in ("start", "wait"):
        with stages.stage(f"waiting for the node of cluster {name} to come back"):
            if _wait(name):
                return
        if not replace:
            raise Problem(
                f"the API server of cluster {name} stays silent",
                f"try again, or make it anew, which loses its data: make down NAME={name} && make up NAME={name}",
            )
        say(f"           the API server of cluster {name} stays silent: making the cluster anew")
        delete(name)
    image = node_image()
    with stages.stage(f"creating cluster {name}"):
        _create(name, port, path, cgroup_v1, image)


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
    """Delete the cluster: its node containers with their volumes, and its kubeconfig. Needs no kind, as `kind delete`
    does nothing else and a half-made `.tools/` must not keep a cluster alive."""
    listed = run([engine.docker(), "ps", "-aq", "--filter", f"label=io.x-k8s.kind.cluster={name}"]).split()
    if listed:
        run([engine.docker(), "rm", "--force", "--volumes", *listed])
    kubeconfig(name).unlink(missing_ok=True)
    loaded(name).unlink(missing_ok=True)
    _config_file(name).unlink(missing_ok=True)


def _create(name: str, port: int, path: ClusterPath, cgroup_v1: bool, node_image: str) -> None:
    audit = STATE / "audit"
    audit.mkdir(parents=True, exist_ok=True)
    (audit / "policy.yaml").write_text(AUDIT_POLICY)
    file = _config_file(name)
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
    """Wait until the API server answers and the node is Ready; False after WAIT_S."""
    end = time.monotonic() + WAIT_S
    ready = ("wait", "node", "--all", "--for=condition=Ready", "--timeout=10s")
    while time.monotonic() < end:
        _write_kubeconfig(name)
        if _api_answers(name) and succeeds([BIN / "kubectl", "--kubeconfig", kubeconfig(name), *ready]):
            return True
        time.sleep(0.5)  # noqa: TID251 - polling another process: there is nothing to await
    return False


def _write_kubeconfig(name: str) -> None:
    """Give a running cluster whose kubeconfig was lost its kubeconfig back."""
    if not kubeconfig(name).exists():
        where = ("--name", name, "--kubeconfig", str(kubeconfig(name)))
        succeeds([BIN / "kind", "export", "kubeconfig", *where], env=_docker_first())


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


def _config_file(name: str) -> Path:
    return STATE / f"kind-{name}.json"


def _node(name: str) -> str:
    return f"{name}-control-plane"


def _docker_first() -> dict[str, str]:
    """Environment in which kind finds the same Docker client as we do."""
    return {"PATH": f"{Path(engine.docker()).parent}:{os.environ['PATH']}"}
