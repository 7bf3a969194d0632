"""What the operator reads of a pod's claims, and what it signs to ask and to test."""

from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacore_contracts.keyset import CANARY_REQUEST_TYPE, CanaryRequest
from novacore_operator.rotation import claims, forms
from tests.unit.operator.make import Chance

NOW = 1_790_000_000.0
ROOT = forms.es256_jwk(forms.new_p256(Chance("root")), prefix="root-", n=1)
HALF = forms.es256_jwk(forms.new_p256(Chance("half")), prefix="svc-", n=3)


def said(**changes: Any) -> dict[str, Any]:
    """Return the body of an auth-billing's `/readyz`, as docs and services have it."""
    ring = {
        "generation": 42,
        "sha256": "…",
        "active_kid": "svc-a",
        "kids": ["svc-a", "svc-b"],
        "loaded_at": 1,
        "via": "push",
        "last_ok": {"svc-a": 7},
    }
    signer = {"serviceJwt": {"kids": ["svc-a"], "active_since": 5}}
    body = {"status": "ready", "rings": {"serviceJwt": ring}, "token_kid": "svc-a", "clock": int(NOW), "signer": signer}
    return body | changes


def report(body: Any, *, at: float = NOW + 0.5) -> Any:
    return claims.report_of(body, "serviceJwt", asked_at=at - 0.01, answered_at=at + 0.01)


def test_a_pods_claims_are_read() -> None:
    found = report(said())
    assert (found.generation, found.active_kid, found.kids) == (42, "svc-a", {"svc-a", "svc-b"})
    assert (found.last_ok, found.token_kid, found.skew_s) == ({"svc-a": 7.0}, "svc-a", 0.0)
    assert (found.signer_kids, found.active_since) == ({"svc-a"}, 5.0)


def test_a_pod_that_signs_nothing_claims_no_private_half() -> None:
    body = said()
    del body["signer"]
    found = report(body)
    assert (found.signer_kids, found.active_since) == (frozenset(), None)


def test_a_signer_that_cannot_sign_yet_has_no_time() -> None:
    body = said(signer={"serviceJwt": {"kids": [], "active_since": None}})
    assert report(body).active_since is None


@pytest.mark.parametrize(("clock", "skew"), [(0, 0.0), (1, 0.5), (-1, -0.5), (31, 30.5), (-40, -39.5)])
def test_a_clock_that_tells_whole_seconds_is_right_within_its_second(clock: int, skew: float) -> None:
    assert report(said(clock=int(NOW) + clock)).skew_s == pytest.approx(skew)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["rings", "serviceJwt", "kids", "clock", "signer", "generation"]), inner)
        ),
        max_leaves=8,
    )
)
def test_nothing_that_a_stranger_answers_is_a_claim_or_an_error(body: Any) -> None:
    assert report(body) is None


def test_a_request_for_a_canary_is_signed_by_the_root_key_and_ends_soon() -> None:
    compact = claims.canary_request("serviceJwt", "svc-b", ROOT, now=NOW)
    assert jwt.get_unverified_header(compact)["typ"] == CANARY_REQUEST_TYPE
    payload = jwt.api_jws.decode(compact, jwt.PyJWK(forms.public_material(ROOT)), algorithms=["ES256"])
    asked = CanaryRequest.from_bytes(payload)
    assert asked == CanaryRequest("serviceJwt", "svc-b", int(NOW) + 30)


def test_a_canary_of_a_revoked_key_is_a_token_that_only_its_kid_can_have_refused() -> None:
    token = claims.canary("serviceJwt", HALF, now=NOW, ttl_max_s=10)
    found = jwt.decode(
        token,
        jwt.PyJWK(forms.public_material(HALF)),
        algorithms=["ES256"],
        audience="novacore-services",
        options={"verify_exp": False, "verify_iat": False},
    )
    assert (found["sub"], found["permissions"], found["exp"] - found["iat"]) == ("canary", [], 10)
    assert jwt.get_unverified_header(token)["kid"] == HALF["kid"]
