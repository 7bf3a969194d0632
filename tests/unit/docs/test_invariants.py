"""Every invariant that a module promises has a test that names it."""

from __future__ import annotations

from pathlib import Path

from hack.gen.invariants import promises, proven

ROOT = Path(__file__).resolve().parents[3]


def test_every_promised_invariant_has_a_proof() -> None:
    promised = promises(ROOT)
    assert len(promised) > 50, "the docstrings were not found: the check would prove nothing"
    assert sorted(set(promised) - set(proven(ROOT))) == []


def test_no_test_names_an_invariant_that_nobody_promises() -> None:
    assert sorted(set(proven(ROOT)) - set(promises(ROOT))) == []
