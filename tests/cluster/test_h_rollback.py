"""A release that fails, in each of ten ways, is taken back to the last good one in time, and capacity stays."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster.conftest import NAMESPACE, merged, ready, set_spec
from tests.cluster.kube import Kube, condition, until
from tests.cluster.scenarios import SCENARIOS, Scenario, build_images
from tests.cluster.watcher import Watcher

DEADLINE_S = 30
BACK_S = DEADLINE_S + 10
TABLE: list[tuple[str, str, float, int]] = []
"""Scenario, reason, seconds to the last good release, lowest number of available pods of any service."""


class Capacity(Watcher):
    """Watches the least number of available pods that any service had."""

    def __init__(self, kube: Kube) -> None:
        super().__init__(self._see, every_s=0.5)
        self._kube = kube
        self.least = 99

    def _see(self) -> None:
        available = [d["status"].get("availableReplicas", 0) for d in self._kube.list("deployments", NAMESPACE)]
        self.least = min(self.least, *available)


@pytest.fixture(scope="module")
def good(kube: Kube, platform: str) -> Iterator[dict[str, Any]]:
    """The spec of the last good release, with a short deadline."""
    build_images(kube.node.removesuffix("-control-plane"))
    before = kube.must("nova", "novacore", platform)["spec"]
    spec = merged(before, {"rollout": {"progressDeadlineSeconds": DEADLINE_S}})
    set_spec(kube, spec)
    ready(kube)
    yield spec
    set_spec(kube, before)
    ready(kube)


@pytest.fixture(scope="module", autouse=True)
def table(request: pytest.FixtureRequest) -> Iterator[None]:
    """Print the table of all scenarios at the end, also when all goes well."""
    yield
    lines = [f"{name:26} {reason:26} {seconds:5.1f} s   lowest {least}" for name, reason, seconds, least in TABLE]
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print("\n" + "\n".join(lines), flush=True)


def templates(kube: Kube) -> dict[str, str]:
    """Return the digest of every Deployment's pod template."""
    return {
        d["metadata"]["name"]: d["metadata"]["annotations"]["novacore.ai/template"]
        for d in kube.list("deployments", NAMESPACE)
    }


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_failing_release_is_taken_back(kube: Kube, good: dict[str, Any], name: str) -> None:
    scenario = SCENARIOS[name]
    before = templates(kube)
    generation = kube.must("nova", "novacore", NAMESPACE)["metadata"]["generation"]
    scenario.prepare(kube, NAMESPACE)
    try:
        with Capacity(kube) as capacity:
            started = time.monotonic()
            set_spec(kube, merged(good, scenario.change))
            nova = until(
                lambda: _ended(kube, scenario, generation),
                within_s=BACK_S,
                what=f"'{name}' is taken back",
                report=lambda: kube.report(NAMESPACE),
            )
            seconds = time.monotonic() - started
    finally:
        scenario.clean_up(kube, NAMESPACE)
    told = condition(nova, "RolledBack" if scenario.taken_back else "Ready")
    TABLE.append((name, told["reason"], seconds, capacity.least))
    assert told["reason"] == scenario.reason, told
    assert not scenario.taken_back or scenario.component in told["message"]
    assert condition(nova, "Ready")["status"] == "False"
    assert nova["status"]["services"] == "9/9"
    assert templates(kube) == before
    assert capacity.least >= 1
    set_spec(kube, good)
    assert condition(ready(kube, within_s=60), "RolledBack")["status"] == "False"


def _ended(kube: Kube, scenario: Scenario, generation: int) -> dict[str, Any] | None:
    """Return the resource when the new generation has been taken back, and all of the old one is there again."""
    nova = kube.must("nova", "novacore", NAMESPACE)
    if nova["status"].get("observedGeneration", 0) <= generation or nova["status"].get("services") != "9/9":
        return None
    if not scenario.taken_back:
        return nova if condition(nova, "Ready")["reason"] == scenario.reason else None
    back = condition(nova, "RolledBack")["status"] == "True" and condition(nova, "Progressing")["status"] == "False"
    return nova if back else None


def test_the_history_tells_of_each(kube: Kube, good: dict[str, Any]) -> None:
    entries = kube.must("nova", "novacore", NAMESPACE)["status"]["history"]
    assert sum(entry["outcome"] == "RolledBack" for entry in entries) == sum(s.taken_back for s in SCENARIOS.values())
    assert all(entry["revision"] >= 1 for entry in entries)
