"""Transitions of a ring document: any sequence of them keeps its promises."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from novacore_contracts.keyset import TRUSTED_KEYS_MAX, Deny, RingDocument, RingKey
from novacore_operator.rotation import rings
from novacore_operator.rotation.rings import Half, Refused

NOW = 1_800_000_000


def make_half(n: int, *, why: str = "", kid: str = "") -> Half:
    return Half(f"serviceJwt-{n}.jwk", n, kid or f"svc-{n}", {}, float(NOW), why)


def make_document(*states: str, seq: int | None = None) -> RingDocument:
    """Return a document with keys 1, 2, … in these states."""
    keys = tuple(
        RingKey(f"svc-{n}", n, state, NOW + n, {})  # type: ignore[arg-type]
        for n, state in enumerate(states, start=1)
    )
    active = next(key.kid for key in keys if key.state == "active")
    return RingDocument("serviceJwt", 7, seq or len(keys), NOW, active, keys)


def states(document: RingDocument) -> dict[str, str]:
    return {key.kid: key.state for key in document.keys}


def test_the_switch_is_one_document_in_which_both_keys_are_trusted() -> None:
    document = rings.activate(make_document("active", "pending"), now=NOW, trigger="rotate/x", renew_now=True)
    assert states(document) == {"svc-1": "retiring", "svc-2": "active"}
    assert (document.active_kid, document.generation, document.renew_now) == ("svc-2", 8, True)
    assert document.last_trigger == "rotate/x"


def test_a_rollback_exchanges_the_two_keys_again() -> None:
    switched = rings.activate(make_document("active", "pending"), now=NOW, trigger="rotate/x")
    back = rings.roll_back(switched, "svc-1", now=NOW + 60, trigger="rollback/x")
    assert states(back) == {"svc-1": "active", "svc-2": "retiring"}
    assert back.generation == 9


@pytest.mark.invariant("EMERG-1")
@pytest.mark.parametrize(
    ("named", "fresh", "left"),
    [
        (["svc-1"], None, {"svc-2": "active"}),
        (["svc-2"], None, {"svc-1": "active"}),
        (["svc-1", "svc-2"], make_half(3), {"svc-3": "active"}),
    ],
)
def test_a_revocation_is_one_generation_with_one_key_that_signs(
    named: list[str], fresh: Half | None, left: dict[str, str]
) -> None:
    before = make_document("active", "pending")
    after = rings.revoke(before, named, now=NOW, until=NOW + 100, trigger="revoke/x", fresh=fresh)
    assert states(after) == left
    assert after.generation == before.generation + 1
    assert rings.revoked(after) == set(named)


def test_with_four_trusted_keys_a_fresh_one_takes_the_place_of_the_revoked() -> None:
    before = make_document("retiring", "retiring", "active", "pending")
    after = rings.revoke(before, ["svc-3", "svc-4"], now=NOW, until=NOW + 9, trigger="revoke/x", fresh=make_half(5))
    assert states(after) == {"svc-1": "retiring", "svc-2": "retiring", "svc-5": "active"}


@pytest.mark.parametrize(
    "impossible",
    [
        lambda: rings.activate(make_document("active"), now=NOW, trigger=""),
        lambda: rings.mint_standby(make_document("active", "pending"), make_half(3), now=NOW),
        lambda: rings.mint_standby(make_document("active", "retiring", "retiring", "retiring"), make_half(5), now=NOW),
        lambda: rings.mint_standby(make_document("active"), make_half(1), now=NOW),
        lambda: rings.retire(make_document("active", "pending"), "svc-2", now=NOW, until=NOW),
        lambda: rings.roll_back(make_document("active", "pending"), "svc-2", now=NOW, trigger=""),
        lambda: rings.revoke(make_document("active", "pending"), ["svc-9"], now=NOW, until=NOW, trigger=""),
        lambda: rings.revoke(make_document("active", "pending"), [], now=NOW, until=NOW, trigger=""),
        lambda: rings.revoke(make_document("active"), ["svc-1"], now=NOW, until=NOW, trigger=""),
        lambda: rings.discard_standby(make_document("active"), now=NOW, until=NOW),
    ],
)
def test_what_the_document_does_not_allow_is_refused(impossible: object) -> None:
    with pytest.raises(Refused, match="serviceJwt"):
        impossible()  # type: ignore[operator]


def test_a_kid_that_was_trusted_once_does_not_come_back_under_a_new_number() -> None:
    gone = rings.revoke(make_document("active", "pending"), ["svc-2"], now=NOW, until=NOW + 9, trigger="")
    with pytest.raises(Refused, match="never comes back"):
        rings.mint_standby(gone, make_half(3, kid="svc-2"), now=NOW)


def test_tombstones_and_denials_end_with_the_longest_token() -> None:
    document = rings.deny(make_document("active", "pending"), Deny("memory", NOW), now=NOW, trigger="deny/x")
    document = rings.revoke(document, ["svc-2"], now=NOW, until=NOW + 86_460, trigger="revoke/x")
    later = rings.stand_down(document, now=NOW + 86_459, trigger="")
    assert (len(later.tombstones), len(later.deny)) == (1, 1)
    after = rings.stand_down(document, now=NOW + 86_461, trigger="")
    assert (len(after.tombstones), len(after.deny)) == (0, 0)


def test_a_second_denial_of_a_service_takes_the_place_of_the_first() -> None:
    document = rings.deny(make_document("active"), Deny("memory", NOW), now=NOW, trigger="deny/x")
    document = rings.deny(document, Deny("memory", NOW + 9), now=NOW, trigger="deny/y")
    assert document.deny == (Deny("memory", NOW + 9),)


def test_a_restored_document_is_above_all_that_was_seen() -> None:
    document = make_document("active", "pending")
    assert rings.repair(document, above=3, now=NOW).generation == 8
    assert rings.repair(document, above=40, now=NOW).generation == 41


class AnyOrder(RuleBasedStateMachine):
    """All transitions, in any order and with any argument; those that are refused change nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.document = make_document("active", "pending")
        self.past = [self.document]
        self.now = NOW
        self.revoked: set[str] = set()
        self.signed = {"svc-1"}
        self.left_by_right: set[str] = set()

    def _try(self, make: object) -> bool:
        try:
            after: RingDocument = make()  # type: ignore[operator]
        except Refused:
            return False
        self.past.append(after)
        self.document = after
        self.signed.add(after.active_kid)
        return True

    def _kid(self, number: int) -> str:
        return self.document.keys[number % len(self.document.keys)].kid

    @rule(passed=st.integers(0, 50_000))
    def time(self, passed: int) -> None:
        self.now += passed

    @rule(ahead=st.integers(-1, 2))
    def mint(self, ahead: int) -> None:
        half = make_half(max(self.document.seq + ahead, 1))
        self._try(lambda: rings.mint_standby(self.document, half, now=self.now))

    @rule()
    def activate(self) -> None:
        self._try(lambda: rings.activate(self.document, now=self.now, trigger="rotate/x"))

    @rule(number=st.integers(0, 3))
    def retire(self, number: int) -> None:
        kid = self._kid(number)
        if self._try(lambda: rings.retire(self.document, kid, now=self.now, until=self.now + 9)):
            self.left_by_right.add(kid)

    @rule(number=st.integers(0, 3))
    def roll_back(self, number: int) -> None:
        kid = self._kid(number)
        self._try(lambda: rings.roll_back(self.document, kid, now=self.now, trigger="rollback/x"))

    @rule(numbers=st.sets(st.integers(0, 3), min_size=1), fresh=st.booleans())
    def revoke(self, numbers: set[int], fresh: bool) -> None:
        kids = {self._kid(number) for number in numbers}
        half = make_half(self.document.seq + 1, why="revoke/x") if fresh else None
        until = self.now + 90_000
        if self._try(
            lambda: rings.revoke(self.document, kids, now=self.now, until=until, trigger="revoke/x", fresh=half)
        ):
            self.revoked |= kids
            self.left_by_right |= kids

    @rule()
    def repair(self) -> None:
        self._try(lambda: rings.repair(self.document, above=self.document.generation + 2, now=self.now))

    @invariant()
    def promises_hold(self) -> None:
        """RDOC-1, RDOC-2, RDOC-3; KEYSET-1 to KEYSET-4 by building the document once more."""
        document = replace(self.document)
        kids = {key.kid for key in document.keys}
        assert len(document.keys) <= TRUSTED_KEYS_MAX
        assert not kids & self.revoked
        assert self.signed <= kids | self.left_by_right
        for before, after in zip(self.past, self.past[1:], strict=False):
            assert after.generation > before.generation
            assert after.seq >= before.seq
        assert RingDocument.from_bytes(document.to_bytes()) == document


@pytest.mark.invariant("RDOC-1")
@pytest.mark.invariant("RDOC-2")
@pytest.mark.invariant("RDOC-3")
class TestAnyOrder(AnyOrder.TestCase):  # type: ignore[name-defined,misc]
    """RDOC-1 to RDOC-3 for any sequence of transitions."""

    settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
