"""Writing: what was done, what was refused, and nothing without the Lease."""

from typing import Any, cast

import pytest

from novacore_operator.apply import Outcome, carry_out
from novacore_operator.errors import Blocked, Fatal
from novacore_operator.kube import Conflict, Kube
from novacore_operator.plan import Plan
from novacore_operator.reasons import Reason
from novacore_operator.state import Manifest, Ref
from novacore_operator.telemetry import Metrics
from tests.unit.operator.make import World, make_material, make_nova, plan_of

FIELDS = {"f:metadata": {"f:annotations": {}, "f:labels": {}, "f:ownerReferences": {}}}


class Server:
    """Takes writes; conflicts or refuses as told."""

    def __init__(self, *, conflict: frozenset[str] = frozenset(), refuse: frozenset[str] = frozenset()) -> None:
        self.conflict, self.refuse = conflict, refuse
        self.sent: list[tuple[str, bool]] = []

    async def apply(self, manifest: Manifest, *, force: bool) -> Manifest:
        """Store an object."""
        ref = f"{manifest['kind']} {manifest['metadata']['name']}"
        self.sent.append((ref, force))
        if ref in self.refuse:
            raise Blocked(Reason.APPLY_REFUSED, "no")
        if ref in self.conflict and not force:
            raise Conflict(Reason.APPLY_REFUSED, "held")
        fields = {f"f:{key}": {} for key in manifest if key not in ("apiVersion", "kind", "metadata")}
        entry = {"manager": "novacore-operator", "operation": "Apply", "fieldsV1": {**FIELDS, **fields}}
        metadata = {**manifest["metadata"], "uid": "u", "resourceVersion": "99", "managedFields": [entry]}
        return {**manifest, "metadata": metadata}

    async def delete(self, ref: Ref, *, uid: str) -> bool:
        """Delete an object."""
        self.sent.append((f"delete {ref} {uid}", False))
        return True


class NoCache:
    """Forgets what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def saw(self, body: Manifest, **_: Any) -> None:
        """Note it."""
        self.told.append(body["metadata"]["name"])

    def lost(self, ref: Ref, uid: str) -> None:
        """Note it."""
        self.told.append(f"lost {ref.name} {uid}")


async def run(server: Server, intended: Plan, *, world: World | None = None, complete: bool = True) -> Any:
    """Carry out a plan against a server."""
    there = world or World()
    return await carry_out(
        cast("Kube", server), NoCache(), Metrics(), intended, live_of=there.objects.get, complete=complete
    )


async def test_a_field_held_by_somebody_is_asked_for_and_then_taken() -> None:
    intended = plan_of(make_nova(), World(), make_material())
    server = Server(conflict=frozenset({"Service novacore-memory"}))
    applied = await run(server, intended)
    tries = [force for ref, force in server.sent if ref == "Service novacore-memory"]
    assert tries == [False, True]
    assert set(applied.outcomes.values()) == {Outcome.CREATED}


async def test_nothing_that_mounts_a_refused_secret_is_written() -> None:
    """PLAN-5."""
    server = Server(refuse=frozenset({"Secret novacore-keyset"}))
    applied = await run(server, plan_of(make_nova(), World(), make_material()))
    assert [ref.name for ref in applied.refused] == ["novacore-keyset"]
    assert not [ref for ref, _ in server.sent if ref.startswith("StatefulSet")]


async def test_a_repair_is_counted_and_named() -> None:
    there = World()
    there.install(make_nova())
    ref = Ref("ConfigMap", "test", "novacore-ca")
    there.edit(ref)
    applied = await run(Server(), plan_of(make_nova(), there, make_material()), world=there)
    assert applied.repaired == [ref]
    assert applied.outcomes == {ref: Outcome.PATCHED}


async def test_no_write_leaves_without_the_lease() -> None:
    """KUBE-1."""

    def lost() -> None:
        raise Fatal(Reason.API_UNAVAILABLE, "not ours")

    kube = Kube(None, Metrics())
    kube.guard = lost
    ref = Ref("Service", "test", "x")
    with pytest.raises(Fatal):
        await kube.apply({"kind": "Service", "metadata": {"name": "x", "namespace": "test"}}, force=False)
    with pytest.raises(Fatal):
        await kube.delete(ref, uid="u")
    with pytest.raises(Fatal):
        await kube.create_event({"metadata": {"namespace": "test"}})
