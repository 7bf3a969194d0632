"""The installed `kubectl-novacore`, run as a user runs it, against a control plane of `tests.kit.controlplane`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.kit.controlplane import BIN

PROGRAM = Path(sys.executable).with_name("kubectl-novacore")
LIMIT_S = 120


@dataclass(frozen=True, slots=True)
class Ran:
    """How a run of the command ended."""

    code: int
    out: str
    error: str

    @property
    def json(self) -> Any:
        """What `-o json` printed."""
        return json.loads(self.out)

    def __str__(self) -> str:
        """For a failed assertion."""
        return f"exit {self.code}\n{self.out}\n{self.error}"


def run(*words: str, config: Path | None, stdin: str = "") -> Ran:
    """Run `kubectl-novacore` with the rights of a kubeconfig."""
    env = {"PATH": f"{BIN}:{os.environ['PATH']}", "HOME": os.environ.get("HOME", "/"), "LANG": "C.UTF-8"}
    if config is not None:
        env["KUBECONFIG"] = str(config)
    done = subprocess.run(
        [PROGRAM, *words], input=stdin, capture_output=True, text=True, env=env, timeout=LIMIT_S, check=False
    )
    return Ran(done.returncode, done.stdout, done.stderr)
