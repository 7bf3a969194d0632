"""A bare control plane: real etcd, real kube-apiserver with RBAC and an audit log, no node, no kubelet.

Of the release that the kind cluster runs. It is up in seconds and holds thousands of objects; what kubelets and the
controllers of Deployments, StatefulSets and Jobs would do is played by `tests.kit.player`. Everything is in one folder
of the run; everything it starts, it ends.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.kit.api import Api
from tests.kit.child import Child, free_port
from tests.kit.pki import Authority, service_account_key
from tests.kit.wait import until

ROOT = Path(__file__).resolve().parents[2]
BIN = ROOT / ".tools/bin"
BUILD = "python3 -m hack.cluster tools --only control-plane"
ADMIN = "test-admin"
START_S = 60
AUDIT_POLICY = """apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  # The tests' own reading, and the API server's with itself, would be most of the log.
  - level: None
    users: [test-admin, "system:apiserver"]
    verbs: [get, list, watch]
  - level: Metadata
"""


def service_account(namespace: str, name: str) -> str:
    """Return the user name of a ServiceAccount."""
    return f"system:serviceaccount:{namespace}:{name}"


def groups_of(user: str) -> tuple[str, ...]:
    """Return the groups that the token of a ServiceAccount would give."""
    _, _, namespace, _ = user.split(":")
    return "system:serviceaccounts", f"system:serviceaccounts:{namespace}"


@dataclass
class ControlPlane:
    """A running control plane. `user` and `kubeconfig` give access as anybody: its authority is ours."""

    folder: Path
    url: str
    authority: Authority
    etcd: Child
    server: Child
    controllers: Child
    seconds: float = 0.0
    _users: dict[str, Api] = field(default_factory=dict)

    @property
    def audit_log(self) -> Path:
        """The API server's audit log, a JSON object per line."""
        return self.folder / "audit.log"

    @property
    def admin(self) -> Api:
        """The API server as somebody who may do everything."""
        return self.user(ADMIN, "system:masters")

    def user(self, name: str, *groups: str) -> Api:
        """Return the API server as this user."""
        if name not in self._users:
            certificate, key = self.authority.client(name, groups)
            self._users[name] = Api(self.url, ca=self.authority.certificate, certificate=certificate, key=key)
        return self._users[name]

    def kubeconfig(self, name: str, *groups: str) -> Path:
        """Write the kubeconfig of a user and return its path."""
        return write_kubeconfig(self.folder, self.authority, self.url, name, groups)

    def service_account(self, user: str) -> Api:
        """Return the API server as a ServiceAccount, by its user name."""
        return self.user(user, *groups_of(user))

    def start_server(self) -> None:
        """Start the API server (again) and wait until it is ready."""
        self.server.start()
        self._await_server()

    def start_controllers(self) -> None:
        """Start the namespace and the garbage collector controllers: deletion of namespaces, and by owner."""
        if not self.controllers.runs():
            self.controllers.start()

    def _await_server(self) -> None:
        def ready() -> bool:
            for child in (self.etcd, self.server):
                assert child.runs(), f"{child.name} ended\n{child.tail()}"
            return self.admin.ready()

        until(ready, within_s=START_S, what="the API server is ready", report=self.server.tail, every_s=0.1)


@contextmanager
def running(folder: Path) -> Iterator[ControlPlane]:
    """Start a control plane in a folder; yield it when it is ready; end it."""
    began = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    plane = _assembled(folder)
    try:
        plane.etcd.start()
        plane.start_server()
        plane.seconds = time.monotonic() - began
        yield plane
    finally:
        for child in (plane.controllers, plane.server, plane.etcd):
            child.stop()
        for api in plane._users.values():
            api.close()


def binary(name: str) -> Path:
    """Return one of the control plane's programs; the failure says how to get it."""
    path = BIN / name
    assert path.exists(), f"{path.relative_to(ROOT)} is missing: run `{BUILD}`"
    return path


def write_kubeconfig(folder: Path, authority: Authority, url: str, name: str, groups: tuple[str, ...]) -> Path:
    """Write the kubeconfig of a user and return its path."""
    certificate, key = authority.client(name, groups)
    files = {"client-certificate": str(certificate), "client-key": str(key)}
    cluster = {"server": url, "certificate-authority": str(authority.certificate)}
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": cluster}],
        "users": [{"name": name, "user": files}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": name}}],
        "current-context": "test",
    }
    path = folder / f"{name.replace(':', '.')}.kubeconfig"
    path.write_text(json.dumps(content))  # JSON is YAML
    return path


def _assembled(folder: Path) -> ControlPlane:
    authority = Authority(folder / "pki")
    store, port = f"http://127.0.0.1:{free_port()}", free_port()
    url = f"https://127.0.0.1:{port}"
    (folder / "audit-policy.yaml").write_text(AUDIT_POLICY)
    accounts = service_account_key(folder / "pki/service-accounts.key")
    return ControlPlane(
        folder=folder,
        url=url,
        authority=authority,
        etcd=_etcd(folder, store),
        server=_server(folder, authority, store=store, port=port, accounts=accounts),
        controllers=_controllers(folder, authority, url, accounts),
    )


def _etcd(folder: Path, url: str) -> Child:
    peers = f"http://127.0.0.1:{free_port()}"
    options = {
        "name": "test",
        "data-dir": folder / "etcd",
        "listen-client-urls": url,
        "advertise-client-urls": url,
        "listen-peer-urls": peers,
        "initial-advertise-peer-urls": peers,
        "initial-cluster": f"test={peers}",
        "log-level": "warn",
    }
    return Child("etcd", [binary("etcd"), "--unsafe-no-fsync", *_flags(options)], log=folder / "etcd.log")


def _server(folder: Path, authority: Authority, *, store: str, port: int, accounts: Path) -> Child:
    certificate, key = authority.server()
    options = {
        "etcd-servers": store,
        "bind-address": "127.0.0.1",
        "advertise-address": "127.0.0.1",
        "secure-port": port,
        "tls-cert-file": certificate,
        "tls-private-key-file": key,
        "client-ca-file": authority.certificate,
        "authorization-mode": "RBAC",
        "enable-admission-plugins": "NodeRestriction",  # as kubeadm, hence kind, sets it
        "service-cluster-ip-range": "10.96.0.0/16",
        "service-account-issuer": "https://kubernetes.default.svc",
        "service-account-key-file": accounts,
        "service-account-signing-key-file": accounts,
        "allow-privileged": "true",
        "endpoint-reconciler-type": "none",  # a loopback address is no endpoint
        "audit-policy-file": folder / "audit-policy.yaml",
        "audit-log-path": folder / "audit.log",
        "audit-log-mode": "blocking",  # what was answered is in the log
        "audit-log-maxsize": 4096,
    }
    env = {**os.environ, "GOGC": "400"}  # memory is there, and collecting is a fifth of what it computes
    command = [binary("kube-apiserver"), *_flags(options)]
    return Child("kube-apiserver", command, log=folder / "kube-apiserver.log", env=env)


def _controllers(folder: Path, authority: Authority, url: str, accounts: Path) -> Child:
    name = "system:kube-controller-manager"
    config = write_kubeconfig(folder, authority, url, name, ("system:masters",))
    options = {
        "kubeconfig": config,
        "controllers": "namespace-controller,garbage-collector-controller",
        "leader-elect": "false",
        "secure-port": 0,
        "service-account-private-key-file": accounts,
    }
    command = [binary("kube-controller-manager"), *_flags(options)]
    return Child("kube-controller-manager", command, log=folder / "kube-controller-manager.log")


def _flags(options: dict[str, object]) -> list[str]:
    return [f"--{name}={value}" for name, value in options.items()]
