"""The API server's audit log: who wrote what, as the tests' witness for "the operator writes nothing"."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from tests.cluster.kube import Kube

AUDIT_LOG = "/var/log/kubernetes/audit/audit.log"
WRITE_VERBS = frozenset({"create", "update", "patch", "delete", "deletecollection"})
OPERATOR = "system:serviceaccount:novacore-system:novacore-operator"


def position(kube: Kube) -> int:
    """Return the present length of the audit log in lines."""
    return int(kube.on_node("wc", "-l", AUDIT_LOG).split()[0])


def writes(kube: Kube, *, user: str, since: int) -> list[str]:
    """Return `verb resource namespace/name` of each write of `user` after line `since`, Leases apart."""
    return [
        f"{entry['verb']} {ref['resource']} {ref.get('namespace', '')}/{ref.get('name', '')}"
        for entry in _entries(kube, since)
        if entry["user"]["username"] == user
        and entry["verb"] in WRITE_VERBS
        and (ref := entry.get("objectRef", {})).get("resource") != "leases"
    ]


def _entries(kube: Kube, since: int) -> Iterator[dict[str, Any]]:
    for line in kube.on_node("tail", "-n", f"+{since + 1}", AUDIT_LOG).splitlines():
        entry = json.loads(line)
        if entry.get("stage") == "ResponseComplete":
            yield entry
