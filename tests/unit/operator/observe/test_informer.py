"""Caches that do not go back, and the memory of Secrets. The API server's answers are scripted."""

import asyncio
import base64
from collections.abc import AsyncIterator, Callable
from copy import deepcopy
from typing import Any, cast

import pytest

from novacore_operator.errors import Retry
from novacore_operator.kube import Gone, Kube, NotFound
from novacore_operator.observe import informer as module
from novacore_operator.observe.informer import RESUMES_MAX, Informer
from novacore_operator.observe.observer import Observer
from novacore_operator.observe.projection import owned_data, project
from novacore_operator.reasons import Reason
from novacore_operator.state import JobFacts, Live, Manifest, PodFacts, Ref, WorkloadFacts, names
from novacore_operator.telemetry import Metrics
from tests.unit.operator.make import make_material, make_nova


def body(name: str = "x", *, version: int = 1, uid: str = "u", kind: str = "ConfigMap", **more: Any) -> Manifest:
    """Return an object as the API server sends it."""
    metadata = {"name": name, "namespace": "test", "uid": uid, "resourceVersion": str(version), "generation": version}
    return {"kind": kind, "metadata": metadata, **more}


class Script:
    """Answers of an API server, in order; lists by call, watches by call."""

    def __init__(self, lists: list[Any], watches: list[list[Any]]) -> None:
        self.lists, self.watches, self.gets = lists, watches, 0
        self.secrets: dict[str, Manifest] = {}

    async def pages(self, *_: Any, **__: Any) -> AsyncIterator[Any]:
        """Yield the next list object by object, or raise it."""
        answer = self.lists.pop(0) if self.lists else Retry(Reason.API_UNAVAILABLE, "away")
        if isinstance(answer, Exception):
            raise answer
        items, version = answer
        for item in items:
            yield [item], version
        yield [], version

    async def watch(self, *_: Any, **__: Any) -> AsyncIterator[Any]:
        """Yield the next watch's events."""
        for event in self.watches.pop(0) if self.watches else []:
            if isinstance(event, Exception):
                raise event
            yield event
        if not self.watches:
            await asyncio.Event().wait()

    async def get(self, ref: Ref) -> Manifest | None:
        """Return a Secret by name."""
        self.gets += 1
        return deepcopy(self.secrets.get(ref.name))


class Changes(list[Any]):
    """What an informer told, and a way to wait for more."""

    def __init__(self) -> None:
        super().__init__()
        self._more = asyncio.Event()

    def add(self, _: str, before: Live | None, now: Live | None) -> None:
        """Note a change."""
        self.append((before and before.version, now and now.version))
        self._more.set()

    async def until(self, holds: Callable[[], bool]) -> None:
        """Return when something holds; fail after ten seconds."""
        async with asyncio.timeout(10):
            while not holds():
                self._more.clear()
                await self._more.wait()


def informer(script: Script | None = None, kind: str = "ConfigMap") -> tuple[Informer, Changes]:
    """Return an informer and the changes it tells."""
    changes = Changes()
    kube = cast("Kube", script or Script([], []))
    return Informer(kube, Metrics(), kind, namespace="test", changed=changes.add), changes


def test_a_stale_event_changes_nothing() -> None:
    """INF-1."""
    made, changes = informer()
    made.saw(body(version=5))
    made.saw(body(version=4))
    made.saw(body(version=5))
    assert changes == [(None, 5)]


def test_a_deleted_object_does_not_rise_from_a_stale_event() -> None:
    """INF-1."""
    made, _ = informer()
    made.saw(body(version=5))
    made.lost(Ref("ConfigMap", "test", "x"), "u", 6)
    made.saw(body(version=5))
    assert list(made.objects("test")) == []


def test_a_namesake_made_meanwhile_stays() -> None:
    """INF-1."""
    made, _ = informer()
    made.saw(body(version=5, uid="old"))
    made.saw(body(version=7, uid="new"))
    made.lost(Ref("ConfigMap", "test", "x"), "old", 6)
    assert [live.uid for live in made.objects("test")] == ["new"]


async def test_after_gone_the_list_is_taken_anew_and_what_is_missing_is_removed() -> None:
    """INF-2."""
    lists = [([body("a", version=1), body("b", version=2, uid="v")], "2"), ([body("a", version=9)], "9")]
    made, changes = informer(Script(lists, [[("BOOKMARK", body(version=3)), Gone(Reason.API_UNAVAILABLE, "410")], []]))
    running = asyncio.ensure_future(made.run())
    await changes.until(lambda: [(live.ref.name, live.version) for live in made.objects("test")] == [("a", 9)])
    assert made.synced.is_set()
    running.cancel()


@pytest.mark.parametrize(("cuts", "lists"), [(1, 1), (RESUMES_MAX, 1), (RESUMES_MAX + 1, 2)])
async def test_a_watch_that_is_cut_goes_on_where_it_was(monkeypatch: pytest.MonkeyPatch, cuts: int, lists: int) -> None:
    """INF-2."""
    monkeypatch.setattr(module, "PAUSE_S", (0.0, 0.0))
    cut = Retry(Reason.API_UNAVAILABLE, "cut")
    script = Script(
        [([body("a", version=1)], "2"), ([body("a", version=1), body("c", version=8, uid="w")], "9")],
        [
            [("ADDED", body("b", version=5, uid="v")), cut],
            *[[cut]] * (cuts - 1),
            [("ADDED", body("d", version=10, uid="x"))],
        ],
    )
    since: list[str] = []
    watch = script.watch

    async def noted(*_: Any, **more: Any) -> AsyncIterator[Any]:
        since.append(more["since"])
        async for event in watch():
            yield event

    script.watch = noted  # type: ignore[method-assign]
    made, changes = informer(script)
    running = asyncio.ensure_future(made.run())
    await changes.until(lambda: "d" in {live.ref.name for live in made.objects("test")})
    running.cancel()
    assert since == ["2", *["5"] * (cuts - 1), "5" if lists == 1 else "9"]
    assert len(script.lists) == 2 - lists


async def test_a_watch_brings_additions_and_deletions() -> None:
    events = [("ADDED", body("b", version=3, uid="v")), ("DELETED", body("a", version=4))]
    made, changes = informer(Script([([body("a", version=1)], "1")], [events]))
    running = asyncio.ensure_future(made.run())
    await changes.until(lambda: [live.ref.name for live in made.objects("test")] == ["b"])
    running.cancel()


@pytest.mark.invariant("WATCHDOG-1")
async def test_a_watch_is_alive_as_long_as_it_hears_anything_at_all() -> None:
    """A bookmark, a refusal, a list: each is a word. Nothing is none."""
    now = [0.0]
    gone = Gone(Reason.API_UNAVAILABLE, "410")
    script = Script([([], "2"), ([], "9")], [[("BOOKMARK", body(version=3)), gone], []])
    made = Informer(
        cast("Kube", script), Metrics(), "ConfigMap", namespace="test", changed=lambda *_: None, clock=lambda: now[0]
    )
    heard = []
    pages, watch = script.pages, script.watch

    async def timed_pages(*_: Any, **__: Any) -> AsyncIterator[Any]:
        now[0] += 1
        async for page in pages():
            yield page
        heard.append(made.alive_at)

    async def timed_watch(*_: Any, **__: Any) -> AsyncIterator[Any]:
        async for event in watch():
            now[0] += 1
            yield event
            heard.append(made.alive_at)

    script.pages, script.watch = timed_pages, timed_watch  # type: ignore[method-assign]
    running = asyncio.ensure_future(made.run())
    async with asyncio.timeout(5):
        while len(heard) < 3:
            await asyncio.sleep(0)
    running.cancel()
    assert heard == [1.0, 2.0, 3.0]
    now[0] = 500.0
    assert made.alive_at == 3.0


# --- memory of Secrets ------------------------------------------------------------------------------------------------


def secret(name: str, data: dict[str, bytes], *, owned: set[str] | None = None, version: int = 1) -> Manifest:
    """Return a Secret of which the operator owns some keys (all by default)."""
    keys = data.keys() if owned is None else owned
    result = body(name, kind="Secret", uid=f"uid-{name}", version=version)
    result["data"] = {key: base64.b64encode(value).decode() for key, value in data.items()}
    result["metadata"]["managedFields"] = [
        {
            "manager": "novacore-operator",
            "operation": "Apply",
            "fieldsV1": {"f:data": {f"f:{key}": {} for key in keys}},
        }
    ]
    return result


def observer(script: Script) -> Observer:
    """Return an observer of one namespace."""
    return Observer(
        cast("Kube", script), Metrics(), operator_namespace="ops", namespaces=["test"], changed=lambda *_: None
    )


def test_an_entry_that_somebody_edited_is_not_material() -> None:
    found = owned_data(secret("s", {"mine": b"1", "edited": b"2"}, owned={"mine"})).reveal()
    assert dict(found) == {"mine": b"1"}


async def test_a_deleted_or_edited_secret_comes_back_from_memory() -> None:
    """OBS-1."""
    material = make_material()
    watching = observer(Script([], []))
    watching.remember("test", material)
    watching.saw(secret(names.KEYSET, {"serviceJwt.jws": b"forged"}, owned=set()))
    _, found = await watching.observe(make_nova(), ())
    assert found == material


async def test_the_bytes_of_a_secret_that_memory_has_are_kept_once() -> None:
    """A thousand installations have 22 MiB of them."""
    material = make_material()
    root = names.root_secret("test")
    watching = observer(Script([], []))
    watching.remember("test", material)
    watching.saw(secret(names.KEYSET, dict(material[names.KEYSET])))
    made = secret(root, dict(material[root]))
    made["metadata"]["namespace"] = "ops"
    watching.saw(made)
    watching._material = {}  # what is left is what the caches keep
    _, found = await watching.observe(make_nova(), ())
    for name in (names.KEYSET, root):
        assert all(value is material[name][key] for key, value in found[name].items()), name
        assert found[name] == material[name]


async def test_entries_of_others_are_handed_on_only_where_memory_knows_nothing() -> None:
    """OBS-3."""
    material = make_material()
    edited = secret(names.POSTGRES_ADMIN, dict(material[names.POSTGRES_ADMIN]), owned={"scram"})
    watching = observer(Script([], []))
    watching.saw(edited)
    seen, found = await watching.observe(make_nova(), ())
    assert "password" not in found[names.POSTGRES_ADMIN]
    assert set(seen.foreign[names.POSTGRES_ADMIN].reveal()) == {"password"}
    watching.remember("test", material)
    seen, found = await watching.observe(make_nova(), ())
    assert found == material
    assert seen.foreign == {}


async def test_what_a_cache_lacks_is_asked_for_by_name_before_anything_is_minted() -> None:
    """OBS-2."""
    script = Script([], [])
    script.secrets = {name: secret(name, dict(data)) for name, data in make_material().items()}
    seen, found = await observer(script).observe(make_nova(), ())
    assert found == make_material()
    assert script.gets == len(found)
    assert seen.get("Secret", "test", names.KEYSET) is not None


async def test_a_forgotten_installation_leaves_nothing_in_memory() -> None:
    watching = observer(Script([], []))
    watching.remember("test", make_material())
    watching.forget("test")
    _, found = await watching.observe(make_nova(), ())
    assert found == {}


# --- projections ------------------------------------------------------------------------------------------------------


def test_deployment_facts_tell_why_it_stalls() -> None:
    conditions = [{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "quota"}]
    status = {
        "replicas": 2,
        "updatedReplicas": 1,
        "availableReplicas": 1,
        "observedGeneration": 3,
        "conditions": conditions,
    }
    live = project("Deployment", body(kind="Deployment", spec={"replicas": 2}, status=status))
    assert live.facts == WorkloadFacts(2, 3, 2, 1, 1, stalled="FailedCreate: quota")


@pytest.mark.parametrize(
    ("conditions", "facts"),
    [
        ([], JobFacts(False, False)),
        ([{"type": "Complete", "status": "True"}], JobFacts(True, False)),
        ([{"type": "Failed", "status": "True", "message": "why"}], JobFacts(False, True, "why")),
    ],
)
def test_job_facts(conditions: list[Any], facts: JobFacts) -> None:
    assert project("Job", body(kind="Job", spec={}, status={"conditions": conditions})).facts == facts


def container(**state: Any) -> dict[str, Any]:
    """Return the status of one container."""
    return {"name": "main", "image": "img:1", "ready": False, "restartCount": 0, **state}


def waiting(reason: str) -> dict[str, Any]:
    """Return a waiting state."""
    return {"state": {"waiting": {"reason": reason, "message": "m"}}}


ENDED = {"lastState": {"terminated": {"exitCode": 78, "reason": "Error"}}}


@pytest.mark.parametrize(
    ("state", "trouble", "message"),
    [
        (waiting("ContainerCreating"), "", ""),
        (waiting("ErrImagePull"), "ImagePullBackOff", "img:1 cannot be pulled"),
        (waiting("ImagePullBackOff"), "ImagePullBackOff", "img:1 cannot be pulled"),
        (
            {**waiting("CrashLoopBackOff"), **ENDED, "restartCount": 1},
            "CrashLoopBackOff",
            "container main: exit code 78 Error",
        ),
        (
            {"state": {"running": {}}, **ENDED, "restartCount": 3},
            "CrashLoopBackOff",
            "container main: exit code 78 Error",
        ),
        ({"state": {"running": {}}, **ENDED, "restartCount": 1}, "", ""),
        (waiting("CreateContainerConfigError"), "CreateContainerConfigError", "m"),
    ],
)
def test_pod_trouble_does_not_flicker(state: dict[str, Any], trouble: str, message: str) -> None:
    pod = body(kind="Pod", status={"containerStatuses": [container(**state)]})
    facts = project("Pod", pod).facts
    assert isinstance(facts, PodFacts)
    assert (facts.trouble, facts.message) == (trouble, message)


async def test_a_foreign_kind_may_be_missing_and_come_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("novacore_operator.observe.informer.UNSERVED_S", 0.0)
    missing = NotFound(Reason.APPLY_REFUSED, "404")
    script = Script([missing, missing, ([body(kind="Cluster", spec={})], "5"), missing], [[missing]])
    told: list[Any] = []
    cache = Informer(
        cast("Kube", script),
        Metrics(),
        "Cluster",
        namespace="test",
        changed=lambda namespace, before, now: told.append((namespace, before is not None, now is not None)),
        foreign=True,
    )
    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(cache.run())
        await cache.synced.wait()
        assert not cache.served, "full, and empty: it does not wait for a definition"
        while ("test", False, True) not in told or cache.served:
            await asyncio.sleep(0)
        watching.cancel()
    assert told == [
        ("test", False, True),  # the object
        ("test", False, False),  # the kind has come: everything is looked at anew
        ("test", True, False),  # it has gone again, and the object with it
    ]
    assert list(cache.objects("test")) == []


def test_a_write_in_one_namespace_stays_out_of_the_caches_of_another() -> None:
    """A cache whose watch tells nothing of an object would keep it for ever as it was written."""
    there = Observer(
        cast("Kube", Script([], [])),
        Metrics(),
        operator_namespace="ops",
        namespaces=["test", "other"],
        changed=lambda *_: None,
    )
    there.saw(body(kind="ConfigMap"))
    filled = [one for kind, _, one in there._informers if kind == "ConfigMap" and one.objects("test")]
    assert len(filled) == 1
