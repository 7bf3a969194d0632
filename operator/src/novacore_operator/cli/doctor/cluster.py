"""Is the cluster fit, and does the operator run in it with its rights? Pure."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

from novacore_operator.api import GROUP, KIND, PLURAL, VERSION
from novacore_operator.api.crd import custom_resource_definition
from novacore_operator.cli.doctor import CHART, Facts, Judged, Object
from novacore_operator.cli.errors import PROGRAM
from novacore_operator.state.names import LABEL_VERSION
from novacore_operator.status import condition_of

MINOR_MIN, MINOR_MAX = 30, 37
"""From the first with validation by CEL as the resource uses it, to the newest known. The tests run on `TESTED`."""
TESTED = "1.35"
SKEW_S = 5
LEASE_S = 60


def kubernetes(facts: Facts) -> Judged:
    """Judge the API server's version."""
    server = facts.server.get("serverVersion", {})
    digits = re.match(r"\d+", str(server.get("minor", "")))
    shown = f"{server.get('major', '?')}.{server.get('minor', '?')}"
    supported = f"1.{MINOR_MIN} to 1.{MINOR_MAX}"
    if digits is None:
        return Judged("unknown", "the API server does not say its version")
    minor = int(digits[0])
    if str(server.get("major")) != "1" or minor < MINOR_MIN:
        return Judged(
            "fail", f"Kubernetes {shown} is too old", f"Upgrade the cluster: {supported} will do, {TESTED} is tested."
        )
    if minor > MINOR_MAX:
        return Judged(
            "warn", f"Kubernetes {shown} is newer than what is supported ({supported})", "Try it outside production."
        )
    return Judged("ok", f"Kubernetes {shown} (supported: {supported}; tested: {TESTED})")


def definition(facts: Facts) -> Judged:
    """Judge the CRD: there, served, with every field this version knows."""
    install = f"Install the operator's chart with its CRD: `helm upgrade --install novacore-operator {CHART}`."
    if facts.crd is None:
        return Judged("fail", f"the cluster does not know {KIND}", install)
    versions = {item["name"]: item for item in facts.crd.get("spec", {}).get("versions", ())}
    if not versions.get(VERSION, {}).get("served"):
        return Judged("fail", f"{GROUP}/{VERSION} is not served (there are: {', '.join(versions) or 'none'})", install)
    if condition_of(facts.crd.get("status", {}), "Established").get("status") != "True":
        return Judged("fail", "the CRD is not established", f"Look at `kubectl describe crd {PLURAL}.{GROUP}`.")
    wanted = custom_resource_definition()["spec"]["versions"][0]
    missing = sorted(_fields(wanted) - _fields(versions[VERSION]))
    if missing:
        return Judged(
            "warn",
            f"the CRD is older than this command ({facts.version}): it lacks {', '.join(missing[:5])}",
            f"Upgrade the operator's chart: `helm upgrade novacore-operator {CHART}`.",
        )
    return Judged("ok", f"{GROUP}/{VERSION} is served, with every field of {facts.version}")


def _fields(version: Object) -> set[str]:
    """Return the dotted paths of all fields in a version's schema."""

    def walk(node: Object, path: str) -> set[str]:
        found = set()
        for name, sub in (node.get("properties") or {}).items():
            found |= {f"{path}{name}"} | walk(sub, f"{path}{name}.")
        for inner in (node.get("items"), node.get("additionalProperties")):
            found |= walk(inner, path) if isinstance(inner, dict) else set()
        return found

    return walk(version.get("schema", {}).get("openAPIV3Schema", {}), "")


def operator(facts: Facts) -> Judged:
    """Judge the operator's Deployment: there, available, of this version, holding its Lease."""
    if not facts.operators:
        return Judged(
            "fail", "no operator is installed", f"`helm install novacore-operator {CHART} -n novacore-system`."
        )
    metadata, status = facts.operators[0]["metadata"], facts.operators[0].get("status", {})
    where = f"{metadata['namespace']}/{metadata['name']}"
    wanted, available = facts.operators[0].get("spec", {}).get("replicas", 1), status.get("availableReplicas", 0)
    look = f"`kubectl -n {metadata['namespace']} describe deployment {metadata['name']}`, then its pods and logs."
    if available < 1:
        return Judged("fail", f"{where}: none of {wanted} pods is available", f"Look at {look}")
    if available < wanted:
        return Judged("warn", f"{where}: {available} of {wanted} pods are available", f"Look at {look}")
    version = (metadata.get("labels") or {}).get(LABEL_VERSION)
    if version != facts.version:
        message = f"{where} is of version {version}, this command of {facts.version}"
        return Judged("warn", message, "Use the command and the operator of one release: what they show may differ.")
    return Judged("ok", f"{where}: {available} of {wanted} pods, version {version}")


def rights(facts: Facts) -> Judged:
    """Judge the operator's rights."""
    if not facts.operators:
        return Judged("unknown", "there is no operator whose rights could be checked")
    missing = [f"{', '.join(verbs)} {what}" for what, verbs in facts.rights.items() if verbs]
    if missing:
        return Judged(
            "fail",
            f"the operator may not: {'; '.join(missing[:6])}" + (f"; and {len(missing) - 6} more" * (len(missing) > 6)),
            f"`helm upgrade` its chart; its value watchNamespaces must be empty or hold {facts.namespace}.",
        )
    return Judged("ok", f"the operator has every right it needs in {facts.namespace}")


def clock(facts: Facts) -> Judged:
    """Judge clocks: this machine's against the API server's, and the operator's, by its Lease."""
    server = facts.server_time
    remedy = "Set the clock by NTP on that machine: tokens and certificates are refused when clocks disagree."
    if server is not None:
        ahead = (facts.local_time - server).total_seconds()
        if abs(ahead) > SKEW_S:
            word = "ahead of" if ahead > 0 else "behind"
            return Judged("warn", f"this machine's clock is {abs(ahead):.0f} s {word} the API server's", remedy)
    renewed = _time((facts.lease or {}).get("spec", {}).get("renewTime"))
    if renewed is not None:
        old = ((server or facts.local_time) - renewed).total_seconds()
        if old < -SKEW_S:
            return Judged("warn", f"the operator's clock is {-old:.0f} s ahead of the API server's", remedy)
        if old > LEASE_S:
            remedy = f"If the operator runs, its node's clock is behind: NTP. If not: `{PROGRAM} logs operator`."
            return Judged("warn", f"the operator's Lease was renewed {old:.0f} s ago, by its clock", remedy)
    if server is None and renewed is None:
        return Judged("unknown", "neither the API server's time nor the operator's Lease can be read")
    return Judged("ok", f"clocks agree within {SKEW_S} s")


def _time(text: Any) -> datetime | None:
    try:
        found = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return found if found.tzinfo else None


def dns(facts: Facts) -> Judged:
    """Judge the cluster's DNS by its ready endpoints."""
    if not facts.dns:
        return Judged("unknown", "there is no Service kube-dns in kube-system: this cluster has its DNS elsewhere")
    endpoints = [endpoint for item in facts.dns for endpoint in item.get("endpoints") or ()]
    ready = sum((endpoint.get("conditions") or {}).get("ready") is not False for endpoint in endpoints)
    if not ready:
        remedy = "`kubectl -n kube-system get pods -l k8s-app=kube-dns`: without DNS no service finds another."
        return Judged("fail", f"no DNS server is ready ({len(endpoints)} known)", remedy)
    return Judged("ok", f"ready endpoints: {ready}")
