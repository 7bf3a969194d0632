"""The ring document refuses what a rotation must never write."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacore_contracts.keyset import Deny, RingDocument, RingDocumentError, RingKey, Tombstone, thumbprint


def key(n, state, kid=None):
    return RingKey(kid or f"svc-{n}", n, state, 0, {"kty": "EC"})


def document(*keys, **changes):
    values = {"ring": "serviceJwt", "generation": 1, "seq": 9, "issued_at": 0, "active_kid": "svc-1", "keys": keys}
    return RingDocument(**(values | changes))


GOOD = document(key(1, "active"), key(2, "pending"))


def test_survives_the_wire():
    assert RingDocument.from_bytes(GOOD.to_bytes()) == GOOD


@pytest.mark.invariant("KEYSET-1")
@pytest.mark.parametrize("keys", [(), (key(1, "pending"),), (key(1, "active"), key(2, "active")), (key(2, "active"),)])
def test_exactly_one_key_is_active_and_named(keys):
    with pytest.raises(RingDocumentError, match="exactly one active"):
        document(*keys)


@pytest.mark.invariant("KEYSET-2")
def test_at_most_one_key_is_pending():
    with pytest.raises(RingDocumentError, match="pending"):
        document(key(1, "active"), key(2, "pending"), key(3, "pending"))


@pytest.mark.invariant("KEYSET-3")
def test_at_most_four_keys_are_trusted():
    with pytest.raises(RingDocumentError, match="at most 4"):
        document(key(1, "active"), *(key(n, "retiring") for n in range(2, 6)))


@pytest.mark.invariant("KEYSET-4")
def test_key_ids_and_numbers_are_unique():
    with pytest.raises(RingDocumentError, match="twice"):
        document(key(1, "active"), key(1, "retiring", kid="svc-x"))
    with pytest.raises(RingDocumentError, match="twice"):
        document(key(1, "active"), key(2, "retiring", kid="svc-1"))


@pytest.mark.parametrize("change", [{"generation": 0}, {"leeway": -1}, {"leeway": 301}, {"ttl_max": 0}, {"seq": 1}])
def test_numbers_out_of_range_are_refused(change):
    with pytest.raises(RingDocumentError):
        replace(GOOD, **change)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda x: st.lists(x) | st.dictionaries(st.text(max_size=5), x),
        max_leaves=8,
    )
)
def test_any_other_json_is_refused(data):
    with pytest.raises(RingDocumentError):
        RingDocument.from_bytes(json.dumps(data).encode())


def test_a_large_document_is_refused_before_it_is_parsed():
    with pytest.raises(RingDocumentError, match="at most 65536"):
        RingDocument.from_bytes(b"[" * 70_000)


def test_material_is_not_printed():
    assert "kty" not in repr(GOOD)


def test_thumbprint_is_rfc_7638():
    """RFC 8037 appendix A.3."""
    jwk = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}

    assert thumbprint(jwk) == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


@pytest.mark.invariant("KEYSET-5")
@pytest.mark.parametrize("member", ["d", "k", "p", "q", "dp", "dq", "qi", "oth"])
@pytest.mark.parametrize("ring", ["serviceJwt", "userJwt"])
def test_a_public_document_holds_no_secret_key_bytes(ring, member):
    leaking = RingKey("svc-1", 1, "active", 0, {"kty": "EC", member: "c2VjcmV0"})

    with pytest.raises(RingDocumentError, match="secret key bytes") as caught:
        document(leaking, ring=ring)
    assert "c2VjcmV0" not in str(caught.value)


@pytest.mark.invariant("KEYSET-6")
@pytest.mark.parametrize(
    "deny",
    [Deny(), Deny(sub="memory"), Deny(sub="memory", iat_before=0), Deny(jti=""), Deny(sub="a", iat_before=5, jti="b")],
)
def test_a_denial_that_is_none_or_two_is_refused(deny):
    with pytest.raises(RingDocumentError, match="denial"):
        replace(GOOD, deny=(deny,))


def test_denials_and_tombstones_survive_the_wire():
    whole = replace(
        GOOD,
        deny=(Deny(sub="memory", iat_before=7), Deny(jti="x"), Deny(jti="y", iat_before=7)),
        tombstones=(Tombstone("svc-0", "revoked", 9), Tombstone("legacy", "retired", 9)),
    )

    assert RingDocument.from_bytes(whole.to_bytes()) == whole


@pytest.mark.parametrize(
    "change",
    [
        {"deny": [{"sub": "memory", "iat_before": "7"}]},
        {"deny": [{"sub": 5, "iat_before": 7}]},
        {"deny": [{"jti": ["x"]}]},
        {"deny": [{"jti": "x", "more": 1}]},
        {"deny": {"jti": "x"}},
        {"tombstones": [{"kid": "a", "why": "lost", "until": 1}]},
        {"tombstones": [{"kid": "a", "why": ["revoked"], "until": 1}]},
        {"tombstones": [{"kid": 5, "why": "revoked", "until": 1}]},
        {"tombstones": [{"kid": "a", "why": "revoked", "until": 1.5}]},
        {"generation": "2"},
        {"generation": True},
        {"generation": 1.5},
        {"ttl_max": 86400.0},
        {"leeway": "30"},
        {"renew_now": "yes"},
        {"ring": 5},
        {"active_kid": None},
    ],
)
def test_values_of_another_type_are_refused_when_read_and_not_when_used(change):
    data = json.loads(GOOD.to_bytes()) | change

    with pytest.raises(RingDocumentError):
        RingDocument.from_bytes(json.dumps(data).encode())
