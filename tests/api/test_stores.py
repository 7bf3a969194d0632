"""The modes of the data stores on a real API server: CloudNativePG's definition that comes late, Secrets of the user's,
caches that move, volumes that grow.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator

import pytest
import yaml

from novacore_contracts.releases import CURRENT
from tests.kit import cnpg
from tests.kit.api import Api, Manifest, RefusedError
from tests.kit.controlplane import ROOT, ControlPlane
from tests.kit.nova import NAME, await_condition, await_ready, condition, nova
from tests.kit.operator_process import SYSTEM, OperatorProcess, install_chart
from tests.kit.player import Player
from tests.kit.securestores import minted
from tests.kit.wait import until

CA = minted()["novacore-ca-private"]["tls.crt"].decode()
NAMED = ("pg", "redis", "cache")


def login(name: str, namespace: str, **changes: str) -> Manifest:
    """Return a Secret as the user makes one for a store of his."""
    values = {"host": f"{name}.example.org", "port": "6380", "user": "shop", "password": "word", "ca": CA}
    if name == "pg":
        values |= {"database": "shop", "port": "5433"}
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {**values, **changes}}


def component(resource: Manifest, name: str) -> Manifest:
    """Return one component of a resource's status."""
    return next(item for item in resource["status"]["components"] if item["name"] == name)


def names(api: Api, kind: str, namespace: str) -> set[str]:
    """Return the names of a namespace's objects of a kind."""
    return {item["metadata"]["name"] for item in api.list(kind, namespace)}


def nudge(api: Api, namespace: str) -> None:
    """Have the operator look now: by itself it looks at a blocked resource every 20 s."""
    live = api.must("NovaCoreDeployment", NAME, namespace)
    rate = live["spec"].get("limits", {}).get("anonPerMinute", 60) + 1
    api.patch("NovaCoreDeployment", NAME, namespace, {"spec": {"limits": {"anonPerMinute": rate}}})


# --- CloudNativePG --------------------------------------------------------------------------------------------------


@pytest.fixture
def without_cloud_native_pg(api: Api) -> Iterator[None]:
    """The definition is not there at the beginning, and there afterwards, as before."""
    cnpg.remove(api)
    yield
    cnpg.install(api)


def test_a_database_of_cloudnativepg_is_made_when_its_definition_comes(
    api: Api, operator: OperatorProcess, namespace: str, without_cloud_native_pg: None
) -> None:
    spec = {"mode": "CloudNativePG", "cloudNativePG": {"instances": 2}}
    api.create(nova(namespace, version="0.2.0", postgres=spec))
    resource = await_condition(api, namespace, "Ready", status="False", reason="CNPGMissing", within_s=20)
    assert "install CloudNativePG" in condition(resource, "Ready")["message"]
    assert api.list("Deployment", namespace) == []
    pid = operator.child.pid

    cnpg.install(api)
    resource = await_ready(api, namespace, within_s=40, report=operator.report)

    assert operator.child.pid == pid, "without a restart"
    cluster = api.must("Cluster", "novacore-postgres", namespace)
    assert cluster["spec"]["instances"] == 2
    assert "ownerReferences" not in cluster["metadata"], "it stays with its data"
    assert "novacore-postgres" not in names(api, "StatefulSet", namespace)
    assert component(resource, "postgres")["desired"] == 2
    secret = api.must("Secret", "novacore-postgres-admin", namespace)
    assert (secret["type"], base64.b64decode(secret["data"]["username"])) == ("kubernetes.io/basic-auth", b"postgres")


def test_what_cloudnativepg_says_of_its_database_decides_on_ready(
    api: Api, operator: OperatorProcess, player: Player, namespace: str
) -> None:
    player.cluster(namespace, cnpg.status(1, ready=0, phase="Setting up primary"))
    api.create(nova(namespace, version="0.2.0", postgres={"mode": "CloudNativePG"}))
    resource = await_condition(
        api, namespace, "DataStoresReady", status="False", reason="DataStoresStarting", within_s=20
    )
    until(
        lambda: (
            "Setting up primary" in component(api.must("NovaCoreDeployment", NAME, namespace), "postgres")["message"]
        ),
        within_s=10,
        what="the phase is told",
    )
    assert condition(resource, "Ready")["status"] == "False"
    assert api.list("Job", namespace) == [], "no migration before the database is there"

    player.cluster(namespace, cnpg.status(1))
    await_ready(api, namespace, report=operator.report)

    player.cluster(namespace, cnpg.status(1, ready=0, phase="Failing over"))
    await_condition(api, namespace, "Ready", status="False", within_s=10)
    player.cluster(namespace, cnpg.status(1))
    await_ready(api, namespace)


def test_an_edited_cluster_is_put_back_and_foreign_fields_stay(
    api: Api, operator: OperatorProcess, namespace: str
) -> None:
    api.create(nova(namespace, version="0.2.0", postgres={"mode": "CloudNativePG"}))
    await_ready(api, namespace, report=operator.report)
    api.patch("Cluster", "novacore-postgres", namespace, {"spec": {"instances": 5, "description": "mine"}})
    until(
        lambda: api.must("Cluster", "novacore-postgres", namespace)["spec"]["instances"] == 1,
        within_s=5,
        what="the number of instances is put back",
    )
    assert api.must("Cluster", "novacore-postgres", namespace)["spec"]["description"] == "mine"
    await_ready(api, namespace)


# --- stores of the user's -------------------------------------------------------------------------------------------


@pytest.fixture
def granted(control_plane: ControlPlane, api: Api, operator: OperatorProcess) -> Iterator[None]:
    """The chart lets the operator read the Secrets that users name here; afterwards no longer."""
    install_chart(control_plane, referencedSecrets=list(NAMED))
    yield
    install_chart(control_plane)


EXTERNAL = {
    "postgres": {"mode": "External", "external": {"adminSecretRef": {"name": "pg"}}},
    "redis": {
        "mode": "External",
        "external": {"secretRef": {"name": "redis"}, "cacheSecretRef": {"name": "cache"}},
    },
}


def test_stores_of_the_users_are_used_when_their_secrets_are_there_and_sound(
    api: Api, operator: OperatorProcess, namespace: str, granted: None
) -> None:
    api.create(nova(namespace, version="0.2.0", **EXTERNAL))
    resource = await_condition(api, namespace, "Ready", status="False", reason="SecretMissing", within_s=20)
    assert "host, port, user, password, database, ca" in condition(resource, "Ready")["message"]
    api.apply(login("pg", namespace))
    api.apply(login("redis", namespace, ca="not PEM"))
    api.apply(login("cache", namespace))
    nudge(api, namespace)
    until(
        lambda: (
            "certificates in PEM"
            in condition(api.get("NovaCoreDeployment", NAME, namespace), "Ready").get("message", "")
        ),
        within_s=30,
        what="the unusable certificate is told",
    )
    api.apply(login("redis", namespace))
    nudge(api, namespace)

    resource = await_ready(api, namespace, report=operator.report)

    assert [component(resource, name)["image"] for name in ("postgres", "redis", "redis-cache")] == ["external"] * 3
    assert api.list("StatefulSet", namespace) == []
    tried = json.loads(base64.b64decode(api.must("Secret", "novacore-migrate-creds", namespace)["data"]["redis.json"]))
    assert [one["host"] for one in tried["logins"]] == ["redis.example.org", "cache.example.org"]
    assert CA.strip() in api.must("ConfigMap", "novacore-ca", namespace)["data"]["ca.crt"]


def test_a_secret_that_was_not_granted_is_named_with_the_chart_value(
    api: Api, operator: OperatorProcess, namespace: str
) -> None:
    api.apply(login("redis", namespace))
    api.create(
        nova(namespace, version="0.2.0", redis={"mode": "External", "external": {"secretRef": {"name": "redis"}}})
    )
    resource = await_condition(api, namespace, "Ready", status="False", reason="SecretNotGranted", within_s=20)
    assert "referencedSecrets" in condition(resource, "Ready")["message"]


# --- caches that move -----------------------------------------------------------------------------------------------


def test_caches_move_into_a_redis_of_their_own_and_back(api: Api, operator: OperatorProcess, namespace: str) -> None:
    api.create(nova(namespace, version="0.2.0"))
    await_ready(api, namespace, report=operator.report)
    lasting = api.must("StatefulSet", "novacore-redis", namespace)["metadata"]["uid"]
    templates = {item["metadata"]["name"]: item["spec"]["template"] for item in api.list("Deployment", namespace)}

    api.patch("NovaCoreDeployment", NAME, namespace, {"spec": {"redis": {"cache": "Separate"}}})
    resource = await_ready(api, namespace, report=operator.report)

    assert component(resource, "redis-cache")["ready"] is True
    changed = {
        item["metadata"]["name"]
        for item in api.list("Deployment", namespace)
        if item["spec"]["template"] != templates[item["metadata"]["name"]]
    }
    assert changed == {"novacore-gateway", "novacore-memory", "novacore-ngs-curriculum"}

    api.patch("NovaCoreDeployment", NAME, namespace, {"spec": {"redis": {"cache": "Shared"}}})
    await_ready(api, namespace, report=operator.report)

    until(
        lambda: names(api, "StatefulSet", namespace) == {"novacore-postgres", "novacore-redis"},
        within_s=10,
        what="the second Redis is gone",
    )
    assert api.must("StatefulSet", "novacore-redis", namespace)["metadata"]["uid"] == lasting


# --- volumes that grow ----------------------------------------------------------------------------------------------


def claim(api: Api, namespace: str, store: str = "postgres") -> Manifest:
    """Return the volume claim of a store."""
    return api.must("PersistentVolumeClaim", f"data-novacore-{store}-0", namespace)


def test_a_volume_grows_in_place_and_ready_waits_for_it(
    api: Api, operator: OperatorProcess, player: Player, namespace: str
) -> None:
    api.create(nova(namespace, version="0.2.0"))
    await_ready(api, namespace, report=operator.report)
    before = claim(api, namespace)["metadata"]["uid"]
    player.grow(namespace, yes=False)

    api.patch("NovaCoreDeployment", NAME, namespace, {"spec": {"postgres": {"storage": {"size": "7Gi"}}}})
    resource = await_condition(api, namespace, "Ready", status="False", reason="VolumeGrowing", within_s=20)
    assert "7Gi" in condition(resource, "Ready")["message"]
    assert claim(api, namespace)["spec"]["resources"]["requests"]["storage"] == "7Gi"

    player.grow(namespace, yes=True)
    await_ready(api, namespace, report=operator.report)
    assert claim(api, namespace)["metadata"]["uid"] == before
    template = api.must("StatefulSet", "novacore-postgres", namespace)["spec"]["volumeClaimTemplates"][0]
    assert template["spec"]["resources"]["requests"]["storage"] == "5Gi", "a claim template cannot be changed"


def test_a_class_that_cannot_grow_is_named_and_tried_again(api: Api, operator: OperatorProcess, namespace: str) -> None:
    fixed = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": "fixed"},
        "provisioner": "example.org/none",
    }
    api.apply(fixed)
    storage = {"size": "1Gi", "className": "fixed"}
    api.create(nova(namespace, version="0.2.0", redis={"storage": storage}))
    await_ready(api, namespace, report=operator.report)

    bigger = {"spec": {"redis": {"storage": {"size": "2Gi"}}}}
    api.patch("NovaCoreDeployment", NAME, namespace, bigger)
    resource = await_condition(api, namespace, "Ready", status="False", reason="StorageChangeRefused", within_s=20)
    message = condition(resource, "Ready")["message"]
    assert "data-novacore-redis-0" in message
    assert "allowVolumeExpansion" in message
    with pytest.raises(RefusedError, match="cannot shrink"):
        api.patch("NovaCoreDeployment", NAME, namespace, {"spec": {"redis": {"storage": {"size": "1Gi"}}}})

    api.patch("StorageClass", "fixed", None, {"allowVolumeExpansion": True})
    nudge(api, namespace)
    await_ready(api, namespace, report=operator.report)
    assert claim(api, namespace, "redis")["spec"]["resources"]["requests"]["storage"] == "2Gi"


def test_the_operators_chart_needs_no_more_than_it_did(chart: list[Manifest]) -> None:
    """Nothing of CloudNativePG's Secrets may be read, and of StatefulSets only the Redis for caches may be deleted."""
    rules = [rule for item in chart if item["kind"] == "ClusterRole" for rule in item["rules"]]
    clusters = [rule for rule in rules if "clusters" in rule["resources"]]
    assert [sorted(rule["verbs"]) for rule in clusters] == [["create", "list", "patch", "watch"]]
    deleting = [rule for rule in rules if "statefulsets" in rule["resources"] and "delete" in rule["verbs"]]
    assert [rule.get("resourceNames") for rule in deleting] == [["novacore-redis-cache"]]
    secrets = {name for rule in rules if "secrets" in rule["resources"] for name in rule.get("resourceNames", ())}
    assert not {name for name in secrets if name.endswith(("-superuser", "-app", "-ca"))}
    assert SYSTEM == "novacore-system"


def examples() -> list[Manifest]:
    """Return every NovaCoreDeployment that the guide to installing shows."""
    text = (ROOT / "docs/guides/install.md").read_text(encoding="utf-8")
    blocks = [yaml.safe_load(block) for block in re.findall(r"^```yaml\n(.*?)^```", text, flags=re.M | re.S)]
    return [block for block in blocks if block.get("kind") == "NovaCoreDeployment"]


@pytest.mark.parametrize("example", examples(), ids=lambda example: json.dumps(example["spec"])[:60])
def test_the_guides_examples_are_accepted(api: Api, namespace: str, example: Manifest) -> None:
    example = {**example, "metadata": {**example["metadata"], "namespace": namespace}}
    assert api.create(example, dry_run=True)["spec"]["version"] == CURRENT
