"""What a pod has served, from its page; and a comparison's course."""

from __future__ import annotations

from dataclasses import replace

import pytest

from novacore.common.metrics import Metrics
from novacore_operator.observe.traffic import LOOK_S, Traffic, sample_of
from novacore_operator.state import Live, PodFacts, Ref, Sample, Served, WorkloadFacts

CANARY = Ref("Deployment", "test", "novacore-memory-canary")
ROUTE = ("GET", "/memory")


def page() -> str:
    """Return a page as a service makes it."""
    metrics = Metrics("memory")
    total, seconds = metrics.counter("http_requests_total"), metrics.histogram("http_request_duration_seconds")
    for code, times in (("200", 7), ("404", 1), ("500", 2), ("503", 1)):
        total.labels("GET", "/memory", code).inc(times)
    for slo, took_s in (("interactive", 0.002), ("interactive", 0.3), ("stream", 60.0)):
        seconds.labels("GET", "/memory", slo).observe(took_s)
    total.labels("GET", "/readyz", "503").inc(9)
    return metrics.expose("")[0].decode()


def test_a_page_says_what_was_served_by_route_and_probes_do_not_count() -> None:
    (route, served), *rest = sample_of(page()).items()
    assert (route, rest) == (ROUTE, [])
    assert (served.requests, served.errors) == (11, 3)
    assert served.within == (1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 3)


def test_a_page_of_something_else_says_nothing() -> None:
    assert sample_of("<html>hello</html>") == {}
    with pytest.raises(ValueError):
        sample_of("http_requests_total{ 7")


class Pods:
    """Pods and what they have served, and a clock."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.served: dict[str, int] = {"10.0.0.1": 500, "10.0.0.2": 0}
        self.reads: list[str] = []
        self.traffic = Traffic(self.read, lambda: self.now_s)
        self.canary = Live(CANARY, "u1", 1, 1, None, None, "", template="new", facts=WorkloadFacts(1, 1, 1, 1, 1))
        self.pods = (
            PodFacts("memory", ready=True, trouble="", message="", name="old", template="old", address="10.0.0.1"),
            PodFacts("memory", ready=True, trouble="", message="", name="new", template="new", address="10.0.0.2"),
            PodFacts("gateway", ready=True, trouble="", message="", name="g", template="g", address="10.0.0.3"),
            PodFacts("memory", ready=False, trouble="", message="", name="late", template="old", address="10.0.0.4"),
        )

    async def read(self, address: str) -> Sample | None:
        """Return what the pod at an address has served; None when it is not known."""
        self.reads.append(address)
        return {ROUTE: Served(self.served[address])} if address in self.served else None

    async def look(self, after_s: float = 0.0) -> tuple[float, list[int], list[int]] | None:
        """Return the trial's time, and the requests of the canary's pods and of the others; None without a trial."""
        self.now_s += after_s
        trial = (await self.traffic.trials("test", {CANARY: self.canary}, self.pods)).get("memory")
        if trial is None:
            return None
        counts = [
            [pod.now[ROUTE].requests - pod.begin[ROUTE].requests for pod in pods]
            for pods in (trial.canary, trial.stable)
        ]
        return trial.elapsed_s, counts[0], counts[1]


async def test_a_trial_begins_when_the_canary_is_available_and_counts_from_there() -> None:
    pods = Pods()
    assert await pods.look() == (0.0, [0], [0])
    pods.served |= {"10.0.0.1": 530, "10.0.0.2": 31}
    assert await pods.look(after_s=LOOK_S) == (LOOK_S, [31], [30])
    assert sorted(set(pods.reads)) == ["10.0.0.1", "10.0.0.2"]


async def test_a_trial_does_not_begin_before_the_canarys_pod_is_seen() -> None:
    pods = Pods()
    (old, new, *others) = pods.pods
    pods.pods = (old, replace(new, ready=False), *others)
    assert await pods.look() is None
    pods.pods = (old, new, *others)
    assert await pods.look(after_s=0.1) == (0.0, [0], [0])


async def test_between_two_looks_nobody_is_asked_and_nothing_changes() -> None:
    pods = Pods()
    first = await pods.look()
    pods.served["10.0.0.2"] = 99
    assert await pods.look(after_s=1.0) == first
    assert len(pods.reads) == 2


async def test_a_canary_that_was_not_available_begins_anew() -> None:
    pods = Pods()
    await pods.look()
    facts = pods.canary.facts
    pods.canary = replace(pods.canary, facts=WorkloadFacts(1, 1, 1, 1, 0))
    assert await pods.look(after_s=30.0) is None
    pods.canary = replace(pods.canary, facts=facts)
    assert await pods.look(after_s=1.0) == (0.0, [0], [0])


@pytest.mark.parametrize("change", [{"uid": "u2"}, {"template": "newer"}])
async def test_another_canary_begins_anew(change: dict[str, str]) -> None:
    pods = Pods()
    await pods.look()
    pods.canary = replace(pods.canary, **change)  # type: ignore[arg-type]
    (old, new, *others) = pods.pods
    pods.pods = (old, replace(new, template=pods.canary.template or ""), *others)
    found = await pods.look(after_s=30.0)
    assert found is not None
    assert found[0] == 0.0


async def test_a_pod_that_does_not_answer_is_left_out_until_it_does() -> None:
    pods = Pods()
    del pods.served["10.0.0.2"]
    assert await pods.look() == (0.0, [], [0])
    pods.served["10.0.0.2"] = 12
    assert await pods.look(after_s=LOOK_S) == (LOOK_S, [0], [0])


async def test_a_pod_that_went_keeps_what_it_served() -> None:
    pods = Pods()
    await pods.look()
    pods.served["10.0.0.1"] = 540
    await pods.look(after_s=LOOK_S)
    pods.pods = pods.pods[1:]
    assert await pods.look(after_s=LOOK_S) == (2 * LOOK_S, [0], [40])


async def test_an_installation_that_is_gone_is_forgotten() -> None:
    pods = Pods()
    await pods.look()
    pods.traffic.forget("test")
    found = await pods.look(after_s=30.0)
    assert found is not None
    assert found[0] == 0.0
