"""Reading decisions (POLICY-1)."""

from __future__ import annotations

import pytest

from novacore.intelligence.policy import PolicySilentError, read_decision


def answer(**changes):
    return {"result": "passed", "decision": "allow", "violations": [], "warnings": [], "policy_version": 3} | changes


def test_an_allow_passes_with_its_version():
    decision = read_decision(answer(), strict=False)
    assert (decision.action, decision.version) == ("allow", 3)


@pytest.mark.parametrize(
    "changes",
    [{"decision": "block"}, {"decision": "rewrite"}, {"result": "failed"}, {"result": "failed", "decision": "warn"}],
)
def test_all_ways_to_say_no_block(changes):
    rules = [{"rule_id": "r1", "category": "violence", "principle": "respect"}]
    decision = read_decision(answer(violations=rules, **changes), strict=False)
    assert (decision.action, decision.rule_ids) == ("block", ("r1",))


@pytest.mark.parametrize(("strict", "action"), [(False, "warn"), (True, "block")])
def test_a_warning_blocks_only_when_strict(strict, action):
    warned = answer(result="warning", decision="warn", warnings=[{"rule_id": "w1"}])
    decision = read_decision(warned, strict=strict)
    assert (decision.action, decision.rule_ids) == (action, ("w1",))


@pytest.mark.invariant("POLICY-1")
@pytest.mark.parametrize(
    "bad", [None, {}, [], "allow", answer(policy_version=0), answer(policy_version=None), answer(decision="perhaps")]
)
def test_what_is_no_decision_of_a_known_version_is_silence(bad):
    """POLICY-1"""
    with pytest.raises(PolicySilentError):
        read_decision(bad, strict=False)
