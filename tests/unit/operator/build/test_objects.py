"""Tables over all objects of an installation."""

import base64
import json
from typing import Any

import pytest
import yaml
from cryptography import x509

from novacore.auth_billing.payments.settings import StripeSettings
from novacore_contracts.services import BY_NAME, INTERNAL_PORT, SERVICES
from novacore_operator.api.spec import Spec
from novacore_operator.api.stores import LOGINS
from novacore_operator.build.settings import settings_of
from novacore_operator.rotation.forms import payload_unverified
from novacore_operator.state import Manifest, names, ref_of
from tests.unit.operator.build.objects import build, templates
from tests.unit.operator.make import ADMIN, REDIS, World

PODS = templates(build())


@pytest.mark.parametrize("pod", PODS.values(), ids=PODS)
def test_pods_meet_pod_security_restricted(pod: dict[str, Any]) -> None:
    spec = pod["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] > 0
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    for container in spec["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["limits"].keys() == {"cpu", "memory"}
    allowed = {"configMap", "secret", "emptyDir", "projected", "persistentVolumeClaim"}
    assert all(volume.keys() - {"name"} <= allowed for volume in spec["volumes"])


@pytest.mark.parametrize("pod", PODS.values(), ids=PODS)
def test_no_environment_variable_holds_a_secret(pod: dict[str, Any]) -> None:
    assert not any("env" in container or "envFrom" in container for container in pod["spec"]["containers"])


@pytest.mark.parametrize("pod", PODS.values(), ids=PODS)
def test_secrets_are_directories_read_by_the_group_only(pod: dict[str, Any]) -> None:
    for volume in pod["spec"]["volumes"]:
        if "secret" in volume:
            assert volume["secret"]["defaultMode"] == 0o440
    for container in pod["spec"]["containers"]:
        assert not any("subPath" in mount for mount in container["volumeMounts"])


def test_private_keys_are_mounted_by_their_one_reader() -> None:
    readers: dict[str, set[str]] = {}
    for owner, pod in PODS.items():
        for volume in pod["spec"]["volumes"]:
            if "secret" in volume:
                readers.setdefault(volume["secret"]["secretName"], set()).add(owner)
    assert readers[names.SERVICE_JWT_PRIVATE] == readers[names.USER_JWT_PRIVATE] == {"novacore-auth-billing"}
    assert readers[names.POLICY_PRIVATE] == {"novacore-noble-spirit"}
    assert names.CA_PRIVATE not in readers
    assert readers[names.KEYSET] == {service.full_name for service in SERVICES}
    for service in SERVICES:
        assert readers[names.creds(service.name)] == {service.full_name}


def test_only_auth_billing_can_reach_the_api_server() -> None:
    holders = {
        owner
        for owner, pod in PODS.items()
        for volume in pod["spec"]["volumes"]
        for source in volume.get("projected", {}).get("sources", ())
        if "serviceAccountToken" in source and "audience" not in source["serviceAccountToken"]
    }
    assert holders == {"novacore-auth-billing"}


def test_public_service_carries_the_service_port_only() -> None:
    service = build(expose={"type": "NodePort"})["Service", "novacore-gateway-public"]
    assert [port["name"] for port in service["spec"]["ports"]] == ["http"]
    assert service["spec"]["ports"][0]["nodePort"] == 30500


def test_cluster_ip_has_no_node_port() -> None:
    service = build()["Service", "novacore-gateway-public"]
    assert service["spec"]["type"] == "ClusterIP"
    assert "nodePort" not in service["spec"]["ports"][0]


def test_workers_have_the_internal_port_only() -> None:
    ports = build()["Service", "novacore-reflection-worker"]["spec"]["ports"]
    assert [(port["name"], port["port"]) for port in ports] == [("internal", INTERNAL_PORT)]


def test_production_runs_two_of_each_but_the_scheduled_worker() -> None:
    objects = build(profile="Production")
    found = {service.name: objects["Deployment", service.full_name]["spec"]["replicas"] for service in SERVICES}
    assert found == {service.name: 1 if service.name == "distillation-worker" else 2 for service in SERVICES}


def test_selectors_do_not_change_with_the_release_or_the_resource() -> None:
    def selectors(objects: dict[tuple[str, str], Manifest]) -> list[Any]:
        return [manifest["spec"]["selector"] for (kind, _), manifest in objects.items() if kind == "Deployment"]

    assert selectors(build()) == selectors(build(profile="Production", image={"tag": "next"}))
    assert all(
        set(s["matchLabels"]) == {"app.kubernetes.io/name", "app.kubernetes.io/component"} for s in selectors(build())
    )


def test_a_setting_restarts_only_the_service_that_reads_it() -> None:
    before, after = templates(build()), templates(build(limits={"authPerMinute": 99}))
    assert [name for name in before if before[name] != after[name]] == ["novacore-gateway"]


def test_settings_hold_what_the_spec_says() -> None:
    objects = build(
        models={"llm": {"provider": "echo", "echo": {"delayMs": 1, "tokens": 4}}, "embeddings": {"provider": "hash"}},
        tiers={"freeTrial": {"tokensPerDay": 7, "memoryGiB": 2}},
    )

    def settings(service: str) -> Any:
        return yaml.safe_load(objects["ConfigMap", f"novacore-{service}-settings"]["data"]["settings.yaml"])

    assert settings("intelligence")["llm"] == {
        "provider": "echo",
        "max_tokens": 2000,
        "timeout_seconds": 120,
        "echo": {"delay_ms": 1, "tokens": 4},
    }
    assert settings("memory")["embeddings"] == {"provider": "hash"}
    assert settings("auth-billing")["tiers"]["free_trial"]["llm_tokens_per_day"] == 7
    assert settings("auth-billing")["tiers"]["free_trial"]["memory_storage_bytes"] == 2 << 30
    assert settings("auth-billing")["tiers"]["pro"]["memory_storage_bytes"] == -1
    assert settings("gateway")["limits"]["auth_per_minute"] == 10


def test_stripe_is_told_to_auth_billing_alone_in_words_that_it_takes() -> None:
    stripe = {
        "enabled": True,
        "apiKeySecretRef": {"name": "stripe"},
        "webhook": {"secretRef": {"name": "stripe"}},
        "prices": {"pro": "price_1"},
        "returnURL": "https://app.example.org/",
    }
    spec = Spec.model_validate({"version": "0.2.0", "stripe": stripe})
    told = settings_of(spec, "auth-billing")["stripe"]
    assert told == {"enabled": True, "prices": {"pro": "price_1"}, "return_url": "https://app.example.org"}
    assert StripeSettings.model_validate(told).tiers() == {"price_1": "pro"}
    assert [s.name for s in SERVICES if "stripe" in settings_of(spec, s.name)] == ["auth-billing"]
    off = Spec.model_validate({"version": "0.1.0", "stripe": {**stripe, "enabled": False}})
    assert "stripe" not in settings_of(off, "auth-billing")  # release 0.1.0 refuses keys it does not know


def test_stripes_secrets_reach_auth_billing_alone_and_a_new_one_replaces_no_pod() -> None:
    stripe = {
        "enabled": True,
        "apiKeySecretRef": {"name": "money", "key": "key"},
        "webhook": {"secretRef": {"name": "hook"}},
        "prices": {"pro": "price_1"},
    }
    first, second = World(), World()
    for world, secret in ((first, b"whsec_one\n"), (second, b"whsec_two")):
        world.grant("money", key=b"rk_canary")
        world.grant("hook", webhookSecret=secret)
    before, after = build(first, stripe=stripe, version="0.2.0"), build(second, stripe=stripe, version="0.2.0")
    assert credential(before, "auth-billing", "stripeKey") == {"api_key": "rk_canary"}
    assert credential(before, "auth-billing", "stripeWebhook") == {"secret": "whsec_one"}
    assert credential(after, "auth-billing", "stripeWebhook") == {"secret": "whsec_two"}
    assert templates(before) == templates(after)
    holders = [key for key, manifest in before.items() if any("stripe" in name for name in manifest.get("data", {}))]
    assert holders == [("Secret", names.creds("auth-billing"))]
    assert "rk_canary" not in json.dumps([m for m in before.values() if m["kind"] != "Secret"])


def test_retained_data_has_no_owner_and_the_rest_has() -> None:
    owned = {key: "ownerReferences" in manifest["metadata"] for key, manifest in build().items()}
    free = {name for (kind, name), yes in owned.items() if not yes and kind == "Secret"}
    assert free == names.DATA_SECRETS | {names.root_secret("test")}
    assert all(yes for (kind, _), yes in owned.items() if kind not in ("Secret", "PersistentVolumeClaim"))


def test_with_reclaim_delete_secrets_go_with_the_resource() -> None:
    objects = build(postgres={"storage": {"reclaim": "Delete"}})
    assert "ownerReferences" in objects["Secret", names.POSTGRES_ADMIN]["metadata"]
    policy = objects["StatefulSet", "novacore-postgres"]["spec"]["persistentVolumeClaimRetentionPolicy"]
    assert policy == {"whenDeleted": "Delete", "whenScaled": "Retain"}


def test_root_key_lies_in_the_operators_namespace() -> None:
    assert ref_of(build()["Secret", names.root_secret("test")]).namespace == "novacore-system"


def test_postgres_cache_follows_the_memory_limit() -> None:
    objects = build(postgres={"resources": {"limits": {"memory": "2Gi"}}})
    assert "shared_buffers = 512MB" in objects["ConfigMap", names.POSTGRES_CONFIG]["data"]["postgresql.conf"]


def test_postgres_takes_no_connection_without_tls() -> None:
    rules = build()["ConfigMap", names.POSTGRES_CONFIG]["data"]["pg_hba.conf"].splitlines()
    assert {rule.split()[0] for rule in rules if rule and not rule.startswith("#")} == {"local", "hostssl"}


def test_redis_knows_one_user_per_service_and_no_default() -> None:
    acl = build()["ConfigMap", names.REDIS_CONFIG]["data"]["users.acl"].splitlines()
    users = {line.split()[1]: line for line in acl}
    assert users.keys() == {"default", "probe", *(service.name for service in SERVICES if service.redis)}
    assert " off " in users["default"]
    assert users["probe"].endswith("-@all +ping")
    assert "nopass" not in users["memory"]


def test_external_postgres_replaces_ours() -> None:
    world = World()
    world.grant("pg", **ADMIN)
    objects = build(world, postgres={"mode": "External", "external": {"adminSecretRef": {"name": "pg"}}})
    assert ("StatefulSet", "novacore-postgres") not in objects
    assert ("Secret", names.POSTGRES_ADMIN) not in objects
    admin = json.loads(base64.b64decode(objects["Secret", names.MIGRATE_CREDS]["data"]["admin.json"]))
    assert (admin["host"], admin["port"], admin["database"]) == ("db.example.org", 5433, "nova")
    assert objects["ConfigMap", names.CA]["data"]["ca.crt"].count("BEGIN CERTIFICATE") == 2


def test_the_job_has_another_name_when_it_would_do_something_else() -> None:
    def job(**spec: Any) -> str:
        return next(name for kind, name in build(**spec) if kind == "Job")

    assert job() == job()
    assert len({job(), job(image={"tag": "x"}), job(image={"pullPolicy": "Always"})}) == 3


def test_names_are_fixed_whatever_the_resource_is_called() -> None:
    assert ("Deployment", "novacore-memory") in build()
    assert {BY_NAME[service.name].full_name for service in SERVICES} == {
        name for kind, name in build() if kind == "Deployment"
    }


def credential(objects: Any, service: str, ring: str) -> dict[str, Any]:
    """Return what a service logs in with."""
    compact = base64.b64decode(objects["Secret", names.creds(service)]["data"][f"{ring}.jws"])
    document = payload_unverified(compact)
    assert document is not None
    return dict(document.active.material)


def test_production_has_a_second_redis_for_what_may_be_lost() -> None:
    objects = build(profile="Production")
    conf = objects["ConfigMap", names.REDIS_CACHE_CONFIG]["data"]["redis.conf"].splitlines()
    assert {"appendonly no", "maxmemory-policy allkeys-lru", "port 0"} <= set(conf)
    store = objects["StatefulSet", "novacore-redis-cache"]["spec"]
    assert "volumeClaimTemplates" not in store
    assert "noeviction" in objects["ConfigMap", names.REDIS_CONFIG]["data"]["redis.conf"]
    users = {
        line.split()[1] for line in objects["ConfigMap", names.REDIS_CACHE_CONFIG]["data"]["users.acl"].splitlines()
    }
    assert users == {"default", "probe", *(service.name for service in SERVICES if service.cache)}
    for service in SERVICES:
        settings = yaml.safe_load(objects["ConfigMap", names.settings(service.name)]["data"]["settings.yaml"])
        assert (settings.get("redis_cache") == "separate") is service.cache
        if service.redis:
            login = credential(objects, service.name, "redis")
            assert ("cache" in login) is service.cache
            if service.cache:
                assert login["cache"] == {**{k: login[k] for k in ("user", "password", "port", "tls")}} | {
                    "host": "novacore-redis-cache"
                }


@pytest.mark.parametrize(
    ("spec", "separate"),
    [
        ({}, False),
        ({"redis": {"cache": "Separate"}}, True),
        ({"profile": "Production", "redis": {"cache": "Shared"}}, False),
        ({"profile": "Production", "version": "0.1.0"}, False),  # it cannot read of a second one
    ],
)
def test_a_second_redis_is_there_when_asked_for(spec: dict[str, Any], separate: bool) -> None:
    objects = build(**spec)
    assert (("StatefulSet", "novacore-redis-cache") in objects) is separate
    assert ((("Secret", names.REDIS_CACHE_TLS)) in objects) is separate


def test_an_external_redis_replaces_ours_and_its_login_is_everybodys() -> None:
    world = World()
    world.grant("redis", **REDIS)
    objects = build(world, redis={"mode": "External", "external": {"secretRef": {"name": "redis"}}})
    assert not [name for kind, name in objects if "novacore-redis" in name]
    login = credential(objects, "memory", "redis")
    assert login == {"user": "shop", "password": "short", "host": "cache.example.org", "port": 6380, "tls": True}
    assert objects["ConfigMap", names.CA]["data"]["ca.crt"].count("BEGIN CERTIFICATE") == 2
    tried = json.loads(base64.b64decode(objects["Secret", names.MIGRATE_CREDS]["data"]["redis.json"]))["logins"]
    assert [(one["name"], one["host"], one["port"], one["user"]) for one in tried] == [
        ("redis", "cache.example.org", 6380, "shop")
    ]


def test_an_external_redis_may_have_a_second_one_beside_it() -> None:
    world = World()
    world.grant("redis", **REDIS)
    world.grant("cache", **{**REDIS, "port": b"6390"})
    refs = {"secretRef": {"name": "redis"}, "cacheSecretRef": {"name": "cache"}}
    objects = build(world, redis={"mode": "External", "external": refs})
    assert credential(objects, "memory", "redis")["cache"]["port"] == 6390
    assert "cache" not in credential(objects, "intelligence", "redis")
    assert objects["ConfigMap", names.CA]["data"]["ca.crt"].count("BEGIN CERTIFICATE") == 2, "each authority once"


def test_cloudnativepg_is_given_password_and_certificate_and_nothing_of_it_is_read() -> None:
    objects = build(postgres={"mode": "CloudNativePG", "cloudNativePG": {"instances": 3, "imageName": "pg:18"}})
    assert ("StatefulSet", "novacore-postgres") not in objects
    cluster = objects["Cluster", "novacore-postgres"]
    assert cluster["apiVersion"] == "postgresql.cnpg.io/v1"
    assert "ownerReferences" not in cluster["metadata"], "reclaim Retain: it stays with the data"
    spec = cluster["spec"]
    assert (spec["instances"], spec["imageName"], spec["storage"]) == (3, "pg:18", {"size": "5Gi"})
    admin, tls = (objects["Secret", name] for name in (names.POSTGRES_ADMIN, names.POSTGRES_TLS))
    assert spec["superuserSecret"] == {"name": names.POSTGRES_ADMIN}
    assert spec["certificates"] == {"serverTLSSecret": names.POSTGRES_TLS, "serverCASecret": names.POSTGRES_TLS}
    assert (admin["type"], tls["type"]) == ("kubernetes.io/basic-auth", "kubernetes.io/tls")
    assert base64.b64decode(admin["data"]["username"]) == b"postgres"
    assert {"tls.crt", "tls.key", "ca.crt"} <= tls["data"].keys()
    for secret in (admin, tls):
        assert "cnpg.io/reload" in secret["metadata"]["labels"]
    access = json.loads(base64.b64decode(objects["Secret", names.MIGRATE_CREDS]["data"]["admin.json"]))
    assert (access["host"], access["user"]) == ("novacore-postgres-rw", "postgres")
    assert credential(objects, "memory", "postgres")["host"] == "novacore-postgres-rw"
    leaf = x509.load_pem_x509_certificate(base64.b64decode(tls["data"]["tls.crt"]))
    found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "novacore-postgres-rw" in found.get_values_for_type(x509.DNSName)


def test_with_reclaim_delete_the_cluster_goes_with_the_resource() -> None:
    objects = build(postgres={"mode": "CloudNativePG", "storage": {"reclaim": "Delete"}})
    assert "ownerReferences" in objects["Cluster", "novacore-postgres"]["metadata"]


def test_with_logins_of_the_users_each_service_has_his_and_no_role_is_made() -> None:
    world = World()
    for who in LOGINS:
        world.grant(f"pg-{who}", **{**ADMIN, "user": f"team_{who}".encode(), "password": f"w-{who}".encode()})
    refs = {who: {"name": f"pg-{who}"} for who in LOGINS}
    objects = build(world, postgres={"mode": "External", "external": {"perServiceSecretRefs": refs}})
    for service in SERVICES:
        if service.schema is not None:
            login = credential(objects, service.name, "postgres")
            assert (login["user"], login["password"]) == (f"team_{service.name}", f"w-{service.name}")
            assert (login["host"], login["sslmode"]) == ("db.example.org", "verify-full")
    data = {
        key: json.loads(base64.b64decode(value))
        for key, value in objects["Secret", names.MIGRATE_CREDS]["data"].items()
    }
    assert data["admin.json"]["user"] == "team_migrate"
    assert data["roles.json"]["roles"] == []
    assert data["roles.json"]["given"] == {
        service.role: f"team_{service.name}" for service in SERVICES if service.schema is not None
    }
    assert ("StatefulSet", "novacore-postgres") not in objects
