"""Truth: what the status says, and never says."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from novacore_contracts.releases import CURRENT
from novacore_operator.loop.reconcile import view_of
from novacore_operator.plan import plan
from novacore_operator.policies import Finding
from novacore_operator.reasons import CONDITIONS, Reason
from novacore_operator.state import JobFacts, Nova, PodFacts, Ref, WorkloadFacts
from novacore_operator.status import View, compute, condition_of
from tests.unit.operator.make import NOW, REDIS, World, deployment, make_material, make_nova

READY = World()
READY.install(make_nova())


def world() -> World:
    """Return a copy of an installation at rest."""
    result = World()
    result.objects, result.version = dict(READY.objects), READY.version
    return result


def status_of(there: World, nova: Nova | None = None, **more: Any) -> dict[str, Any]:
    """Return the status that a turn without writes would give."""
    nova = nova or make_nova()
    intended = plan(nova, there.seen(), make_material())
    view = replace(view_of(intended, there.seen()), **more)
    return compute(nova, there.seen(), view, now=NOW)


def ready(status: dict[str, Any]) -> tuple[str, str]:
    """Return status and reason of Ready."""
    condition = condition_of(status, "Ready")
    return condition["status"], condition["reason"]


def test_every_condition_is_told_in_the_reference() -> None:
    assert [condition["type"] for condition in status_of(world())["conditions"]] == list(CONDITIONS)


def test_all_is_ready_when_all_is() -> None:
    status = status_of(world())
    assert ready(status) == ("True", "Ready")
    assert status["services"] == "9/9"
    assert status["observedGeneration"] == 1
    assert [item["name"] for item in status["components"]][:2] == ["postgres", "redis"]
    assert len(status["components"]) == 11
    assert status["release"] == {"target": CURRENT, "current": CURRENT, "since": "2026-03-01T12:00:00Z"}


FLAWS = {
    "not of this generation": lambda f: replace(f, observed_generation=0),
    "an old pod is left": lambda f: replace(f, total=f.total + 1),
    "not all updated": lambda f: replace(f, updated=0),
    "not available": lambda f: replace(f, available=0),
    "scaled by somebody": lambda f: replace(f, replicas=f.replicas + 1),
}
WORKLOADS = sorted(ref for ref in READY.objects if ref.kind in ("Deployment", "StatefulSet"))


@given(
    st.dictionaries(st.sampled_from(WORKLOADS), st.sampled_from(sorted(FLAWS)), max_size=3),
    st.sets(st.sampled_from(sorted(READY.objects)), max_size=2),
    st.sets(st.sampled_from(sorted(READY.objects)), max_size=2),
    st.sampled_from(["complete", "running", "failed"]),
    st.booleans(),
)
@settings(max_examples=50, deadline=None)
def test_ready_is_never_said_too_early(
    flaws: dict[Ref, str], deleted: set[Ref], edited: set[Ref], job: str, next_generation: bool
) -> None:
    """STATUS-1."""
    there = world()
    for ref, flaw in flaws.items():
        live = there.objects[ref]
        assert isinstance(live.facts, WorkloadFacts)
        there.objects[ref] = replace(live, facts=FLAWS[flaw](live.facts))
    for ref in edited:
        there.edit(ref)
    for ref, live in list(there.objects.items()):
        if ref.kind == "Job":
            there.objects[ref] = replace(live, facts=JobFacts(job == "complete", job == "failed"))
    for ref in deleted:
        there.objects.pop(ref, None)
    nova = make_nova(generation=2, image={"tag": "next"}) if next_generation else make_nova()
    status = status_of(there, nova)
    sound = not (flaws or deleted or edited or next_generation) and job == "complete"
    assert (ready(status)[0] == "True") is sound
    assert status["observedGeneration"] == nova.generation
    if ready(status)[0] == "True":
        assert all(item["ready"] for item in status["components"])
        assert all(condition["observedGeneration"] == nova.generation for condition in status["conditions"])


def test_a_component_whose_last_change_nobody_has_looked_at_is_not_called_unavailable() -> None:
    there, ref = world(), deployment("memory")
    there.objects[ref] = replace(there.objects[ref], generation=there.objects[ref].generation + 1)
    status = status_of(there)
    part = next(item for item in status["components"] if item["name"] == "memory")
    assert ready(status)[0] == "False"
    assert part["reason"] == Reason.ROLLING_OUT
    assert "has not looked at the last change" in part["message"]


def test_the_same_situation_gives_the_same_status_and_so_no_write() -> None:
    """STATUS-2."""
    first = status_of(world())
    nova = make_nova(status=first)
    intended = plan(nova, world().seen(), make_material())
    later = compute(nova, world().seen(), view_of(intended, world().seen()), now=NOW + timedelta(days=1))
    assert later == first


def test_transition_time_moves_only_with_the_status() -> None:
    """STATUS-3."""
    before = status_of(world())
    there = world()
    there.edit(deployment("memory"))
    nova = make_nova(status=before)
    view = view_of(plan(nova, there.seen(), make_material()), there.seen())
    after = compute(nova, there.seen(), view, now=NOW + timedelta(hours=1))
    assert condition_of(after, "Ready")["lastTransitionTime"] != condition_of(before, "Ready")["lastTransitionTime"]
    assert condition_of(after, "SecretsReady") == condition_of(before, "SecretsReady")


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        ("ImagePullBackOff", Reason.IMAGE_PULL_FAILED),
        ("CrashLoopBackOff", Reason.CRASH_LOOPING),
        ("Unschedulable", Reason.UNSCHEDULABLE),
    ],
)
def test_the_condition_names_what_the_kubelet_sees(trouble: str, reason: Reason) -> None:
    there = world()
    live = there.objects[deployment("memory")]
    assert isinstance(live.facts, WorkloadFacts)
    there.objects[live.ref] = replace(live, facts=replace(live.facts, available=0))
    there.pods = (PodFacts("memory", ready=False, trouble=trouble, message="because"),)
    status = status_of(there)
    assert ready(status) == ("False", reason.value)
    message = condition_of(status, "Ready")["message"]
    assert message.startswith(f"memory: {trouble}: because")
    assert reason.remedy in message


def test_a_stalled_roll_out_ends_progressing() -> None:
    there = world()
    live = there.objects[deployment("memory")]
    assert isinstance(live.facts, WorkloadFacts)
    there.objects[live.ref] = replace(live, facts=replace(live.facts, available=0, stalled="has timed out progressing"))
    condition = condition_of(status_of(there), "Progressing")
    assert (condition["status"], condition["reason"]) == ("False", "ProgressDeadlineExceeded")


def test_a_blocked_resource_says_why_and_claims_nothing() -> None:
    finding = Finding(Reason.NAMESPACE_TAKEN, "taken")
    status = compute(make_nova(), world().seen(), View(blocked=finding), now=NOW)
    assert ready(status) == ("False", "NamespaceTaken")
    assert "components" not in status
    assert "services" not in status
    assert condition_of(status, "SecretsReady")["status"] == "Unknown"


def test_a_missing_secret_is_not_ready() -> None:
    there = world()
    del there.objects[Ref("Secret", "test", "novacore-keyset")]
    assert condition_of(status_of(there), "SecretsReady")["status"] == "False"
    assert ready(status_of(there)) == ("False", "SecretsPending")


def test_a_refused_write_is_told() -> None:
    failed = Finding(Reason.APPLY_REFUSED, "quota")
    assert ready(status_of(world(), failed=failed)) == ("False", "ApplyRefused")


def test_a_failed_migration_is_told_with_its_remedy() -> None:
    there = world()
    job = next(ref for ref in there.objects if ref.kind == "Job")
    there.objects[job] = replace(there.objects[job], facts=JobFacts(False, True, "BackoffLimitExceeded"))
    status = status_of(there)
    assert ready(status) == ("False", "MigrationFailed")
    assert f"kubectl logs job/{job.name}" in condition_of(status, "Ready")["message"]


def test_a_stopped_service_is_as_wanted() -> None:
    there = World()
    nova = make_nova(services={"mcp-server": {"replicas": 0}})
    there.install(nova)
    assert ready(status_of(there, nova)) == ("True", "Ready")


def test_each_store_is_a_component_and_one_of_the_users_is_proven_by_the_migration() -> None:
    spec: dict[str, Any] = {
        "profile": "Production",
        "redis": {
            "mode": "External",
            "external": {"secretRef": {"name": "redis"}, "cacheSecretRef": {"name": "redis"}},
        },
    }
    there, nova = World(), make_nova(**spec)
    there.grant("redis", **REDIS)
    there.install(nova)

    def stores(there: World) -> dict[str, tuple[bool, str]]:
        intended = plan(nova, there.seen(), make_material())
        status = compute(nova, there.seen(), view_of(intended, there.seen()), now=NOW)
        assert status["services"] == "9/9"
        return {part["name"]: (part["ready"], part["image"]) for part in status["components"][:3]}

    assert stores(there) == {
        "postgres": (True, "pgvector/pgvector:pg18"),
        "redis": (True, "external"),
        "redis-cache": (True, "external"),
    }
    job = next(ref for ref in there.objects if ref.kind == "Job")
    there.objects[job] = replace(there.objects[job], facts=JobFacts(complete=False, failed=False))
    assert stores(there)["redis"] == (False, "external")


def test_a_database_of_cloudnativepg_is_ready_when_that_says_so() -> None:
    nova, there = make_nova(postgres={"mode": "CloudNativePG", "cloudNativePG": {"instances": 3}}), World()
    there.install(nova)
    ref = Ref("Cluster", "test", "novacore-postgres")

    def said(**facts: Any) -> tuple[tuple[str, str], dict[str, Any]]:
        live = there.objects[ref]
        assert isinstance(live.facts, WorkloadFacts)
        seen = replace(there.seen(), objects={**there.objects, ref: replace(live, facts=replace(live.facts, **facts))})
        intended = plan(nova, seen, make_material())
        status = compute(nova, seen, view_of(intended, seen), now=NOW)
        condition = condition_of(status, "DataStoresReady")
        return (condition["status"], condition["reason"]), status["components"][0]

    verdict, part = said()
    assert (verdict, part["ready"], part["desired"], part["image"]) == (
        ("True", "DataStoresReady"),
        True,
        3,
        "CloudNativePG's default",
    )
    verdict, part = said(available=2, updated=0, phase="Failing over")
    assert verdict == ("False", "DataStoresStarting")
    assert part["message"] == "CloudNativePG: Failing over"
