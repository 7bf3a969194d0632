"""Whatever happens in whatever order: `Ready=True` is true, and when the faults end it comes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from novacore_operator.plan import plan
from novacore_operator.state import JobFacts, Nova, Ref, WorkloadFacts, names
from tests.unit.operator.loop.simulation import KEY, Simulation, pod

COMPONENTS = ["memory", "gateway", "auth-billing", "postgres"]
SPECS: list[dict[str, Any]] = [
    {},
    {"image": {"tag": "a"}},
    {"image": {"tag": "b"}},
    {"profile": "Production"},
    {"version": "9.9.9"},
    {"image": {"tag": "b"}, "rollout": {"canary": {"enabled": True}}},
    {"paused": True},
    {"mode": "Plan", "image": {"tag": "c"}},
    {"services": {"memory": {"replicas": 3}}},
    {"services": {"ngs-curriculum": {"enabled": False}}},
]
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("edit"), st.sampled_from(SPECS)),
        st.tuples(st.just("break"), st.sampled_from(COMPONENTS)),
        st.tuples(st.just("mend"), st.none()),
        st.tuples(st.just("delete"), st.integers(0, 200)),
        st.tuples(st.just("drift"), st.integers(0, 200)),
        st.tuples(st.just("migration fails"), st.none()),
        st.tuples(st.just("restart"), st.none()),
        st.tuples(st.just("turn"), st.none()),
        st.tuples(st.just("play"), st.none()),
    ),
    min_size=3,
    max_size=25,
)


def is_true(simulation: Simulation) -> bool:
    """Return whether the installation really is what its spec says. From the world alone, not from the status code."""
    nova = simulation.store.get(KEY)
    assert isinstance(nova, Nova)
    world = simulation.world
    wanted = plan(nova, world.seen(), simulation.material).wanted
    if any(ref.name in names.CANARIES for ref in world.objects):
        return False
    for ref, manifest in wanted.items():
        live = world.objects.get(ref)
        if live is None or live.desired != manifest["metadata"]["annotations"]["novacore.ai/desired"]:
            return False
        if live.owned == "edited":
            return False
        facts = live.facts
        if isinstance(facts, WorkloadFacts) and not (
            facts.observed_generation == live.generation
            and facts.total == facts.updated == facts.available == facts.replicas
        ):
            return False
        if isinstance(facts, JobFacts) and not facts.complete:
            return False
    return True


def step(simulation: Simulation, what: str, value: Any) -> None:
    """Do what one step says."""
    refs = sorted(simulation.world.objects)
    if what == "edit":
        simulation.edit(**value)
    elif what == "break":
        simulation.broken[value] = pod(value, "CrashLoopBackOff", restarts=3)
    elif what == "mend":
        simulation.broken.clear()
    elif what == "delete" and refs:
        ref = refs[value % len(refs)]
        if ref.kind != "ControllerRevision":
            del simulation.world.objects[ref]
    elif what == "drift" and refs:
        ref = refs[value % len(refs)]
        if ref.kind != "ControllerRevision":
            simulation.world.edit(ref)
    elif what == "migration fails":
        for ref, live in simulation.world.objects.items():
            if isinstance(live.facts, JobFacts) and not live.facts.complete:
                simulation.world.objects[ref] = replace(live, facts=JobFacts(complete=False, failed=True))
    elif what == "restart":
        simulation.restart()
    elif what == "play":
        simulation.play()


@pytest.mark.invariant("STATUS-1")
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=STEPS)
async def test_ready_is_never_untrue_and_comes_when_the_faults_end(steps: list[tuple[str, Any]]) -> None:
    simulation = Simulation()
    await simulation.run()
    for what, value in steps:
        if what == "turn":
            turn = await simulation.turn()
            ready = simulation.condition("Ready")
            if ready["status"] == "True":
                assert ready["observedGeneration"] == simulation.generation == simulation.status["observedGeneration"]
                assert is_true(simulation), simulation.status
            assert turn.again_s is not None or turn.failed
        else:
            step(simulation, what, value)
    simulation.broken.clear()
    simulation.edit(image={"tag": "last"})
    for ref in [ref for ref, live in simulation.world.objects.items() if isinstance(live.facts, JobFacts)]:
        del simulation.world.objects[ref]  # what the remedy of MigrationFailed says
    await simulation.run(turns=80)
    assert simulation.condition("Ready")["status"] == "True", simulation.condition("Ready")
    assert is_true(simulation)
    assert isinstance(simulation.world.objects.get(Ref("Deployment", "test", "novacore-memory")), object)
