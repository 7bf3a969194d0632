"""`kubectl novacore` as a user has it: installed from the packages into a place of its own, found by kubectl."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.kit.cli import Ran

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("./contracts", "./operator")
"""What docs/guides/cli.md tells people to install."""


class Plugin:
    """kubectl with the plugin on its PATH, and nothing of this checkout's own environment."""

    def __init__(self, place: Path, kubectl: Path, kubeconfig: Path) -> None:
        self._place = place
        kept = {name: os.environ[name] for name in ("SSL_CERT_FILE", "HOME") if name in os.environ}
        bin_ = place / "bin"
        self.environment = {**kept, "PATH": f"{bin_}:/usr/bin:/bin", "KUBECONFIG": str(kubeconfig), "COLUMNS": "120"}
        self._install(Path(kubectl).resolve())

    def _install(self, kubectl: Path) -> None:
        uv = ROOT / ".tools/bin/uv"
        subprocess.run([uv, "venv", "--quiet", self._place], check=True, cwd=ROOT, timeout=120)
        locked = [uv, "export", "--quiet", "--frozen", "--package", "novacore-operator", "--no-emit-workspace"]
        constraints = self._place / "constraints.txt"  # the versions that everything else was tested with
        subprocess.run([*locked, "--no-hashes", "-o", constraints], check=True, cwd=ROOT, timeout=60)
        wheels = [uv, "pip", "install", "--quiet", "--python", self._place / "bin/python", "-c", constraints, *PACKAGES]
        subprocess.run(wheels, check=True, cwd=ROOT, timeout=300)
        (self._place / "bin/kubectl").symlink_to(kubectl)

    def __call__(self, *arguments: str, stdin: str = "", clock: str = "") -> Ran:
        """Run `kubectl novacore ARGUMENTS`. `clock`: by how much this command's clock is wrong, such as `+10m`."""
        return self.kubectl("novacore", *arguments, stdin=stdin, clock=clock)

    def kubectl(self, *arguments: str, stdin: str = "", clock: str = "") -> Ran:
        """Run kubectl itself."""
        # It shifts the command alone: kubectl, a static program, keeps the true time, or it would refuse certificates.
        wrong = ["faketime", "-f", clock] if clock else []
        done = subprocess.run(
            [*wrong, "kubectl", *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
            env=self.environment,
            cwd=self._place,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return Ran(done.returncode, done.stdout, done.stderr)
