"""One cluster for the run, one installation made as a user makes it, a fresh user per test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.client import PlatformUser
from tests.cluster.kube import Kube, KubectlError, condition, until
from tests.cluster.plugin import Plugin

NAMESPACE = "novacore"
SYSTEM = "novacore-system"
ROOT = Path(__file__).resolve().parents[2]
VALUES = Path(__file__).with_name("values.yaml")


@pytest.fixture(scope="session")
def kube(kind_cluster: Any) -> Kube:
    """kubectl of the test cluster (pytest-kind attaches; `run.sh` made it)."""
    return Kube(kind_cluster.kubectl_path, kind_cluster.kubeconfig_path.resolve(), f"{kind_cluster.name}-control-plane")


@pytest.fixture(scope="session")
def url() -> str:
    """Where the gateway's NodePort is mapped on this machine's loopback."""
    return os.environ["NOVACORE_URL"]


@pytest.fixture(scope="session")
def deploy(kind_cluster: Any) -> Any:
    """Return a function that installs or upgrades both charts with Helm, exactly as `make up` does."""

    def run(*more: str) -> None:
        cluster = ["--name", kind_cluster.name, "--namespace", NAMESPACE, "--values", str(VALUES)]
        subprocess.run(
            [sys.executable, "-m", "hack.demo", "deploy", *cluster, *more], cwd=ROOT, check=True, timeout=600
        )

    return run


@pytest.fixture(scope="session")
def platform(kube: Kube, deploy: Any, url: str) -> str:
    """A Ready installation in namespace `novacore`, made from nothing in this run. Returns the namespace."""
    kube.run("delete", "namespace", NAMESPACE, "--ignore-not-found", "--wait=true", timeout_s=180)
    deploy()
    ready(kube)
    until(
        lambda: _reachable(url),
        within_s=60,
        what=f"the gateway answers at {url}",
        report=lambda: kube.report(NAMESPACE),
    )
    return NAMESPACE


@pytest.fixture(scope="session")
def command(kube: Kube, kind_cluster: Any, tmp_path_factory: pytest.TempPathFactory) -> Plugin:
    """`kubectl novacore`, installed."""
    place = tmp_path_factory.mktemp("plugin") / "installed"
    return Plugin(place, Path(kind_cluster.kubectl_path), kube.kubeconfig)


@pytest.fixture
def user(platform: str, url: str) -> Iterator[PlatformUser]:
    """A registered user."""
    someone = PlatformUser(url)
    assert someone.register().status_code == 201
    yield someone
    someone.http.close()


@pytest.fixture
def namespace(kube: Kube) -> Iterator[str]:
    """A namespace of the test's own, deleted afterwards."""
    name = f"t-{uuid.uuid4().hex[:8]}"
    kube.run("create", "namespace", name)
    yield name
    kube.run("delete", "namespace", name, "--wait=false")


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Return a function that prints a measurement, also when the test passes."""

    def write(text: str) -> None:
        with capsys.disabled():
            print(f"\n{text}", flush=True)

    return write


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Attach the state of the installation to a failed test's report."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined] # pluggy's result object
    cluster = item.funcargs.get("kube") if hasattr(item, "funcargs") else None
    if report.failed and isinstance(cluster, Kube):
        try:
            report.sections.append(("installation", cluster.report(NAMESPACE)))
        except (KubectlError, OSError, subprocess.TimeoutExpired) as error:
            report.sections.append(("installation", f"no report: {error}"))


def ready(kube: Kube, within_s: float = 300) -> dict[str, Any]:
    """Wait until the resource is Ready for its present generation; return it."""

    def probe() -> dict[str, Any] | None:
        nova = kube.get("nova", "novacore", NAMESPACE)
        if nova is None:
            return None
        found = condition(nova, "Ready")
        current = found.get("observedGeneration") == nova["metadata"]["generation"]
        return nova if found.get("status") == "True" and current else None

    return until(probe, within_s=within_s, what="NovaCoreDeployment Ready", report=lambda: kube.report(NAMESPACE))


def set_spec(kube: Kube, spec: dict[str, Any]) -> None:
    """Replace the whole spec of the installation."""
    patch = [{"op": "replace", "path": "/spec", "value": spec}]
    kube.run("patch", "nova", "novacore", "-n", NAMESPACE, "--type=json", "-p", json.dumps(patch))


def merged(spec: Any, change: Any) -> Any:
    """Return a spec with a change laid over it."""
    if not isinstance(spec, dict) or not isinstance(change, dict):
        return change
    return {**spec, **{key: merged(spec.get(key), value) for key, value in change.items()}}


@contextmanager
def change_spec(kube: Kube, change: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Lay a change over the spec, and put back what stood there before. Neither is waited for."""
    before = kube.must("nova", "novacore", NAMESPACE)["spec"]
    after = merged(before, change)
    set_spec(kube, after)
    try:
        yield after
    finally:
        set_spec(kube, before)


def _reachable(url: str) -> bool:
    import httpx

    try:
        return httpx.get(f"{url}/health", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False
