"""The rights that the chart grants are those that the operator used, as the API server's audit log has it.

Cluster mode is judged on all that the operator did in this run so far (this file is the last of its folder); namespaced
mode on an installation of its own, with its own operator, ServiceAccount and Roles.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.api.rights import FORBIDDEN, Right, exercised, granted, used
from tests.kit.api import Api, RefusedError
from tests.kit.auditlog import AuditLog
from tests.kit.controlplane import ControlPlane
from tests.kit.nova import NAME, await_condition, await_ready, nova
from tests.kit.operator_process import OperatorProcess, install_chart, namespace_of
from tests.kit.player import Behaviour, Player
from tests.kit.wait import until

ELSEWHERE = Path(__file__).with_name("rights_used_elsewhere.txt")
TEAM, TEAM_DATABASE, TEAM_SYSTEM = "team", "team-database", "team-system"
RELEASES_KEPT = 10


def used_elsewhere() -> dict[str, str]:
    """Return the rights that only other tests use, each with the test that does."""
    lines = (line.partition("#") for line in ELSEWHERE.read_text().splitlines())
    return {right.strip(): test.strip() for right, _, test in lines if right.strip()}


def test_a_right_that_is_used_elsewhere_names_the_test_that_uses_it() -> None:
    sources = "".join(file.read_text() for file in (ELSEWHERE.parents[1] / "cluster").glob("test_*.py"))
    for right, test in used_elsewhere().items():
        assert test.startswith("test_"), right
        assert f"def {test}(" in sources, f"{right}: tests/cluster has no {test}"


def live_through(api: Api, player: Player, namespace: str) -> None:
    """Lead an installation through all that makes the operator delete, grow, and forget."""
    player.behave("migrate", Behaviour.STARTING, namespace=namespace)
    services = {"memory": {"autoscaling": {"maxReplicas": 3}}}
    api.create(nova(namespace, version="0.2.0", profile="Production", services=services))
    await_condition(api, namespace, "MigrationsApplied", status="False", reason="MigrationRunning", within_s=30)
    # Another content of a migration that has not ended: the old Job goes.
    (first,) = names(api, "Job", namespace)
    change(api, namespace, image={"pullSecrets": ["registry"]})
    until(
        lambda: (now := names(api, "Job", namespace)) and first not in now,
        within_s=10,
        what="another Job in the first one's place",
    )
    player.behave("migrate", Behaviour.READY, namespace=namespace)
    await_ready(api, namespace)
    change(
        api,
        namespace,
        profile="Development",
        postgres={"storage": {"size": "6Gi"}},
        networkPolicy={"enabled": False},
        services={"memory": {"autoscaling": None}, "mcp-server": {"enabled": False}},
    )
    await_ready(api, namespace)
    for kind in ("PodDisruptionBudget", "NetworkPolicy", "HorizontalPodAutoscaler"):
        until(lambda kind=kind: not names(api, kind, namespace), within_s=10, what=f"no {kind}")
    until(lambda: "novacore-redis-cache" not in names(api, "StatefulSet", namespace), within_s=10, what="one Redis")
    for rate in range(20, 20 + RELEASES_KEPT):
        change(api, namespace, limits={"authPerMinute": rate})
        await_ready(api, namespace)
    oldest = "novacore-release-1"
    until(lambda: oldest not in names(api, "ControllerRevision", namespace), within_s=10, what=f"{oldest} is gone")


def have_a_database_made(api: Api, namespace: str) -> None:
    """Have a database by CloudNativePG made and changed: the one kind that `live_through` does not come by."""
    spec = {"mode": "CloudNativePG", "cloudNativePG": {"instances": 1}}
    api.create(nova(namespace, version="0.2.0", postgres=spec))
    await_ready(api, namespace)
    change(api, namespace, postgres={"cloudNativePG": {"instances": 2}})
    await_ready(api, namespace)


def names(api: Api, kind: str, namespace: str) -> set[str]:
    """Return the names of a namespace's objects of a kind."""
    return {item["metadata"]["name"] for item in api.list(kind, namespace)}


def change(api: Api, namespace: str, **spec: object) -> None:
    """Change the spec of a namespace's resource."""
    api.patch("NovaCoreDeployment", NAME, namespace, {"spec": spec})


def judge(api: Api, audit: AuditLog, user: str, say: Callable[[str], None], *, mode: str, since: int = 0) -> None:
    """Compare what is granted to a user with what he used; fail on either side's surplus."""
    requests = list(audit.requests(user=user, since=since))
    rights = granted(api, user)
    uncovered, needed = exercised(rights, used(requests))
    forbidden = [str(request) for request in requests if request.code == FORBIDDEN]
    surplus = sorted({right.words for right in rights - needed if not _used_in_the_other(right, needed)})
    elsewhere = set(used_elsewhere())
    say(
        f"rbac, {mode} mode: {len(requests)} requests; {len(rights)} rights granted, {len(needed)} used, "
        f"{len(uncovered)} used beyond what is granted, {len(surplus)} granted and not used"
        + "".join(f"\n  not used: {line}" for line in surplus)
    )
    assert forbidden == []
    assert uncovered == set()
    assert sorted(elsewhere - set(surplus)) == [], "the list names rights that are used here or not granted"
    assert [line for line in surplus if line not in elsewhere] == []


def _used_in_the_other(right: Right, needed: set[Right]) -> bool:
    """Whether a right was used in the team's other namespace: both have the same Role, and each a mode of its own."""
    other = {TEAM: TEAM_DATABASE, TEAM_DATABASE: TEAM}.get(right.where)
    return other is not None and replace(right, where=other) in needed


def test_in_cluster_mode_granted_is_used(
    api: Api,
    operator: OperatorProcess,
    player: Player,
    audit: AuditLog,
    installation: str,
    namespace: str,
    say: Callable[[str], None],
) -> None:
    live_through(api, player, namespace)
    second = f"{namespace}-database"
    api.apply(namespace_of(second))
    have_a_database_made(api, second)
    judge(api, audit, operator.user, say, mode="cluster")
    api.delete("NovaCoreDeployment", NAME, second)


@pytest.fixture
def team_operator(control_plane: ControlPlane, api: Api, operator: OperatorProcess) -> OperatorProcess:
    """A second operator, for two namespaces, not started. The first one is stopped meanwhile: it watches all."""
    install_chart(control_plane, namespace=TEAM_SYSTEM, watchNamespaces=[TEAM, TEAM_DATABASE])
    return OperatorProcess(control_plane, name="team-operator", namespace=TEAM_SYSTEM, namespaces=[TEAM, TEAM_DATABASE])


def test_in_namespaced_mode_granted_is_used(
    api: Api,
    operator: OperatorProcess,
    team_operator: OperatorProcess,
    player: Player,
    audit: AuditLog,
    say: Callable[[str], None],
) -> None:
    operator.stop()
    try:
        for name in (TEAM, TEAM_DATABASE):
            api.apply(namespace_of(name))
        team_operator.start()
        live_through(api, player, TEAM)
        have_a_database_made(api, TEAM_DATABASE)
        team_operator.stop()
        judge(api, audit, team_operator.user, say, mode="namespaced")
    finally:
        team_operator.kill()
        for name in (TEAM, TEAM_DATABASE):
            api.delete("NovaCoreDeployment", NAME, name)
        operator.start()


def test_the_operator_reaches_no_secret_but_its_own(
    control_plane: ControlPlane, api: Api, operator: OperatorProcess, installation: str
) -> None:
    metadata = {"name": "somebodys", "namespace": installation}
    api.apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"a": "b"}})
    as_operator = control_plane.service_account(operator.user)
    assert as_operator.get("Secret", "novacore-keyset", installation) is not None
    with pytest.raises(RefusedError) as caught:
        as_operator.get("Secret", "somebodys", installation)
    assert caught.value.code == FORBIDDEN
