"""Somebody else who insists on a field gets it, and the status says who."""

from __future__ import annotations

import pytest

from novacore_operator.apply import FIGHT_S, FIGHTS_MAX, Fights
from novacore_operator.errors import Blocked
from novacore_operator.reasons import Reason
from novacore_operator.state import Ref
from tests.unit.operator.loop.simulation import Simulation

MEMORY = Ref("Deployment", "test", "novacore-memory")
REPLICAS = ".spec.replicas"


@pytest.mark.invariant("APPLY-1")
async def test_a_field_that_is_fought_over_five_times_is_left_to_the_other() -> None:
    simulation = Simulation()
    await simulation.run()
    simulation.rivals["novacore-memory"] = [REPLICAS]
    for _ in range(FIGHTS_MAX - 1):
        simulation.world.edit(MEMORY)
        await simulation.run()
        assert simulation.condition("FieldConflict")["status"] == "False"
        assert simulation.condition("Ready")["status"] == "True"
    simulation.world.edit(MEMORY)
    await simulation.run()
    assert simulation.condition("FieldConflict")["status"] == "True"
    assert '"rival" sets .spec.replicas' in simulation.condition("FieldConflict")["message"]
    assert simulation.condition("Ready")["reason"] == Reason.FIELD_CONFLICT
    done = len(simulation.writes)
    await simulation.run()
    assert len(simulation.writes) == done


@pytest.mark.invariant("APPLY-1")
async def test_a_new_spec_takes_the_field_back() -> None:
    simulation = Simulation()
    await simulation.run()
    simulation.rivals["novacore-memory"] = [REPLICAS]
    for _ in range(FIGHTS_MAX):
        simulation.world.edit(MEMORY)
        await simulation.run()
    simulation.rivals.clear()
    simulation.edit(services={"memory": {"replicas": 2}})
    await simulation.run()
    assert simulation.condition("FieldConflict")["status"] == "False"
    assert simulation.condition("Ready")["status"] == "True"


@pytest.mark.invariant("APPLY-1")
async def test_beside_a_lost_field_another_one_is_still_put_back() -> None:
    simulation = Simulation()
    await simulation.run()
    simulation.rivals["novacore-memory"] = [REPLICAS]
    for _ in range(FIGHTS_MAX):
        simulation.world.edit(MEMORY)
        await simulation.run()
    simulation.rivals["novacore-memory"] = [REPLICAS, ".spec.revisionHistoryLimit"]
    done = len(simulation.writes)
    simulation.world.edit(MEMORY)
    await simulation.run()
    assert simulation.writes[done:] == ["Deployment novacore-memory"], "once, by force"
    assert "revisionHistoryLimit" not in simulation.condition("FieldConflict")["message"]


@pytest.mark.invariant("APPLY-1")
def test_conflicts_that_are_far_apart_are_no_fight() -> None:
    now = [0.0]
    fights = Fights(clock=lambda: now[0])
    for _ in range(3 * FIGHTS_MAX):
        fights.record(MEMORY, [(REPLICAS, "rival")])
        now[0] += FIGHT_S / (FIGHTS_MAX - 1) + 1
    assert fights.lost() == {}


@pytest.mark.invariant("APPLY-1")
def test_two_managers_who_each_win_sometimes_are_counted_apart() -> None:
    fights = Fights(clock=lambda: 0.0)
    for _ in range(FIGHTS_MAX - 1):
        fights.record(MEMORY, [(REPLICAS, "one"), (REPLICAS, "two")])
    assert fights.lost() == {}
    fights.record(MEMORY, [(REPLICAS, "two")])
    assert fights.lost() == {MEMORY: frozenset({REPLICAS})}
    assert '"two"' in fights.told()[0]


@pytest.mark.invariant("APPLY-1")
async def test_a_field_that_could_never_be_taken_back_is_not_given_up() -> None:
    """Admission refuses the write as long as it likes; once it does not, the write is made as it was planned."""
    simulation = Simulation()
    await simulation.run()
    simulation.rivals["novacore-memory"] = [REPLICAS]
    simulation.refuse["Deployment"] = Blocked(Reason.APPLY_REFUSED, "a volume that cannot grow, and the like")
    simulation.world.edit(MEMORY)
    for _ in range(2 * FIGHTS_MAX):
        await simulation.turn()
    assert simulation.condition("FieldConflict")["status"] == "False"
    simulation.refuse.clear()
    await simulation.run()
    assert simulation.condition("FieldConflict")["status"] == "False"
    assert simulation.condition("Ready")["status"] == "True"
