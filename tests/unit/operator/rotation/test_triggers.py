"""Annotations become triggers, once for each nonce."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacore_operator.rotation import triggers
from novacore_operator.rotation.triggers import Mode, Trigger, Verb

RINGS = ("serviceJwt", "userJwt")
WORD = st.text("abcXYZ019._-", min_size=1, max_size=8)


def test_each_annotation_is_one_trigger() -> None:
    found, wrong = triggers.read(
        {
            "novacore.ai/rotate": "serviceJwt/1",
            "novacore.ai/rollback": "userJwt/2",
            "novacore.ai/revoke": "usr-a,usr-b/3",
            "novacore.ai/revoke-reason": "laptop stolen",
            "novacore.ai/revoke-mode": "drain",
            "novacore.ai/deny": "memory/4",
            "somebody.else/rotate": "serviceJwt/5",
        },
        RINGS,
        actors={"novacore.ai/rotate": "kubectl-annotate"},
    )
    assert wrong == ()
    assert {trigger.verb: (trigger.ring, trigger.nonce, trigger.subjects) for trigger in found} == {
        Verb.ROTATE: ("serviceJwt", "1", ()),
        Verb.ROLLBACK: ("userJwt", "2", ()),
        Verb.REVOKE: ("userJwt", "3", ("usr-a", "usr-b")),
        Verb.DENY: ("serviceJwt", "4", ("memory",)),
    }
    revoke = next(trigger for trigger in found if trigger.verb is Verb.REVOKE)
    assert (revoke.mode, revoke.reason) == (Mode.DRAIN, "laptop stolen")
    assert [trigger.actor for trigger in found if trigger.verb is Verb.ROTATE] == ["kubectl-annotate"]
    assert found[0].verb is Verb.REVOKE  # emergencies first


@pytest.mark.parametrize(
    ("annotations", "word"),
    [
        ({"rotate": "serviceJwt"}, "expected <what>/<nonce>"),
        ({"rotate": "serviceJwt/"}, "expected <what>/<nonce>"),
        ({"rotate": "serviceJwt/a b"}, "expected <what>/<nonce>"),
        ({"rotate": "nothing/1"}, "no ring 'nothing'"),
        ({"deny": "nobody/1"}, "no service 'nobody'"),
        ({"revoke": "svc-a/1"}, "needs a reason"),
        ({"revoke": "svc-a,usr-b/1", "revoke-reason": "x"}, "kids of one ring"),
        ({"revoke": "/1", "revoke-reason": "x"}, "expected <what>/<nonce>"),
        ({"revoke": "a/1", "revoke-reason": "x"}, "kids of one ring"),
        ({"revoke": "svc-a/1", "revoke-reason": "x", "revoke-mode": "soon"}, "expected drain or immediate"),
    ],
)
def test_what_is_no_trigger_is_told_and_not_done(annotations: dict[str, str], word: str) -> None:
    found, wrong = triggers.read({f"novacore.ai/{key}": value for key, value in annotations.items()}, RINGS)
    assert found == ()
    assert len(wrong) == 1
    assert word in wrong[0]


@pytest.mark.invariant("TRIG-1")
@given(st.lists(st.tuples(st.sampled_from(list(Verb)), WORD), min_size=1, max_size=12))
def test_a_nonce_is_done_until_the_next_of_its_verb_whatever_else_happens(done: list[tuple[Verb, str]]) -> None:
    """TRIG-1."""
    last = ""
    for verb, nonce in done:
        last = triggers.marked(last, Trigger(verb, "serviceJwt", nonce))
    newest = dict(done)
    for verb, nonce in newest.items():
        assert triggers.done(last, Trigger(verb, "serviceJwt", nonce))
        assert not triggers.done(last, Trigger(verb, "serviceJwt", nonce + "x"))
    assert triggers.latest(last, *Verb) == f"{done[-1][0]}/{done[-1][1]}"


def test_a_last_trigger_of_an_unknown_form_is_no_trigger() -> None:
    assert triggers.marks("manual x/ /y rotate/1") == {"x": "", "": "y", "rotate": "1"}
    assert triggers.latest("", Verb.ROTATE) == ""
