"""What kopf's events leave out. The API server's lists are scripted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from novacore_contracts.releases import CURRENT
from novacore_operator.errors import Retry
from novacore_operator.kube import Kube, NotFound
from novacore_operator.loop import census as module
from novacore_operator.loop.census import Census
from novacore_operator.loop.store import Key, Store
from novacore_operator.reasons import Reason

A, B = ("a", "nova"), ("b", "nova")


def body(key: Key, *, version: int, uid: str = "", generation: int = 1) -> dict[str, Any]:
    """Return a resource."""
    metadata = {"namespace": key[0], "name": key[1], "uid": uid or key[0], "resourceVersion": str(version)}
    metadata |= {"generation": generation, "creationTimestamp": "2026-03-01T11:00:00Z"}
    return {"metadata": metadata, "spec": {"version": CURRENT}}


class Lists:
    """Lists of an API server, in order."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)

    async def pages(self, *_: Any, **__: Any) -> AsyncIterator[Any]:
        """Yield the next list object by object, or raise it."""
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        items, version = answer
        for item in items:
            yield [item], version
        yield [], version


class Told(list[tuple[str, Key]]):
    """What a census said."""


def census(*answers: Any) -> tuple[Census, Store, Told]:
    """Return a census over these lists."""
    store, told = Store(), Told()
    made = Census(
        cast("Kube", Lists(*answers)),
        store,
        namespaces=(),
        changed=lambda key: told.append(("changed", key)),
        gone=lambda key: told.append(("gone", key)),
    )
    return made, store, told


@pytest.mark.invariant("CENSUS-1")
async def test_a_resource_whose_end_nobody_told_leaves_with_the_next_census() -> None:
    made, store, told = census(([body(B, version=4)], "9"))
    made.heard(None, body(A, version=3))
    made.heard(None, body(B, version=4))
    assert await made.take() == []
    assert store.keys() == [B]
    assert told[-1] == ("gone", A)


@pytest.mark.invariant("CENSUS-1")
async def test_a_resource_that_is_younger_than_the_list_stays() -> None:
    made, store, _ = census(([], "9"))
    made.heard("ADDED", body(A, version=10))
    await made.take()
    assert store.keys() == [A]


@pytest.mark.invariant("CENSUS-1")
async def test_a_list_that_fails_drops_nothing_and_is_taken_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSE_S", 0.0)
    absent = NotFound(Reason.APPLY_REFUSED, "the definition is away")
    made, store, _ = census(Retry(Reason.API_UNAVAILABLE, "away"), absent, ([body(A, version=3)], "9"))
    made.heard(None, body(A, version=3))
    await made.take()
    assert store.keys() == [A]


@pytest.mark.parametrize("late", [("MODIFIED", 4), ("DELETED", 5)])
def test_a_late_event_of_a_namesake_that_is_gone_changes_nothing(late: tuple[str, int]) -> None:
    made, store, _ = census()
    made.heard("ADDED", body(A, version=6, uid="new"))
    made.heard(late[0], body(A, version=late[1], uid="old"))
    found = store.get(A)
    assert found is not None
    assert found.uid == "new"


def test_an_event_is_told_once() -> None:
    made, _, told = census()
    made.heard("ADDED", body(A, version=3))
    made.heard("MODIFIED", body(A, version=4))  # its status
    made.heard("MODIFIED", body(A, version=5, generation=2))
    made.heard("DELETED", body(A, version=6, generation=2))
    made.heard("DELETED", body(A, version=6, generation=2))
    assert told == [("changed", A), ("changed", A), ("gone", A)]


@pytest.mark.invariant("CENSUS-2")
@pytest.mark.parametrize("silent", [True, False])
async def test_kopf_is_deaf_when_it_stays_silent_about_what_the_list_knows(
    monkeypatch: pytest.MonkeyPatch, silent: bool
) -> None:
    monkeypatch.setattr(module, "CALM_S", 0.0)
    monkeypatch.setattr(module, "DEAF_S", 0.05)
    made, store, _ = census(([body(A, version=3)], "9"))
    made.expect_list()
    running = asyncio.ensure_future(made.run())
    async with asyncio.timeout(5):
        while not store.keys():
            await asyncio.sleep(0)
        if not silent:
            made.heard("ADDED", body(A, version=3))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(made.deaf.wait(), 0.2)
        else:
            await made.deaf.wait()
    running.cancel()
