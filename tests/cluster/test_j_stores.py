"""A second installation: its Postgres is one that somebody else runs (here: the first installation's), with roles made by
hand and a Secret for each login; what may be lost has a Redis of its own.
"""

from __future__ import annotations

import json
import secrets
import subprocess
from typing import Any

from novacore_contracts.services import SERVICES
from tests.cluster.conftest import ROOT, SYSTEM
from tests.cluster.kube import Kube, condition, until

DATABASE = "shop"
NEEDED = ("gateway", "auth-billing", "noble-spirit", "memory", "intelligence")
"""What a chat needs; the others would only take time to start."""
LOGINS = {service.name: service.schema for service in SERVICES if service.schema is not None}
HOST = "novacore-postgres.novacore.svc"

ASK = """
import asyncio, json, sys, urllib.request
from novacore.common.clock import SystemClock
from novacore.common.keyring import KeyRings
from novacore.common.metrics import Metrics
from novacore.common.redis import build_redis
from novacore.common.settings import CommonSettings
from novacore_contracts.paths import paths

def post(path, body, **headers):
    data = json.dumps(body).encode()
    request = urllib.request.Request("http://127.0.0.1:5000" + path, data, {"Content-Type": "application/json", **headers})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)

account = post("/api/auth/register", {"email": sys.argv[1], "password": sys.argv[2]})
token = {"Authorization": "Bearer " + account["access_token"]}
reply = post("/api/chat/message", {"message": "Is anybody there?"}, **token)

async def keys(cache):
    metrics = Metrics("gateway")
    keyrings = KeyRings(paths(), SystemClock(), metrics)
    keyrings.load()
    options = {"paths": paths(), "keyrings": keyrings, "settings": CommonSettings(), "metrics": metrics}
    client = build_redis(**options, cache=cache)
    found = [key async for key in client.scan_iter("*")]
    await client.aclose()
    return sorted({key.partition(":")[0] for key in found})

print(json.dumps({"reply": reply, "cache": asyncio.run(keys(True)), "lasting": asyncio.run(keys(False))}))
"""


def sql(kube: Kube, text: str, *, database: str = "postgres") -> str:
    """Run statements as the administrator of the first installation's Postgres."""
    command = ("psql", "-U", "postgres", "-d", database, "-v", "ON_ERROR_STOP=1", "-qtA")
    return kube.exec("novacore-postgres-0", "novacore", *command, stdin=text)


def make_roles(kube: Kube) -> dict[str, str]:
    """Make database and roles as docs/guides/install.md says; return the password of each login."""
    words = {who: secrets.token_hex(20) for who in (*LOGINS, "migrate")}
    sql(kube, f"CREATE DATABASE {DATABASE};")
    lines = [
        f"CREATE ROLE {DATABASE}_migrate LOGIN PASSWORD '{words['migrate']}' IN ROLE nova_migrator;",
        f"GRANT CREATE ON DATABASE {DATABASE} TO nova_migrator;",
        "CREATE EXTENSION vector SCHEMA public;",
    ]
    lines += [
        f"CREATE ROLE {DATABASE}_{schema} LOGIN PASSWORD '{words[who]}' IN ROLE nova_{schema};"
        for who, schema in LOGINS.items()
    ]
    sql(kube, "\n".join(lines), database=DATABASE)
    return words


def let_in(kube: Kube, namespace: str) -> None:
    """Open the first installation's Postgres to another namespace, as whoever runs a database would."""
    ns = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}
    pods = {"matchLabels": {"app.kubernetes.io/component": "postgres"}}
    spec = {"podSelector": pods, "ingress": [{"from": [ns], "ports": [{"port": 5432}]}]}
    metadata = {"name": "let-in", "namespace": "novacore"}
    kube.apply({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec})


def grant(kube: Kube, namespace: str, names: list[str]) -> None:
    """Upgrade the operator's chart: the namespace holds an installation, and these Secrets may be read."""
    chart = ("novacore-operator", str(ROOT / "charts/novacore-operator"), "--namespace", SYSTEM, "--reuse-values")
    values = {"installationNamespaces": ["novacore", namespace], "referencedSecrets": names}
    settings = [f"--set-json={key}={json.dumps(value)}" for key, value in values.items()]
    command = [str(ROOT / ".tools/bin/helm"), "--kubeconfig", str(kube.kubeconfig), "upgrade", *chart, *settings]
    subprocess.run(command, check=True, timeout=120, capture_output=True)


def test_an_installation_on_somebodys_postgres_with_a_redis_for_caches(
    kube: Kube, platform: str, namespace: str
) -> None:
    let_in(kube, namespace)
    words = make_roles(kube)
    ca = kube.must("configmap", "novacore-ca", platform)["data"]["ca.crt"]
    for who, word in words.items():
        user = f"{DATABASE}_{LOGINS.get(who, who)}"
        data = {"host": HOST, "port": "5432", "user": user, "password": word, "database": DATABASE, "ca": ca}
        metadata = {"name": f"pg-{who}", "namespace": namespace}
        kube.apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": data})
    refs = {who: {"name": f"pg-{who}"} for who in words}
    grant(kube, namespace, sorted(ref["name"] for ref in refs.values()))
    first = kube.must("nova", "novacore", platform)["spec"]
    spec: dict[str, Any] = {
        "version": first["version"],
        "image": first["image"],
        "postgres": {"mode": "External", "external": {"perServiceSecretRefs": refs}},
        "redis": {"image": first["redis"]["image"], "cache": "Separate"},
        "models": {"llm": {"provider": "echo", "echo": {"delayMs": 0, "tokens": 8}}},
        "services": {service.name: {"enabled": False} for service in SERVICES if service.name not in NEEDED},
    }
    metadata = {"name": "shop", "namespace": namespace}
    kube.apply({"apiVersion": "novacore.ai/v1alpha1", "kind": "NovaCoreDeployment", "metadata": metadata, "spec": spec})

    nova = until(
        lambda: _ready(kube, namespace), within_s=150, what="it is Ready", report=lambda: kube.report(namespace)
    )

    parts = {part["name"]: part for part in nova["status"]["components"]}
    assert parts["postgres"]["image"] == "external"
    assert parts["redis-cache"]["ready"] is True
    stores = {item["metadata"]["name"] for item in kube.list("statefulsets", namespace)}
    assert stores == {"novacore-redis", "novacore-redis-cache"}
    email = f"{secrets.token_hex(6)}@example.test"
    command = ("python", "-c", ASK, email, secrets.token_hex(8))
    answer = json.loads(kube.exec("deploy/novacore-gateway", namespace, *command).splitlines()[-1])
    assert answer["reply"]["response"], answer
    assert "rl" in answer["cache"]
    assert "rl" not in answer["lasting"]
    assert {"run", "stream"} & set(answer["lasting"])
    assert sql(kube, f"SELECT count(*) FROM auth.users WHERE email = '{email}'", database=DATABASE).strip() == "1"
    assert sql(kube, f"SELECT count(*) FROM auth.users WHERE email = '{email}'", database="novacore").strip() == "0"
    kube.delete("nova", "shop", namespace, wait=False)


def _ready(kube: Kube, namespace: str) -> dict[str, Any] | None:
    nova = kube.get("nova", "shop", namespace)
    return nova if nova is not None and condition(nova, "Ready").get("status") == "True" else None
