"""The policy document, its signature, the audit chain, the scores."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from novacore.noble_spirit.audit import Row, chain, first_break
from novacore.noble_spirit.document import (
    PRINCIPLES,
    ZERO_HASH,
    PolicyDocument,
    Rule,
    Thresholds,
    canonical,
    content_hash,
    first_policy,
)
from novacore.noble_spirit.matcher import Matcher
from novacore.noble_spirit.normalise import term
from novacore.noble_spirit.scoring import align, principle_scores, read, result_of
from novacore.noble_spirit.signing import NoPolicyKeyError, PolicyKeys
from novacore_contracts.keyset import thumbprint

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def policy_jwk(n: int = 1) -> dict:
    """A policy key's file, as the operator writes it."""
    private = Ed25519PrivateKey.generate()

    def b64(raw: bytes) -> str:
        return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()

    jwk = {"kty": "OKP", "crv": "Ed25519", "x": b64(private.public_key().public_bytes_raw())}
    return jwk | {
        "kid": "pol-" + thumbprint(jwk),
        "alg": "EdDSA",
        "use": "sig",
        "n": n,
        "d": b64(private.private_bytes_raw()),
    }


def test_policy_1_has_thirteen_harmful_and_twelve_unethical_rules():
    rules = first_policy().rules
    counts = {}
    for rule in rules:
        counts[rule.category, rule.action] = counts.get((rule.category, rule.action), 0) + 1

    assert counts == {
        ("violence", "block"): 3, ("cybercrime", "block"): 4, ("illegal", "block"): 4, ("privacy", "block"): 2,
        ("deception", "warn"): 3, ("discrimination", "warn"): 3, ("exploitation", "warn"): 3, ("consent", "warn"): 3,
    }  # fmt: skip


def test_groups_of_one_pattern_share_no_term_so_that_one_word_never_matches_alone():
    document = first_policy()
    words = {name: {term(word.rstrip("*")) for word in terms} for name, terms in document.vocabulary.items()}
    for rule in document.rules:
        for pattern in rule.patterns:
            assert len(pattern) == len(set(pattern)), rule.id
            for n, first in enumerate(pattern):
                for second in pattern[n + 1 :]:
                    assert not words[first] & words[second], (rule.id, first, second, words[first] & words[second])


def test_every_vocabulary_of_policy_1_is_used():
    document = first_policy()
    used = {
        name for rule in document.rules for name in (*rule.allow, *(n for pattern in rule.patterns for n in pattern))
    }

    assert set(document.vocabulary) == used


def test_content_survives_storage():
    document = first_policy()

    assert PolicyDocument.model_validate(json.loads(json.dumps(document.content()))) == document


@pytest.mark.parametrize(
    "change",
    [
        {"unknown": 1},
        {"rules": []},
        {"principles": {"truth": 1.0}},
        {"thresholds": {"violation": 2}},
        {
            "rules": [
                {"id": "a.b", "category": "cc", "action": "block", "principles": {"truth": 1}, "patterns": [["nope"]]}
            ]
        },
    ],
)
def test_a_document_of_the_wrong_shape_is_refused(change):
    with pytest.raises(ValidationError):
        PolicyDocument.model_validate(first_policy().content() | change)


def test_the_signed_bytes_hold_version_content_and_previous_hash():
    content = {"b": 1, "a": "é"}
    message = canonical(version=1, content=content, prev_hash=ZERO_HASH)

    assert message == canonical(version=1, content={"a": "é", "b": 1}, prev_hash=ZERO_HASH)
    assert message != canonical(version=2, content=content, prev_hash=ZERO_HASH)
    assert message != canonical(version=1, content=content, prev_hash=b"\1" * 32)
    assert len(content_hash(version=1, content=content, prev_hash=ZERO_HASH)) == 32


def test_the_newest_key_signs_and_older_ones_still_verify(tmp_path):
    old, new = policy_jwk(1), policy_jwk(2)
    (tmp_path / "policy-1.jwk").write_text(json.dumps(old))
    keys = PolicyKeys(tmp_path)
    kid, signature = keys.sign(b"one")
    (tmp_path / "policy-2.jwk").write_text(json.dumps(new))

    assert kid == old["kid"]
    assert keys.sign(b"two")[0] == new["kid"]
    assert keys.verifies(kid=kid, signature=signature, message=b"one")
    assert not keys.verifies(kid=kid, signature=signature, message=b"two")
    assert not keys.verifies(kid="pol-unknown", signature=signature, message=b"one")


@pytest.mark.parametrize("damage", [{"kid": "pol-other"}, {"crv": "Ed448"}, {"d": "AAAA"}, {"x": "A" * 43}])
def test_a_damaged_key_is_no_key(tmp_path, damage):
    (tmp_path / "policy-1.jwk").write_text(json.dumps(policy_jwk() | damage))

    with pytest.raises(NoPolicyKeyError):
        PolicyKeys(tmp_path).sign(b"x")


def rows_of(count: int) -> list[Row]:
    rows, held = [], ZERO_HASH
    for seq in range(1, count + 1):
        values = {"seq": seq, "action": "validation_failed", "context": {"n": seq}, "at": NOW, "policy_id": None}
        digest = chain(held, **values)
        rows.append(Row(**values, prev_hash=held, hash=digest))
        held = digest
    return rows


@pytest.mark.invariant("POLICY-3")
@given(st.integers(2, 8), st.data())
@settings(max_examples=80, deadline=None)
def test_a_changed_removed_or_swapped_row_breaks_the_chain(count, data):
    rows = rows_of(count)
    assert first_break(rows, after_seq=0, after_hash=ZERO_HASH) is None
    at = data.draw(st.integers(0, count - 2))
    how = data.draw(st.sampled_from(["context", "time", "action", "removed", "swapped"]))
    changed = list(rows)
    if how == "removed":
        del changed[at]
    elif how == "swapped":
        changed[at], changed[at + 1] = changed[at + 1], changed[at]
    else:
        values = {"context": {"n": -1}, "time": NOW + timedelta(seconds=1), "action": "validation_passed"}
        changed[at] = replace(changed[at], **{"at" if how == "time" else how: values[how]})

    assert first_break(changed, after_seq=0, after_hash=ZERO_HASH) is not None


def rule(action: str, **principles: float) -> Rule:
    return Rule(
        id=f"x.{action}", category="xx", action=action, principles=principles or {"truth": 1.0}, patterns=[["aa"]]
    )


def test_the_score_falls_by_the_specified_steps_and_not_below_zero():
    reading = read([rule("block"), rule("block"), rule("warn")], Thresholds())

    assert reading.score == 0.8
    assert read([rule("block")] * 13, Thresholds()).score == 0
    assert read([], Thresholds()).score == 1


def test_decisions_follow_the_rules_and_strictness():
    warned, blocked, clean = (read(rules, Thresholds()) for rules in ([rule("warn")], [rule("block")], []))

    assert [r.decision(strict=False) for r in (clean, warned, blocked)] == ["allow", "warn", "block"]
    assert [r.decision(strict=True) for r in (clean, warned, blocked)] == ["allow", "block", "block"]
    assert [result_of(d) for d in ("allow", "warn", "block")] == ["passed", "warning", "failed"]


def test_alignment_is_the_mean_of_input_and_output_and_a_concern_denies_it():
    clean, blocked = read([], Thresholds()), read([rule("block")], Thresholds())

    good = align(clean, clean, clean, Thresholds())
    bad = align(clean, blocked, clean, Thresholds())

    assert (good.aligned, good.score, good.concerns, good.recommendations) == (True, 1.0, [], [])
    assert (bad.aligned, bad.score) == (False, 0.96)
    assert bad.concerns == ["The output breaks x.block."]
    assert bad.recommendations


def test_principle_scores_follow_the_rule_map():
    scores = principle_scores([rule("block", truth=1.0, fairness=0.5)])

    assert set(scores) == set(PRINCIPLES)
    assert (scores["truth"], scores["fairness"], scores["alignment"], scores["wisdom"]) == (0.5, 0.75, 0.75, 1.0)


def test_a_matcher_of_an_odd_but_valid_policy_works():
    content = first_policy().content()
    content["vocabulary"] = {"aa": ["zeb*"]}
    content["except"], content["asks"] = ["zebra crossing"], []
    content["rules"] = [rule("block").model_dump()]
    matcher = Matcher(PolicyDocument.model_validate(content))

    assert [len(matcher.find(text)) for text in ("a zebra", "zebras!", "the zebra crossing", "xzebra")] == [1, 1, 0, 0]
