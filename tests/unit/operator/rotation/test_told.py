"""A ring's part of the status: what is written there can be read back, and its chain of hashes still holds."""

import json

from hypothesis import given
from hypothesis import strategies as st

from novacore_operator.rotation import history, told
from novacore_operator.rotation.history import Entry, Outcome
from novacore_operator.rotation.report import Phase, Report
from tests.unit.operator.rotation.test_guards import LATER, make_seen

WORDS = st.text("abc/-1", max_size=8)
ENTRIES = st.builds(
    Entry,
    id=st.text("ab1", min_size=1, max_size=8),
    outcome=st.sampled_from(Outcome),
    trigger=WORDS,
    at=st.integers(1, 2**33),
    generation=st.integers(1, 2**33),
    kids=st.lists(st.text("ab", min_size=1, max_size=3), max_size=3).map(tuple),
    actor=WORDS,
    reason=WORDS,
    seconds=st.floats(0, 1e7).map(lambda value: round(value, 1)) | st.integers(0, 99),
    acked=WORDS,
    times=st.dictionaries(st.sampled_from(["proven", "activated", "t0"]), st.integers(1, 2**33)).map(
        lambda found: tuple(found.items())
    ),
    failures=st.lists(st.text("ab", min_size=1, max_size=3), max_size=2).map(tuple),
)


@given(st.lists(ENTRIES, max_size=5))
def test_a_history_survives_the_api_server_and_its_chain_holds(entries: list[Entry]) -> None:
    """The API server keeps maps in any order."""
    chain: tuple[Entry, ...] = ()
    for entry in entries:
        chain = history.append(chain, entry)
    stored = json.dumps([told.entry_status(entry) for entry in chain], sort_keys=True)
    back = told.read_history({"rings": {"serviceJwt": {"history": json.loads(stored)}}}, "serviceJwt")
    assert history.faults(back) == ()
    assert [entry.hash for entry in back] == [entry.hash for entry in chain]
    assert [told.entry_status(entry) for entry in back] == json.loads(stored)


def test_an_altered_entry_breaks_the_chain() -> None:
    chain = history.append((), Entry("serviceJwt-1", Outcome.ACTIVATED, "install", 1, 1, acked="27/27"))
    body = told.entry_status(chain[0]) | {"acked": "9/9"}
    back = told.read_history({"rings": {"serviceJwt": {"history": [body]}}}, "serviceJwt")
    assert history.faults(back) != ()


def test_what_is_told_of_a_ring_names_keys_pods_and_the_last_change() -> None:
    seen = make_seen()
    found = Report(Phase.PROVE, acked="3/4", next_rotation=float(LATER + 60))
    status = told.ring_status(seen, found, seen.history)
    assert (status["phase"], status["acked"], status["activeKid"]) == ("prove", "3/4", "svc-1")
    assert [key["state"] for key in status["keys"]] == ["active", "pending"]
    assert status["lastRotation"] == {
        "id": "serviceJwt-1",
        "trigger": "install",
        "at": told.stamp(seen.history[0].at),
        "seconds": 0,
        "failures": 0,
    }
    assert status["nextRotation"] == told.stamp(LATER + 60)


def test_sentences_of_several_rings_are_one_message() -> None:
    assert told.sentences({"serviceJwt": ("a", "b"), "userJwt": ()}) == "serviceJwt: a; b"
