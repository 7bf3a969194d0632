"""The API server's audit log: who wrote what, as the tests' witness for "the operator writes nothing"."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
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
    return [_said(entry) for entry in _entries(kube, since) if _is_write(entry, user)]


def last_write(kube: Kube, *, user: str) -> tuple[datetime, str]:
    """Return when `user` wrote last, Leases apart, and what. Fails when the log has no write of his."""
    found = [entry for entry in _entries(kube, 0) if _is_write(entry, user)]
    assert found, f"the audit log has no write of {user}"
    return datetime.fromisoformat(found[-1]["stageTimestamp"]), _said(found[-1])


def _is_write(entry: dict[str, Any], user: str) -> bool:
    resource = entry.get("objectRef", {}).get("resource")
    return entry["user"]["username"] == user and entry["verb"] in WRITE_VERBS and resource != "leases"


def _said(entry: dict[str, Any]) -> str:
    ref = entry["objectRef"]
    return f"{entry['verb']} {ref['resource']} {ref.get('namespace', '')}/{ref.get('name', '')}"


def _entries(kube: Kube, since: int) -> Iterator[dict[str, Any]]:
    for line in kube.on_node("tail", "-n", f"+{since + 1}", AUDIT_LOG).splitlines():
        entry = json.loads(line)
        if entry.get("stage") == "ResponseComplete":
            yield entry
