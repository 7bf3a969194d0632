"""What is written, when, and what never is."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from novacore_contracts.services import SERVICES
from novacore_operator.plan import Verb, Why
from novacore_operator.reasons import Reason
from novacore_operator.rotation import mint
from novacore_operator.state import ClaimFacts, JobFacts, Live, Ref, names, stores
from tests.unit.operator.make import NOW, UID, World, deployment, make_material, make_nova, no_chance, plan_of

SPECS = st.fixed_dictionaries(
    {},
    optional={
        "profile": st.sampled_from(["Development", "Production"]),
        "expose": st.sampled_from([{"type": "ClusterIP"}, {"type": "NodePort"}, {"type": "LoadBalancer"}]),
        "networkPolicy": st.booleans().map(lambda on: {"enabled": on}),
        "services": st.dictionaries(
            st.sampled_from([s.name for s in SERVICES if s.name != "distillation-worker"]),
            st.fixed_dictionaries({}, optional={"replicas": st.integers(0, 4), "logLevel": st.just("debug")}),
            max_size=3,
        ),
        "image": st.sampled_from([{}, {"tag": "a"}, {"tag": "b"}]),
        "limits": st.integers(1, 50).map(lambda n: {"authPerMinute": n}),
    },
)


@given(SPECS)
@settings(max_examples=10, deadline=None)
def test_a_second_plan_writes_nothing(spec: dict[str, Any]) -> None:
    """PLAN-1."""
    world = World()
    world.install(make_nova(**spec))
    assert plan_of(make_nova(**spec), world, make_material()).actions == ()


@given(SPECS, SPECS)
@settings(max_examples=10, deadline=None)
def test_any_spec_leads_to_any_other(before: dict[str, Any], after: dict[str, Any]) -> None:
    """PLAN-1, from a running installation: the change is carried out, then nothing is written."""
    world = World()
    world.install(make_nova(**before))
    world.install(make_nova(generation=2, **after), turns=40)
    fresh = World()
    fresh.install(make_nova(**after))
    assert {ref for ref in world.objects if ref.kind != "Job"} == {ref for ref in fresh.objects if ref.kind != "Job"}


INSTALLED = World()
INSTALLED.install(make_nova(services={"memory": {"replicas": 2}}))
NOVA = make_nova(services={"memory": {"replicas": 2}})
OWNED = sorted(INSTALLED.objects)


def world() -> World:
    """Return a copy of an installation at rest."""
    result = World()
    result.objects, result.version = dict(INSTALLED.objects), INSTALLED.version
    return result


@pytest.mark.parametrize("ref", OWNED, ids=str)
def test_a_deleted_object_is_put_back(ref: Ref) -> None:
    """PLAN-3."""
    there = world()
    del there.objects[ref]
    assert [(a.ref, a.why) for a in plan_of(NOVA, there, make_material()).actions] == [(ref, Why.MISSING)]


@pytest.mark.parametrize("ref", OWNED, ids=str)
def test_a_changed_object_is_put_back(ref: Ref) -> None:
    """PLAN-3."""
    there = world()
    there.edit(ref)
    assert [(a.ref, a.why) for a in plan_of(NOVA, there, make_material()).actions] == [(ref, Why.DRIFT)]


def test_a_form_that_the_api_server_rewrites_is_not_drift() -> None:
    there = world()
    there.edit(deployment("memory"))
    live = there.objects[deployment("memory")]
    seen = replace(there.seen(), normal={live.ref: (live.desired or "", live.owned)})
    from novacore_operator.plan import plan

    assert plan(NOVA, seen, make_material()).actions == ()


FOREIGN = st.lists(
    st.tuples(
        st.sampled_from(
            ["Service", "ConfigMap", "Deployment", "Job", "PodDisruptionBudget", "NetworkPolicy", "Secret"]
        ),
        st.sampled_from(["novacore-other", "mine", "novacore-memory-old"]),
        st.sampled_from([None, "another-uid", UID]),
    ),
    max_size=6,
)


@given(FOREIGN)
@settings(max_examples=30, deadline=None)
def test_nothing_is_deleted_but_what_we_own_and_by_uid(extra: list[tuple[str, str, str | None]]) -> None:
    """PLAN-2."""
    there = world()
    for n, (kind, name, owner) in enumerate(extra):
        ref = Ref(kind, "test", name)
        there.objects[ref] = Live(ref, uid=f"x{n}", version=5, generation=1, owner=owner, desired=None, owned="x")
    deleted = [action for action in plan_of(NOVA, there, make_material()).actions if action.verb is Verb.DELETE]
    for action in deleted:
        assert there.objects[action.ref].owner == UID
        assert action.uid == there.objects[action.ref].uid
        assert action.ref.kind != "Secret"
    wanted = {r for r, live in there.objects.items() if live.owner == UID and live.owned == "x" and r.kind != "Secret"}
    assert {action.ref for action in deleted} == wanted


def test_an_unfinished_job_of_another_release_is_deleted_and_ended_ones_stay() -> None:
    there = world()
    for n, facts in enumerate([JobFacts(False, False), *[JobFacts(True, False)] * 2]):
        ref = Ref("Job", "test", f"novacore-migrate-old-{n}")
        there.objects[ref] = Live(ref, f"j{n}", n, 1, UID, None, "x", facts=facts)
    deleted = [action.ref.name for action in plan_of(NOVA, there, make_material()).actions]
    assert deleted == ["novacore-migrate-old-0"]


def test_at_first_install_secrets_come_first_and_services_wait_for_the_migration() -> None:
    """PLAN-4, PLAN-5."""
    there = World()
    first = plan_of(make_nova(), there, make_material())
    waves = first.waves()
    assert {action.ref.kind for action in waves[0]} == {"Secret"}
    assert {action.ref.kind for action in waves[1]} >= {"Secret", "ConfigMap"}
    assert not {action.ref.kind for action in first.actions} & {"Deployment", "Job"}
    there.carry_out(first)
    assert plan_of(make_nova(), there, make_material()).actions == ()
    there.settle("StatefulSet")
    second = plan_of(make_nova(), there, make_material())
    assert [action.ref.kind for action in second.actions] == ["Job"]
    there.carry_out(second)
    held = plan_of(make_nova(), there, make_material())
    assert held.actions == ()
    assert {finding.reason for finding in held.held.values()} == {Reason.MIGRATION_RUNNING}
    there.settle("Job")
    third = plan_of(make_nova(), there, make_material())
    assert {action.ref for action in third.actions} == {deployment(service.name) for service in SERVICES}


def test_a_failed_migration_stops_the_roll_out() -> None:
    """PLAN-4."""
    there = world()
    next_ = make_nova(services={"memory": {"replicas": 2}}, image={"tag": "next"})
    there.carry_out(plan_of(next_, there, make_material()))
    job = next(ref for ref in there.objects if ref.kind == "Job" and ref not in INSTALLED.objects)
    there.objects[job] = replace(there.objects[job], facts=JobFacts(False, True, "BackoffLimitExceeded"))
    stopped = plan_of(next_, there, make_material())
    assert stopped.actions == ()
    assert {finding.reason for finding in stopped.held.values()} == {Reason.MIGRATION_FAILED}


def test_a_release_rolls_stage_by_stage_and_not_too_many_at_once() -> None:
    there = world()
    next_ = make_nova(services={"memory": {"replicas": 2}}, image={"tag": "next"})
    there.carry_out(plan_of(next_, there, make_material()))
    there.settle("Job")
    order: list[list[str]] = []
    for _ in range(20):
        intended = plan_of(next_, there, make_material())
        changed = [action.ref for action in intended.actions if action.ref.kind == "Deployment"]
        if not changed:
            break
        order.append(sorted(ref.name.removeprefix("novacore-") for ref in changed))
        there.carry_out(intended)
        assert not [a for a in plan_of(next_, there, make_material()).actions if a.ref.kind == "Deployment"]
        there.settle()
    assert order == [
        ["auth-billing"],
        ["memory", "noble-spirit"],
        ["intelligence", "ngs-curriculum"],
        ["mcp-server"],
        ["distillation-worker", "reflection-worker"],
        ["gateway"],
    ]


def test_a_repair_does_not_wait_for_a_roll_out() -> None:
    """PLAN-4: repairs are not held up, not even while the migration of the next release runs."""
    there = world()
    next_ = make_nova(services={"memory": {"replicas": 2}}, image={"tag": "next"})
    there.carry_out(plan_of(next_, there, make_material()))
    there.edit(Ref("Service", "test", "novacore-gateway"))
    repairs = plan_of(next_, there, make_material()).actions
    assert [action.ref.name for action in repairs] == ["novacore-gateway"]


def test_a_change_of_replicas_waits_for_nobody() -> None:
    there = world()
    there.objects[deployment("auth-billing")] = replace(there.objects[deployment("auth-billing")], owned="edited")
    more = plan_of(make_nova(services={"memory": {"replicas": 2}, "gateway": {"replicas": 3}}), there, make_material())
    assert deployment("gateway") in {action.ref for action in more.actions}


def test_a_claim_grows_and_its_template_stays() -> None:
    there = world()
    claim = Ref("PersistentVolumeClaim", "test", "data-novacore-postgres-0")
    there.objects[claim] = Live(claim, "pvc", 5, 0, None, None, "", facts=ClaimFacts("5Gi", bound=True))
    same = make_nova(services={"memory": {"replicas": 2}})
    assert plan_of(same, there, make_material()).actions == ()
    more = make_nova(services={"memory": {"replicas": 2}}, postgres={"storage": {"size": "8Gi"}})
    actions = plan_of(more, there, make_material()).actions
    assert [action.ref for action in actions] == [claim]


def test_planning_asks_for_no_new_material() -> None:
    """MINT-1, seen from the plan: an installation at rest needs no chance at all."""
    material = make_material()
    assert mint.complete(material, mint.Setting("test"), now=NOW, entropy=no_chance) == material


def test_every_secret_has_a_reader_or_a_purpose() -> None:
    secrets = {ref.name for ref in INSTALLED.objects if ref.kind == "Secret"}
    assert secrets == {*stores.secrets_of(make_nova().spec), names.root_secret("test")}
    assert {*names.SECRETS} == {
        name for profile in ("Development", "Production") for name in stores.secrets_of(make_nova(profile=profile).spec)
    }


def test_the_redis_for_caches_goes_when_caches_are_shared_again_and_no_other_store_does() -> None:
    there = World()
    there.install(make_nova(redis={"cache": "Separate"}))
    shared = plan_of(make_nova(redis={"cache": "Shared"}), there, make_material())
    deleted = {action.ref for action in shared.actions if action.verb is Verb.DELETE}
    assert Ref("StatefulSet", "test", "novacore-redis-cache") in deleted
    assert {ref.name for ref in deleted} == {"novacore-redis-cache", names.REDIS_CACHE_CONFIG}
    assert {ref.kind for ref in deleted} == {"StatefulSet", "ConfigMap", "Service", "ServiceAccount", "NetworkPolicy"}


def test_an_autoscaler_goes_before_the_number_of_pods_is_ours_again() -> None:
    """It would set its own number once more, and that would be repaired."""
    world = World()
    world.install(make_nova(services={"memory": {"autoscaling": {"minReplicas": 3, "maxReplicas": 3}}}))
    waves = plan_of(make_nova(generation=2), world, make_material()).waves()
    assert [(action.verb, action.ref.kind) for action in waves[0]] == [(Verb.DELETE, "HorizontalPodAutoscaler")]
    assert any(action.ref == deployment("memory") for wave in waves[1:] for action in wave)


@pytest.mark.invariant("PLAN-8")
def test_secrets_that_others_follow_from_are_written_first() -> None:
    """An operator that was killed in between found a document without its private keys, and minted others."""
    first = plan_of(make_nova(), World(), make_material()).waves()[0]
    written = {action.ref.name for action in first}
    sources = {names.SERVICE_JWT_PRIVATE, names.USER_JWT_PRIVATE, names.CA_PRIVATE, names.POSTGRES_ADMIN}
    sources |= {names.creds(service.name) for service in SERVICES} | {names.root_secret("test")}
    assert sources <= written
    assert written.isdisjoint({names.KEYSET, names.POSTGRES_TLS, names.REDIS_TLS, names.MIGRATE_CREDS})
