"""The checks in one readable list, in the order of causes: what stands above explains what stands below."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from novacore_operator.cli.doctor import Facts, Judged
from novacore_operator.cli.doctor.cluster import clock, definition, dns, kubernetes, operator, rights
from novacore_operator.cli.doctor.installation import (
    autoscaling,
    claims,
    conditions,
    images,
    policies,
    single,
    storage,
)


@dataclass(frozen=True, slots=True)
class Check:
    """One check. `reads`: the facts without which it cannot judge."""

    id: str
    title: str
    reads: tuple[str, ...]
    judge: Callable[[Facts], Judged]


CHECKS: tuple[Check, ...] = (
    Check("kubernetes-version", "Kubernetes version", ("server",), kubernetes),
    Check("crd", "Resource definition", ("crd",), definition),
    Check("operator", "Operator", ("operators",), operator),
    Check("operator-rights", "Operator's rights", ("operators", "rights"), rights),
    Check("clock", "Clocks", (), clock),
    Check("dns", "DNS", ("dns",), dns),
    Check("storage-class", "StorageClass", ("classes", "claims", "resources"), storage),
    Check("one-resource", "One per namespace", ("resources",), single),
    Check("images", "Images", ("pods",), images),
    Check("volume-claims", "Volume claims", ("claims",), claims),
    Check("network-policy", "NetworkPolicies", ("policies",), policies),
    Check("autoscaling", "Autoscaling", ("resources", "metrics"), autoscaling),
    Check("conditions", "Conditions", ("resources",), conditions),
)


def examine(facts: Facts) -> list[tuple[Check, Judged]]:
    """Return every check with its result."""
    return [(check, _judged(check, facts)) for check in CHECKS]


def _judged(check: Check, facts: Facts) -> Judged:
    why = next((facts.unread[key] for key in check.reads if key in facts.unread), None)
    return check.judge(facts) if why is None else Judged("unknown", f"could not be read: {why}")
