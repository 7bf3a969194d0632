"""What RBAC grants and what was used of it, in one form: verb, resource, object name, and where.

`create` is not in the audit log where server-side apply made an object: the verb there is `patch`, the answer 201, and
the API server asked its authorizer for both.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tests.kit.api import Api, Manifest
from tests.kit.auditlog import Request

EVERY = "*"
CREATED = 201
FORBIDDEN = 403


@dataclass(frozen=True, slots=True, order=True)
class Right:
    """One verb on one resource. `where`: the role's namespace, or `*` for a ClusterRole; `name`: `*` for every object."""

    where: str
    group: str
    resource: str
    verb: str
    name: str = EVERY

    def covers(self, use: Use) -> bool:
        """Whether this right permits that use."""
        return (
            self.where in (EVERY, use.namespace)
            and (self.group, self.resource, self.verb) == (use.group, use.resource, use.verb)
            and self.name in (EVERY, use.name)
        )

    @property
    def words(self) -> str:
        """As it stands in the list of rights that other tests use, wherever it is granted."""
        return f"{self.group or 'core'} {self.resource} {self.verb} {self.name}"

    def __str__(self) -> str:
        """For a failed assertion."""
        return f"{self.where} {self.words}"


@dataclass(frozen=True, slots=True, order=True)
class Use:
    """One verb that was used on one resource."""

    namespace: str  # empty: all namespaces at once
    group: str
    resource: str
    verb: str
    name: str


def granted(api: Api, user: str) -> set[Right]:
    """Return the rights that are bound to a ServiceAccount."""
    _, _, namespace, name = user.split(":")
    found: set[Right] = set()
    for binding in [*api.list("ClusterRoleBinding"), *api.list("RoleBinding")]:
        subjects = binding.get("subjects") or ()
        if not any(
            (item["kind"], item.get("namespace"), item["name"]) == ("ServiceAccount", namespace, name)
            for item in subjects
        ):
            continue
        where = binding["metadata"].get("namespace", EVERY)
        ref = binding["roleRef"]
        role = api.must(ref["kind"], ref["name"], where if ref["kind"] == "Role" else None)
        found.update(_rights(role, where))
    return found


def _rights(role: Manifest, where: str) -> Iterator[Right]:
    for rule in role["rules"]:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                for verb in rule["verbs"]:
                    for name in rule.get("resourceNames") or (EVERY,):
                        yield Right(where, group, resource, verb, name)


def used(requests: Iterable[Request]) -> set[Use]:
    """Return what was used, each once."""
    found = set()
    for request in requests:
        at = (request.namespace, request.group, request.resource)
        found.add(Use(*at, request.verb, request.name))
        if request.verb == "patch" and request.code == CREATED:
            found.add(Use(*at, "create", request.name))
    return found


def exercised(rights: set[Right], uses: set[Use]) -> tuple[set[Use], set[Right]]:
    """Return the uses that no right covers, and the rights that were used: of several, the narrowest."""
    uncovered, needed = set(), set()
    for use in uses:
        fitting = [right for right in rights if right.covers(use)]
        if fitting:
            needed.add(min(fitting, key=lambda right: (right.where == EVERY, right.name == EVERY)))
        else:
            uncovered.add(use)
    return uncovered, needed
