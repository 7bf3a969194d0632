"""A change with a canary: a good one goes through, a bad one is taken back, and the old pods serve all the while.

The figures are printed also when all goes well.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from hack.cluster.load import load
from hack.cluster.stages import Stages
from novacore_contracts.releases import CURRENT
from tests.cluster.conftest import NAMESPACE, ready
from tests.cluster.kube import Kube, condition, until
from tests.cluster.scenarios import IMAGE, OTHER_RELEASE, build_mode, build_other_release
from tests.cluster.test_h_rollback import merged, set_spec, templates
from tests.cluster.watcher import Watcher

SECONDS = 10
BACK_S = 60
USERS = 4
PAUSE_S = 0.1
NOT_ANSWERED = 0
LOST_SHARE = 0.01
"""Each request is a new connection through Docker's port proxy, which takes it before it knows of a pod behind it: one
that meets a pod on its way out, on a node that hears of that late, ends without an answer, with or without a canary."""
ROLLOUT = {"rollout": {"progressDeadlineSeconds": 60, "canary": {"enabled": True, "seconds": SECONDS}}}
CANARY = "novacore-gateway-canary"
LINES: list[str] = []


class Users(Watcher):
    """A few who ask the gateway again and again, each time over a new connection, as new users come."""

    def __init__(self, url: str) -> None:
        super().__init__(self._ask, every_s=PAUSE_S, threads=USERS)
        self._url = url
        # Connections that were not established alone are tried again (Docker's port proxy, see CONTRIBUTING.md).
        transport = httpx.HTTPTransport(retries=5, limits=httpx.Limits(max_keepalive_connections=0))
        self._client = httpx.Client(transport=transport, timeout=30)
        self.answers: Counter[int] = Counter()

    def _ask(self) -> None:
        try:
            self.answers[self._client.get(f"{self._url}/health").status_code] += 1
        except httpx.HTTPError as error:
            self.answers[NOT_ANSWERED] += 1
            LINES.append(f"not answered: {type(error).__name__}: {error}")


class Witness(Watcher):
    """Looks at the gateway's Deployments, and at what the status says, all the time."""

    def __init__(self, kube: Kube) -> None:
        super().__init__(self._see, every_s=0.3)
        self._kube = kube
        self.least = 99  # available pods of the gateway's own Deployment
        self.canary_seen = False
        self.messages: list[str] = []

    def _see(self) -> None:
        found = {d["metadata"]["name"]: d for d in self._kube.list("deployments", NAMESPACE)}
        self.least = min(self.least, found["novacore-gateway"]["status"].get("availableReplicas", 0))
        self.canary_seen |= CANARY in found
        message = condition(self._kube.get("nova", "novacore", NAMESPACE), "Progressing").get("message", "")
        if message not in self.messages[-1:]:
            self.messages.append(message)


@pytest.fixture(scope="module")
def good(kube: Kube, platform: str) -> Iterator[dict[str, Any]]:
    """The spec of the last good release, with canaries switched on."""
    before = kube.must("nova", "novacore", platform)["spec"]
    spec = merged(before, ROLLOUT)
    set_spec(kube, spec)
    ready(kube)
    yield spec
    set_spec(kube, before)
    ready(kube)


@pytest.fixture(scope="module", autouse=True)
def figures(request: pytest.FixtureRequest) -> Iterator[None]:
    """Print the figures at the end."""
    yield
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print("\n" + "\n".join(LINES), flush=True)


def gateway(kube: Kube) -> tuple[int, set[str]]:
    """Return the generation of the gateway's Deployment, and its pods but those on their way out."""
    pods = kube.list("pods", NAMESPACE, "app.kubernetes.io/component=gateway,novacore.ai/track!=canary")
    generation: int = kube.must("deployment", "novacore-gateway", NAMESPACE)["metadata"]["generation"]
    return generation, {pod["metadata"]["name"] for pod in pods if "deletionTimestamp" not in pod["metadata"]}


def test_a_good_canary_goes_through_and_users_see_no_error(kube: Kube, good: dict[str, Any], url: str) -> None:
    before = gateway(kube)
    started = time.monotonic()
    with Users(url) as users, Witness(kube) as witness:
        set_spec(kube, merged(good, {"services": {"gateway": {"podAnnotations": {"canary": "good"}}}}))
        ready(kube, within_s=120)
    LINES.append(
        f"good canary: {time.monotonic() - started:.1f} s of which {SECONDS} compared, {dict(users.answers)} answers, "
        f"lowest {witness.least}"
    )
    LINES.extend(f"  {message}" for message in witness.messages if "canary" in message)
    assert witness.canary_seen
    assert any(f"of {SECONDS} s" in message and "5xx of" in message for message in witness.messages), witness.messages
    assert kube.get("deployment", CANARY, NAMESPACE) is None
    assert gateway(kube)[1].isdisjoint(before[1])
    assert witness.least >= 1
    assert set(users.answers) <= {200, NOT_ANSWERED}
    assert users.answers[NOT_ANSWERED] <= LOST_SHARE * users.answers[200]


def test_a_bad_canary_is_taken_back_before_an_old_pod_is_touched(kube: Kube, good: dict[str, Any], url: str) -> None:
    build_mode("errors")
    load(kube.node.removesuffix("-control-plane"), [f"{IMAGE}:errors"], Stages())
    spec = merged(good, {"services": {"gateway": {"podAnnotations": {"canary": "good"}}}})
    before = gateway(kube)
    started = time.monotonic()
    with Users(url) as users, Witness(kube) as witness:
        set_spec(kube, merged(spec, {"services": {"gateway": {"image": {"repository": IMAGE, "tag": "errors"}}}}))
        nova = until(
            lambda: _taken_back(kube), within_s=BACK_S, what="taken back", report=lambda: kube.report(NAMESPACE)
        )
        until(
            lambda: kube.get("deployment", CANARY, NAMESPACE) is None and not _canary_pods(kube),
            within_s=BACK_S,
            what="the canary is gone",
        )
        seconds = time.monotonic() - started
        during = dict(users.answers)
        asked = sum(during.values()) + 40
        until(lambda: sum(users.answers.values()) >= asked, within_s=30, what="more answers")
    told = condition(nova, "RolledBack")
    LINES.append(f"bad canary: {seconds:.1f} s, {during} answers until it was gone, lowest {witness.least}")
    LINES.append(f"  {told['reason']}: {told['message']}")
    assert told["reason"] == "CanaryWorse"
    assert "gateway: the canary is worse" in told["message"]
    assert gateway(kube) == before  # not even written
    assert witness.least >= 1
    assert during[200] > 0
    assert users.answers[500] == during.get(500, 0), "an old pod failed, or the canary still served"
    set_spec(kube, spec)
    assert condition(ready(kube, within_s=60), "RolledBack")["status"] == "False"


def test_an_image_of_another_release_is_taken_back_and_says_so(kube: Kube, good: dict[str, Any]) -> None:
    image = good["image"]
    build_other_release(f"{image['repository']}:{image['tag']}", CURRENT)
    load(kube.node.removesuffix("-control-plane"), [f"{IMAGE}:{CURRENT}"], Stages())
    before = templates(kube)
    good = kube.must("nova", "novacore", NAMESPACE)["spec"]
    started = time.monotonic()
    set_spec(kube, {**good, "image": {"repository": IMAGE}})
    nova = until(lambda: _taken_back(kube), within_s=BACK_S, what="taken back", report=lambda: kube.report(NAMESPACE))
    told = condition(nova, "RolledBack")
    LINES.append(f"image of another release: {time.monotonic() - started:.1f} s")
    LINES.append(f"  {told['reason']}: {told['message']}")
    assert told["reason"] == "MigrationFailed"
    assert f"the image is release {OTHER_RELEASE}, not {CURRENT}" in told["message"]
    assert templates(kube) == before
    set_spec(kube, good)
    ready(kube, within_s=60)


def _canary_pods(kube: Kube) -> list[Any]:
    return kube.list("pods", NAMESPACE, "novacore.ai/track=canary")


def _taken_back(kube: Kube) -> dict[str, Any] | None:
    nova = kube.must("nova", "novacore", NAMESPACE)
    current = nova["status"].get("observedGeneration") == nova["metadata"]["generation"]
    back = condition(nova, "RolledBack")["status"] == "True" and condition(nova, "Progressing")["status"] == "False"
    return nova if current and back else None
