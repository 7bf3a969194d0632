"""A `kubectl` that answers from a table, and the resources it answers with."""

from __future__ import annotations

import json
import shlex
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from novacore_operator.cli.app import cli

UNIT, RECORD, GROUP = "\x1f", "\x1e", "\x1d"
HEAD = r"""#!/bin/sh
stdin=$(/bin/cat)
line="$*"
given=$(printf '%s\037' "$@")
printf '%s\036%s\035' "$given" "$stdin" >> {here}/calls
has() {{ for word; do case "$line" in *"$word"*) ;; *) return 1 ;; esac; done; }}
answer() {{ /bin/cat {here}/$1.out; /bin/cat {here}/$1.error >&2; if [ $3 -gt 0 ]; then exec /bin/sleep $3; fi; exit $2; }}
"""
TAIL = """
echo "Error from server (NotFound): nothing answers to: $line" >&2
exit 1
"""


@dataclass(frozen=True)
class Call:
    """One use of kubectl."""

    arguments: list[str]
    stdin: str

    @property
    def line(self) -> str:
        return " ".join(self.arguments)


class FakeCluster:
    """The table. The first row whose words all stand on the command line answers. A shell script, as it starts fast."""

    def __init__(self, here: Path) -> None:
        self.here = here
        self._rows: list[str] = []
        self._write()

    def answers(self, *words: str, out: Any = "", error: str = "", code: int = 0, hold_s: int = 0) -> FakeCluster:
        number = len(self._rows)
        (self.here / f"{number}.out").write_text(out if isinstance(out, str) else json.dumps(out))
        (self.here / f"{number}.error").write_text(error)
        self._rows.append(f"has {shlex.join(words)} && answer {number} {code} {hold_s}\n")
        self._write()
        return self

    def has(self, *resources: dict[str, Any]) -> FakeCluster:
        return self.answers("get novacoredeployments", out={"items": list(resources)})

    def run(self, *arguments: str, stdin: str | None = None) -> Result:
        return CliRunner().invoke(cli, list(arguments), input=stdin)

    @property
    def calls(self) -> list[Call]:
        log = self.here / "calls"
        records = log.read_text().split(GROUP)[:-1] if log.exists() else []
        return [Call(given.split(UNIT)[:-1], stdin) for given, stdin in (record.split(RECORD) for record in records)]

    def _write(self) -> None:
        script = self.here / "kubectl"
        script.write_text(HEAD.format(here=shlex.quote(str(self.here))) + "".join(self._rows) + TAIL)
        script.chmod(0o755)


def condition(kind: str, status: str, reason: str, message: str = "", generation: int = 3) -> dict[str, Any]:
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": "2026-03-01T12:00:00Z",
        "observedGeneration": generation,
    }


def component(name: str, **changes: Any) -> dict[str, Any]:
    made = {
        "name": name,
        "ready": True,
        "desired": 2,
        "updated": 2,
        "available": 2,
        "revision": "abcdef0123456789",
        "image": "novacore/workloads:0.1.0",
        "reason": "Ready",
        "message": "",
    }
    return made | changes


READY: dict[str, Any] = {
    "metadata": {
        "name": "shop",
        "namespace": "shop-ns",
        "uid": "u-1",
        "generation": 3,
        "resourceVersion": "77",
    },
    "apiVersion": "novacore.ai/v1alpha1",
    "kind": "NovaCoreDeployment",
    "spec": {"version": "0.1.0", "mode": "Apply", "paused": False},
    "status": {
        "observedGeneration": 3,
        "conditions": [
            condition("Ready", "True", "Ready", "all 11 components run at their desired revision"),
            condition("Progressing", "False", "Complete"),
        ],
        "release": {"target": "0.1.0", "current": "0.1.0", "lastGood": 2, "since": "2026-03-01T11:00:00Z"},
        "services": "9/9",
        "components": [component("memory"), component("gateway")],
    },
}


def resource(
    *, spec: dict[str, Any] | None = None, status: dict[str, Any] | None = None, **meta: Any
) -> dict[str, Any]:
    """A Ready resource with changes."""
    made = deepcopy(READY)
    made["spec"] |= spec or {}
    made["status"] |= status or {}
    made["metadata"] |= meta
    return made


def failing(reason: str = "CrashLooping", message: str = "memory: CrashLoopBackOff") -> dict[str, Any]:
    return resource(
        status={
            "conditions": [condition("Ready", "False", reason, message)],
            "services": "8/9",
            "components": [component("memory", ready=False, available=0, reason=reason, message=message)],
        }
    )


def revision(number: int, spec: dict[str, Any], *, uid: str = "u-1") -> dict[str, Any]:
    return {
        "metadata": {
            "name": f"novacore-release-{number}",
            "ownerReferences": [{"uid": uid}],
            "creationTimestamp": f"2026-03-0{number}T00:00:00Z",
        },
        "revision": number,
        "data": {"spec": spec},
    }
