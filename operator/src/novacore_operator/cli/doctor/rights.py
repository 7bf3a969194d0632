"""Which of its rights the operator lacks: asked of the API server as the operator, held against `rbac`.

One question per namespace gives every rule that holds for the operator (SelfSubjectRulesReview; nothing is stored).
Authorizers other than RBAC may be unable to list their rules; the answer then says that it is incomplete, and what
seems to be missing is asked for by name.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from novacore_operator.cli.kubectl import Kubectl, failure
from novacore_operator.rbac import Rule, namespaced_rules, own_namespace_rules

AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class Need:
    """Verbs on one kind of object, or on one object."""

    verbs: tuple[str, ...]
    group: str
    path: str  # resource, or resource/subresource
    name: str  # empty: all of the kind
    namespace: str

    @property
    def resource(self) -> str:
        """As kubectl names it: `deployments.apps`."""
        return self.path.partition("/")[0] + (f".{self.group}" if self.group else "")

    @property
    def subresource(self) -> str:
        """What stands behind the slash."""
        return self.path.partition("/")[2]

    def __str__(self) -> str:
        """As a person would say it: `deployments.apps in shop`."""
        return "/".join(part for part in (self.resource, self.subresource, self.name) if part) + f" in {self.namespace}"


def needs(*, namespace: str, own_namespace: str) -> list[Need]:
    """Return every right the operator needs for an installation, those of its own namespace last."""
    own = _of_rules(own_namespace_rules([namespace]), own_namespace)
    return list(dict.fromkeys([*_of_rules(namespaced_rules(), namespace), *own]))


def _of_rules(rules: list[Rule], namespace: str) -> Iterator[Need]:
    for rule in rules:
        for path in rule["resources"]:
            for name in rule.get("resourceNames") or [""]:
                yield Need(tuple(rule["verbs"]), rule["apiGroups"][0], path, name, namespace)


def lacking(need: Need, rules: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return the verbs of a need that no rule gives."""
    given: set[str] = set()
    for rule in rules:
        names = rule.get("resourceNames") or ()
        if _holds(rule.get("apiGroups"), need.group) and _covers(rule, need) and (not names or need.name in names):
            given |= set(rule.get("verbs") or ())
    return () if "*" in given else tuple(verb for verb in need.verbs if verb not in given)


def _covers(rule: Mapping[str, Any], need: Need) -> bool:
    return _holds(rule.get("resources"), need.path) or f"*/{need.subresource}" in (rule.get("resources") or ())


def _holds(listed: Any, wanted: str) -> bool:
    return bool({"*", wanted} & set(listed or ()))


def read_rights(kubectl: Kubectl, user: str, *, namespace: str, own_namespace: str) -> dict[str, tuple[str, ...]]:
    """Return, for each of its needs, the verbs that the operator lacks."""
    answers = {where: _rules(kubectl, user, where) for where in dict.fromkeys((namespace, own_namespace))}
    wanted = needs(namespace=namespace, own_namespace=own_namespace)
    missing = {need: lacking(need, answers[need.namespace].get("resourceRules") or ()) for need in wanted}
    doubtful = [
        replace(need, verbs=(verb,))
        for need, verbs in missing.items()
        if answers[need.namespace].get("incomplete")
        for verb in verbs
    ]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        granted = dict(zip(doubtful, pool.map(lambda one: _may(kubectl, one, user), doubtful), strict=True))
    return {
        str(need): tuple(verb for verb in verbs if not granted.get(replace(need, verbs=(verb,)), False))
        for need, verbs in missing.items()
    }


def _rules(kubectl: Kubectl, user: str, namespace: str) -> Mapping[str, Any]:
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": namespace},
    }
    answer = kubectl.json("create", "--filename=-", "--validate=false", f"--as={user}", stdin=json.dumps(review))
    return answer.get("status") or {}


def _may(kubectl: Kubectl, need: Need, user: str) -> bool:
    target = f"{need.resource}/{need.name}" if need.name else need.resource
    more = [f"--subresource={need.subresource}"] if need.subresource else []
    arguments = ("auth", "can-i", need.verbs[0], target, *more, f"--as={user}")
    _, out, error = kubectl.attempt(*arguments, namespace=need.namespace)
    word = out.strip().split(" ")[0]
    if word not in ("yes", "no"):
        raise failure(error or out)
    return word == "yes"
