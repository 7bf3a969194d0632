"""The status screen: figures from what Kubernetes says, gaps shown as gaps."""

from __future__ import annotations

import json
from typing import Any

from hack.demo.status import Status, as_json, as_text, figures_of, image_sizes, serving_since, short, start_seconds

READY = {"type": "Ready", "status": "True", "lastTransitionTime": "2026-05-01T10:00:07Z"}


def container(
    started: str | None = "2026-05-01T10:00:02Z", image: str = "docker.io/novacore/workloads:dev-1"
) -> dict[str, Any]:
    state = {"running": {"startedAt": started}} if started else {"waiting": {}}
    return {"state": state, "image": image, "restartCount": 1}


def pod(name: str = "novacore-memory-1") -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": "novacore"},
        "status": {"conditions": [READY], "containerStatuses": [container()]},
    }


def test_start_up_runs_from_the_last_container_to_ready() -> None:
    assert start_seconds([container("2026-05-01T10:00:01Z"), container("2026-05-01T10:00:03Z")], READY) == 4.0


def test_start_up_ends_with_the_line_serving_where_there_is_one() -> None:
    log = (
        'Traceback "serving"\n{"event": "loaded", "ts": "x"}\n{"event": "serving", "ts": "2026-05-01T10:00:03.512Z"}\n'
    )
    assert start_seconds([container()], READY, serving_since(log)) == 1.5
    assert start_seconds([container()], {**READY, "status": "False"}, serving_since(log)) == 1.5
    assert serving_since("no such line") is None


def test_start_up_is_unknown_while_a_pod_is_not_ready() -> None:
    assert start_seconds([container()], {**READY, "status": "False"}) is None
    assert start_seconds([container(None)], READY) is None
    assert start_seconds([], READY) is None


def test_a_pod_the_kubelet_did_not_measure_has_a_gap() -> None:
    found = figures_of(pod(), {})
    assert found.resident_bytes is None
    text = as_text(Status({"metadata": {"name": "novacore", "namespace": "novacore"}}, (found,), {}), "novacore")
    assert next(row for row in text.splitlines() if row.startswith("novacore-memory-1")).split() == [
        "novacore-memory-1", "yes", "1", "-", "-", "5.0", "s",
    ]  # fmt: skip


def test_totals_add_up() -> None:
    measured = {("novacore", "a"): {"memory": {"rssBytes": 2 * 2**20, "workingSetBytes": 3 * 2**20}}}
    found = Status(
        {"metadata": {"name": "novacore", "namespace": "novacore"}},
        (figures_of(pod("a"), measured), figures_of(pod("b"), {})),
        {},
    )
    assert json.loads(as_json(found))["total"] == {"resident_bytes": 2 * 2**20, "working_set_bytes": 3 * 2**20}


def test_only_the_platforms_images_are_sized() -> None:
    nodes = [
        {
            "status": {
                "images": [
                    {
                        "names": ["docker.io/novacore/workloads@sha256:1", "docker.io/novacore/workloads:dev-1"],
                        "sizeBytes": 5,
                    },
                    {"names": ["registry.k8s.io/etcd:3"], "sizeBytes": 7},
                ]
            }
        }
    ]
    assert image_sizes(nodes, {"novacore/workloads:dev-1"}) == {"novacore/workloads:dev-1": 5}


def test_the_default_registry_is_no_part_of_a_name() -> None:
    assert short("docker.io/library/redis:8.0") == "redis:8.0"
    assert short("registry.example.test/redis:8.0") == "registry.example.test/redis:8.0"
