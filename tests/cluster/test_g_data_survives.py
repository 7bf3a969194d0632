"""Deleting the resource removes what it owns; the data stays, and a re-applied resource serves it (part 4)."""

from __future__ import annotations

from typing import Any

from tests.cluster.client import PlatformUser
from tests.cluster.conftest import ready
from tests.cluster.kube import Kube, until

KEPT = ("novacore-postgres-admin", "novacore-policy-private")


def test_delete_and_apply_again_keeps_the_data(
    kube: Kube, deploy: Any, url: str, user: PlatformUser, platform: str
) -> None:
    stored = user.post(
        "/api/memory/store", {"type": "lesson", "input_context": "The harbour light is green.", "tier": "ltm"}
    )
    assert stored.status_code == 201, stored.text
    kept = {name: kube.must("secret", name, platform)["metadata"]["uid"] for name in KEPT}

    kube.delete("nova", "novacore", platform)
    until(
        lambda: not kube.list("deployments", platform) and not kube.list("statefulsets", platform),
        within_s=90,
        what="owned workloads are gone",
    )
    until(lambda: not kube.list("pods", platform), within_s=120, what="their pods are gone")
    assert len(kube.list("pvc", platform)) >= 2

    deploy()
    ready(kube)
    assert {name: kube.must("secret", name, platform)["metadata"]["uid"] for name in KEPT} == kept
    until(lambda: user.login().status_code == 200, within_s=60, what="the user of before can log in")
    found = user.post("/api/memory/search", {"query": "harbour light"})
    assert found.json()["results"][0]["id"] == stored.json()["id"]
