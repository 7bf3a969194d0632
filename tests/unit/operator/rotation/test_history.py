"""The history's chain."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacore_operator.rotation import history
from novacore_operator.rotation.history import Entry, Outcome


def make_history(length: int) -> tuple[Entry, ...]:
    made: tuple[Entry, ...] = ()
    for n in range(length):
        made = history.append(made, Entry(f"serviceJwt-{n}", Outcome.ACTIVATED, "schedule", 100 + n, n, ("svc-a",)))
    return made


@pytest.mark.invariant("HIST-1")
@given(st.integers(1, 25))
def test_the_last_ten_entries_are_kept_as_they_were_and_verify(length: int) -> None:
    """HIST-1."""
    made = make_history(length)
    longer = history.append(made, Entry("serviceJwt-x", Outcome.REVOKED, "revoke/x", 999, 99))
    assert len(longer) == min(length + 1, 10)
    assert longer[:-1] == made[-(len(longer) - 1) :]
    assert history.faults(longer) == ()
    assert longer[-1].prev == made[-1].hash


@given(st.data())
def test_whatever_is_altered_dropped_or_moved_is_found(data: st.DataObject) -> None:
    made = list(make_history(data.draw(st.integers(3, 10))))
    at = data.draw(st.integers(0, len(made) - 1))
    kind = data.draw(st.sampled_from(["altered", "hash", "dropped", "moved"]))
    if kind == "altered":
        field = data.draw(st.sampled_from(["id", "trigger", "actor", "reason", "acked", "acks_sha256"]))
        made[at] = replace(made[at], **{field: "other"})
    elif kind == "hash":
        made[at] = replace(made[at], hash="0" * 64)
    elif kind == "dropped":
        del made[data.draw(st.integers(1, len(made) - 2))]
    else:
        at = min(at, len(made) - 2)
        made[at], made[at + 1] = made[at + 1], made[at]
    assert history.faults(made)
    assert history.faults(made)[0].startswith("entry ")


def test_only_what_is_older_than_a_full_history_may_have_been_forgotten() -> None:
    full, short = make_history(10), make_history(3)
    assert history.forgotten(full, full[0].at - 1)
    assert not history.forgotten(full, full[0].at)
    assert not history.forgotten(short, 0)
