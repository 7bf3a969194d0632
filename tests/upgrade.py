"""`python -m tests.upgrade`: from release 0.1.0 to this one while users work, and `Ready` is watched all the while.

The images and charts of 0.1.0 are built from its commit. Load runs before, during and after `helm upgrade` of the
operator and then of the installation. Exit 0: no request failed and `Ready` was never untrue. Writes
`tests/upgrade.json`. It takes about six minutes.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.cluster.kube import Kube, condition
from tests.cluster.watcher import Watcher
from tests.kit.tree import CLUSTER, PORT, ROOT, commit_of, copy_of, hack

PREDECESSOR = "3e50794"  # release 0.1.0, whose packaged charts are in charts/releases
NAMESPACE = "novacore"
VALUES = ROOT / "loadtest/values-load.yaml"
RESULT = ROOT / "tests/upgrade.json"
USERS = 10
LOAD_S = 240
FIRST_S = 40
"""Load before anything changes."""


class Watch(Watcher):
    """Looks at `Ready` and at the Deployments in one go, again and again."""

    def __init__(self, kube: Kube) -> None:
        super().__init__(self._see, every_s=0.3)
        self._kube = kube
        self.looks = 0
        self.untrue: list[str] = []
        self.reasons: list[str] = []
        self.least_available = 99

    def _see(self) -> None:
        before = self._kube.must("nova", "novacore", NAMESPACE)
        deployments = self._kube.list("deployments", NAMESPACE)
        after = self._kube.must("nova", "novacore", NAMESPACE)
        self.looks += 1
        self.least_available = min(
            self.least_available, *(d["status"].get("availableReplicas", 0) for d in deployments)
        )
        said = condition(before, "Ready")
        if said and said["reason"] not in self.reasons[-1:]:
            self.reasons.append(said["reason"])
        # Only what stood before and after the look at the Deployments was said of that moment.
        if said.get("status") == "True" and condition(after, "Ready") == said and _same_spec(before, after):
            self.untrue += [f"{said}: {d['metadata']['name']}" for d in deployments if not _settled(d)]


def _same_spec(before: dict[str, Any], after: dict[str, Any]) -> bool:
    generation = condition(before, "Ready").get("observedGeneration")
    return bool(before["metadata"]["generation"] == after["metadata"]["generation"] == generation)


def _settled(deployment: dict[str, Any]) -> bool:
    status, wanted = deployment["status"], deployment["spec"]["replicas"]
    counts = {status.get(key, 0) for key in ("replicas", "updatedReplicas", "availableReplicas")}
    return bool(counts == {wanted} and status.get("observedGeneration") == deployment["metadata"]["generation"])


def deploy(tree: Path) -> float:
    """Install or upgrade with a tree's images and charts; return the seconds until Ready."""
    started = time.monotonic()
    hack(tree, "deploy", "--name", CLUSTER, "--namespace", NAMESPACE, "--values", str(VALUES), module="hack.demo")
    return round(time.monotonic() - started, 1)


def prepare(tree: Path) -> None:
    """Build a tree's images and load them into the node."""
    hack(tree, "images")
    hack(tree, "load", "--name", CLUSTER)


def main() -> int:
    """Run it all; return the exit code."""
    kube = Kube(ROOT / ".tools/bin/kubectl", ROOT / f".tools/kubeconfig-{CLUSTER}", f"{CLUSTER}-control-plane")
    with copy_of(PREDECESSOR) as old:
        kube.run("delete", "namespace", NAMESPACE, "--ignore-not-found", "--wait=true", timeout_s=180)
        prepare(old)
        deploy(old)
    prepare(ROOT)
    url = f"http://127.0.0.1:{PORT}"
    command = [
        sys.executable,
        "-m",
        "loadtest",
        "--users",
        str(USERS),
        "--time",
        f"{LOAD_S}s",
        "--url",
        url,
    ]
    with Watch(kube) as watch:
        load = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        time.sleep(FIRST_S)  # noqa: TID251 - load on the old release is what is wanted here
        seconds = deploy(ROOT)
        output, _ = load.communicate(timeout=LOAD_S + 120)
    print(output)
    result = {
        "from": PREDECESSOR,
        "to": commit_of(),
        "users": USERS,
        "load_seconds": LOAD_S,
        "upgrade_seconds": seconds,
        "load_passed": load.returncode == 0,
        "load": output.splitlines()[-16:],
        "looks_at_ready": watch.looks,
        "untrue": watch.untrue[:20],
        "reasons_seen": watch.reasons,
        "least_available": watch.least_available,
    }
    RESULT.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    good = load.returncode == 0 and not watch.untrue and watch.looks > 0
    print(f"{'PASS' if good else 'FAIL'}: {watch.looks} looks at Ready, {len(watch.untrue)} untrue; {watch.reasons}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
