"""Turns that must not write: over a Secret of the data that is unusable, and for a resource that is gone."""

from __future__ import annotations

from typing import Any

import pytest

from novacore_operator.loop.reconcile import BLOCKED_S, Reconciler
from novacore_operator.loop.store import Store
from novacore_operator.reasons import Reason
from novacore_operator.state import Manifest, Nova, Observed, Sealed, names
from novacore_operator.status import condition_of
from novacore_operator.telemetry import Metrics
from tests.unit.operator.loop.simulation import KEY, Simulation
from tests.unit.operator.make import make_material, make_nova


async def test_an_unusable_admin_password_is_told_and_not_overwritten() -> None:
    nova = make_nova()
    applied: list[Manifest] = []

    class FakeStore(Store):
        def get(self, _: Any) -> Nova:
            return nova

        def put(self, _: Any) -> bool:
            return True

    class Fake:
        async def observe(self, *_: Any) -> Any:
            material = make_material()
            material[names.POSTGRES_ADMIN] = {}  # type: ignore[index]
            return Observed({}, foreign={names.POSTGRES_ADMIN: Sealed({"password": b"short"})}), material

        async def apply(self, body: Manifest, **_: Any) -> Manifest:
            applied.append(body)
            return body

        async def create_event(self, _: Manifest) -> None:
            return None

    fake: Any = Fake()
    turn = await Reconciler(fake, fake, FakeStore(), Metrics(), identity="me").turn(nova.key)
    assert (turn.failed, turn.again_s) == (False, BLOCKED_S)
    assert [body["kind"] for body in applied] == ["NovaCoreDeployment"]
    assert condition_of(applied[0]["status"], "Ready")["reason"] == Reason.SECRET_MALFORMED


@pytest.mark.invariant("CENSUS-1")
async def test_nothing_is_made_again_for_a_resource_whose_end_nobody_told() -> None:
    installed = Simulation()
    await installed.run()
    installed.world.objects.clear()  # the garbage collector was there
    installed.deleted = True
    installed.writes.clear()
    turn = await installed.turn()
    assert (turn.failed, turn.again_s) == (False, None)
    assert installed.writes == []
    assert installed.store.get(KEY) is None
