"""Which release to go back to, and what the history tells."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacore_operator.cli.errors import BadInput, Failed
from novacore_operator.cli.releases import Release, choose, field_changes, history, same, stored, target
from novacore_operator.releases import HOW
from tests.unit.operator.cli.cluster import resource, revision

SPECS = st.fixed_dictionaries(
    {"version": st.just("0.1.0")},
    optional={
        "limits": st.integers(1, 3).map(lambda n: {"authPerMinute": n}),
        "profile": st.sampled_from(["Development", "Production"]),
        "paused": st.booleans(),
        "mode": st.sampled_from(["Apply", "Plan"]),
        "rollout": st.integers(1, 3).map(lambda n: {"maxParallel": n}),
    },
)


def releases(specs: list[dict[str, Any]]) -> list[Release]:
    bodies = [revision(number, spec) for number, spec in enumerate(specs, start=1)]
    return stored(bodies, uid="u-1")


@pytest.mark.invariant("CLI-4")
@given(st.lists(SPECS, max_size=5), SPECS)
def test_the_newest_release_that_differs_is_chosen(specs: list[dict[str, Any]], live: dict[str, Any]) -> None:
    differing = [number for number, spec in enumerate(specs, start=1) if not same(spec, live)]
    if differing:
        assert choose(releases(specs), live, to=None).number == max(differing)
    else:
        with pytest.raises(Failed):
            choose(releases(specs), live, to=None)


@pytest.mark.invariant("CLI-5")
@given(SPECS, SPECS)
def test_a_rollback_makes_the_release_and_keeps_how_it_is_brought_about(
    old: dict[str, Any], live: dict[str, Any]
) -> None:
    before = deepcopy(live)
    made = target(Release(1, None, old), live)
    assert same(made, old)
    assert {key: made.get(key) for key in HOW} == {key: live.get(key) for key in HOW}
    assert live == before


def test_a_default_that_was_not_written_is_no_difference() -> None:
    assert same({"version": "0.1.0"}, {"version": "0.1.0", "profile": "Development", "redis": {"mode": "Simple"}})
    (change,) = field_changes({"version": "0.1.0"}, {"version": "0.1.0", "limits": {"authPerMinute": 3}})
    assert (change.path, change.old, change.new) == ("spec.limits.authPerMinute", 10, 3)


def test_a_spec_of_another_version_is_compared_as_it_stands() -> None:
    (change,) = field_changes({"version": "0.1.0", "future": 1}, {"version": "0.1.0", "future": 2})
    assert (change.path, change.old, change.new) == ("spec.future", 1, 2)


def test_revisions_of_another_resource_or_without_a_spec_are_no_releases() -> None:
    foreign = revision(9, {"version": "0.1.0"}, uid="somebody-else")
    empty = revision(8, {}) | {"data": None}
    assert [release.number for release in stored([foreign, empty, revision(1, {})], uid="u-1")] == [1]


def test_a_number_that_is_not_stored_is_bad_input() -> None:
    with pytest.raises(BadInput, match="release 7 is not stored; there are 2, 1"):
        choose(releases([{"version": "0.1.0"}, {"version": "0.1.0"}]), {}, to=7)


def test_history_joins_what_was_told_with_what_is_stored() -> None:
    told = [
        {"revision": 2, "generation": 5, "version": "0.2.0", "at": "2026-03-09T00:00:00Z", "outcome": "RolledBack"},
        {"revision": 2, "generation": 4, "version": "0.1.0", "at": "2026-03-08T00:00:00Z", "outcome": "Succeeded"},
        {"revision": None, "generation": 1, "version": "0.1.0", "at": "2026-02-01T00:00:00Z", "outcome": "RolledBack"},
    ]
    found = resource(status={"history": told})
    rows = history(found, releases([{"version": "0.1.0", "profile": "Production"}, {"version": "0.1.0"}]))
    assert [(row["revision"], row["generation"], row["stored"], row["live"]) for row in rows] == [
        (2, 5, True, True),
        (2, 4, True, True),
        (1, None, True, False),
        (None, 1, False, False),
    ]
    assert {frozenset(row) for row in rows} == {frozenset(rows[0])}, "every row has the same keys"
