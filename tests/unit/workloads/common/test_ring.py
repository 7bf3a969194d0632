"""Canaries, denials, the cache, and the shared secret of a migration."""

from __future__ import annotations

import base64
import json
import time
from dataclasses import replace

import jwt
import pytest

from novacore.common.clock import SystemClock
from novacore.common.keyring import KeyRings, TokenError
from novacore.common.metrics import Metrics
from novacore.common.ring import CACHE_SECONDS, DocumentError, build_ring, read_legacy, verify
from novacore_contracts.identity import SERVICE_AUDIENCE
from novacore_contracts.keyset import Deny, Tombstone
from novacore_contracts.paths import Paths
from tests.kit.keys import Keys, legacy_entry, legacy_jwk, put, sign_legacy

KEYS = Keys()


def unix():
    return int(time.time())


def ring_of(**changes):
    document = KEYS.document("serviceJwt", **changes)
    return build_ring(document, KEYS.sign(document), via="mount", loaded_at=0)


def checked(ring, token, *, monotonic=0.0, ahead_s=0):
    return verify(ring, token, audience=SERVICE_AUDIENCE, now=unix() + ahead_s, monotonic=monotonic).claims


@pytest.fixture
def rings(tmp_path):
    KEYS.mount(Paths(tmp_path))
    rings = KeyRings(Paths(tmp_path), SystemClock(), Metrics("memory"))
    rings.poll()
    return rings


def results(rings, ring="serviceJwt"):
    names = ("ok", "expired", "unknown_kid", "retired", "bad")
    value = rings._metrics.value
    return {name: value("novacore_token_verifications_total", ring=ring, result=name) for name in names}


# --- canaries ---------------------------------------------------------------------------------------------------------


@pytest.mark.invariant("RING-6")
@pytest.mark.parametrize("ring", ["serviceJwt", "userJwt"])
def test_a_canary_is_taken_where_canaries_are_asked_for_and_nowhere_else(rings, ring):
    canary, kid = KEYS.canary(ring, key=KEYS.standby[ring]), KEYS.standby[ring].kid
    assert rings.verify_canary(ring, canary) == (kid, 1)

    with pytest.raises(TokenError, match="token_invalid"):
        rings.verify(ring, canary)
    assert rings.verify_canary(ring, canary) == (kid, 1), "the refusal elsewhere was remembered"


@pytest.mark.invariant("RING-6")
def test_any_other_token_proves_nothing(rings):
    with pytest.raises(TokenError, match="token_invalid"):
        rings.verify_canary("serviceJwt", KEYS.service_token("gateway"))


@pytest.mark.invariant("RING-6")
def test_a_canary_says_nothing_about_what_callers_use(rings):
    """An alert rests on the refusals of retired keys, and a retirement on `last_ok`."""
    before = results(rings)
    rings.verify_canary("serviceJwt", KEYS.canary("serviceJwt"))
    rings.push("serviceJwt", KEYS.sign(KEYS.switched("serviceJwt", generation=2, revoke=True)))
    with pytest.raises(TokenError, match="kid_revoked"):
        rings.verify_canary("serviceJwt", KEYS.canary("serviceJwt"))

    assert results(rings) == before
    assert rings.report()["serviceJwt"]["last_ok"] == {}


@pytest.mark.invariant("RING-6")
def test_a_revocation_is_proven_by_its_own_code(rings):
    """Any other refusal proves nothing: an expired canary is refused whether its key is revoked or not."""
    fresh, late = KEYS.canary("serviceJwt"), KEYS.canary("serviceJwt", ttl=-60)
    with pytest.raises(TokenError, match="token_expired"):
        rings.verify_canary("serviceJwt", late)

    rings.push("serviceJwt", KEYS.sign(KEYS.switched("serviceJwt", generation=2, revoke=True)))

    for canary in (fresh, late):
        with pytest.raises(TokenError, match="kid_revoked"):
            rings.verify_canary("serviceJwt", canary)


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("why", "code"), [("retired", "kid_retired"), ("revoked", "kid_revoked")])
def test_a_key_that_is_gone_says_why_and_is_counted_as_such(rings, why, code):
    document = KEYS.switched("serviceJwt", generation=2, revoke=True)
    stone = replace(document.tombstones[0], why=why)
    rings.push("serviceJwt", KEYS.sign(replace(document, tombstones=(stone,))))

    with pytest.raises(TokenError, match=code):
        rings.verify("serviceJwt", KEYS.service_token("gateway"))

    assert results(rings)["retired"] == 1
    text = rings._metrics.expose("application/openmetrics-text")[0].decode()
    assert f'# {{kid="{stone.kid}"}}' in text, "the key is told as an exemplar, never as a label"


def test_of_several_denials_of_one_subject_the_latest_holds():
    deny = (Deny(sub="memory", iat_before=unix() + 5), Deny(sub="memory", iat_before=unix() - 500))

    with pytest.raises(TokenError, match="denied"):
        checked(ring_of(deny=deny), KEYS.service_token("memory"))


def test_a_token_issued_in_the_second_of_the_denial_is_a_new_one():
    second = unix()
    token = KEYS.service_token("memory", iat=second)

    assert checked(ring_of(deny=(Deny(sub="memory", iat_before=second),)), token)


def test_a_denial_is_counted_with_what_is_refused_for_a_reason(rings):
    rings.push("serviceJwt", KEYS.sign(KEYS.document("serviceJwt", generation=2, deny=(Deny(jti="bad"),))))
    with pytest.raises(TokenError, match="denied"):
        rings.verify("serviceJwt", KEYS.service_token("memory", jti="bad"))

    assert results(rings)["retired"] == 1


@pytest.mark.parametrize("place", [0, 1, 2])
def test_characters_that_no_token_has_are_refused(place):
    """A lone surrogate can come in JSON, and is no UTF-8."""
    ring, parts = ring_of(), KEYS.service_token("gateway").split(".")
    checked(ring, ".".join(parts))  # its header is known from now on
    parts[place] += "\ud800"

    with pytest.raises(TokenError, match="token_invalid"):
        checked(ring, ".".join(parts))


def test_a_jti_that_is_no_text_is_refused():
    with pytest.raises(TokenError, match="token_invalid"):
        checked(ring_of(deny=(Deny(jti="x"),)), KEYS.service_token("gateway", jti=["x"]))


# --- the cache --------------------------------------------------------------------------------------------------------


@pytest.mark.invariant("RING-5")
def test_a_denial_is_looked_at_again_at_each_hit():
    ring, token = ring_of(), KEYS.service_token("memory", jti="one")
    checked(ring, token)
    for deny in (Deny(sub="memory", iat_before=unix() + 5), Deny(jti="one")):
        denying = replace(ring_of(deny=(deny,)), cache=ring.cache)
        assert token in denying.cache
        with pytest.raises(TokenError, match="denied"):
            checked(denying, token)


@pytest.mark.invariant("RING-5")
def test_the_end_is_looked_at_again_at_each_hit():
    ring, token = ring_of(), KEYS.service_token("memory", ttl=100)
    assert checked(ring, token)

    assert checked(ring, token, ahead_s=120), "within the leeway"
    with pytest.raises(TokenError, match="token_expired"):
        checked(ring, token, ahead_s=135)


@pytest.mark.invariant("RING-5")
def test_after_five_minutes_the_signature_is_checked_again_whatever_the_wall_clock_says():
    ring, token = ring_of(), KEYS.service_token("memory")
    checked(ring, token)
    ring.keys.clear()
    assert checked(ring, token, monotonic=CACHE_SECONDS - 1)

    with pytest.raises(TokenError, match="kid_unknown"):
        checked(ring, token, monotonic=CACHE_SECONDS, ahead_s=-20)
    assert token not in ring.cache


@pytest.mark.invariant("RING-5")
def test_nothing_refused_is_cached():
    ring = ring_of()
    tokens = [
        KEYS.service_token("memory", aud="else"),
        KEYS.service_token("memory", ttl=-90),
        KEYS.user_token(),
        "a.b.c",
    ]
    for token in (*tokens, KEYS.canary("serviceJwt")):
        with pytest.raises(TokenError):
            checked(ring, token)

    assert ring.cache == {}


def test_r28_no_hit_for_a_revoked_key(rings):
    tokens = [KEYS.service_token("memory", jti=str(number)) for number in range(500)]
    for _ in range(2):
        for token in tokens:
            rings.verify("serviceJwt", token)
    assert len(rings.ring("serviceJwt").cache) == 500, "none of them would have been a hit"

    rings.push("serviceJwt", KEYS.sign(KEYS.switched("serviceJwt", generation=2, revoke=True)))

    refused = 0
    for token in tokens:
        with pytest.raises(TokenError, match="kid_revoked"):
            rings.verify("serviceJwt", token)
        refused += 1
    assert (refused, results(rings)["ok"], results(rings)["retired"]) == (500, 1000, 500)


# --- the shared secret of a migration ---------------------------------------------------------------------------------

SECRET = b"0123456789abcdef" * 2


def with_legacy(state="active", **changes):
    """A document while the shared secret lasts: it signs, or it retires."""
    active, standby = KEYS.document("serviceJwt").keys
    keys = {
        "active": (legacy_entry("active", n=3), replace(active, state="retiring"), standby),
        "retiring": (active, legacy_entry("retiring", n=3)),
    }[state]
    active_kid = next(key.kid for key in keys if key.state == "active")
    return KEYS.document("serviceJwt", generation=2, seq=3, keys=keys, active_kid=active_kid, **changes)


@pytest.fixture
def migrating(rings):
    put(rings._paths.service_jwt_legacy / "legacy.jwk", legacy_jwk(SECRET))
    put(rings._paths.keyset / "serviceJwt.jws", KEYS.sign(with_legacy()))
    rings.poll()
    return rings


def forged(alg, **header):
    """A token signed with the public key's bytes, or unsigned, under a header of the thief's choice."""
    import hashlib
    import hmac

    def part(data):
        return base64.urlsafe_b64encode(json.dumps(data).encode()).rstrip(b"=").decode()

    payload = jwt.decode(KEYS.service_token("gateway"), options={"verify_signature": False})
    head = f"{part({'alg': alg, **header})}.{part(payload)}"
    mac = hmac.new(json.dumps(KEYS.active["serviceJwt"].jwk).encode(), head.encode(), hashlib.sha256).digest()
    return f"{head}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}" if alg != "none" else f"{head}."


def test_a_token_of_the_shared_secret_is_accepted_with_its_kid_and_without(migrating):
    assert migrating.verify("serviceJwt", sign_legacy(KEYS, SECRET, "memory"))["sub"] == "memory"
    assert migrating.verify("serviceJwt", sign_legacy(KEYS, SECRET, "memory", kid="legacy"))["sub"] == "memory"
    assert migrating.verify("serviceJwt", KEYS.service_token("memory"))
    assert list(migrating.report()["serviceJwt"]["last_ok"]) == ["legacy", KEYS.active["serviceJwt"].kid]


@pytest.mark.invariant("RING-3")
@pytest.mark.parametrize(
    ("alg", "header"),
    [
        ("none", {}),
        ("none", {"kid": "legacy"}),
        ("HS512", {"kid": "legacy"}),
        ("HS256", {"kid": KEYS.active["serviceJwt"].kid}),
        ("HS256", {"kid": "legacy"}),
        ("HS256", {}),
        ("ES256", {"kid": "legacy"}),
        ("ES256", {}),
    ],
)
def test_no_header_chooses_another_algorithm_than_the_keys(migrating, alg, header):
    with pytest.raises(TokenError, match="token_invalid"):
        migrating.verify("serviceJwt", forged(alg, **header))


@pytest.mark.invariant("RING-3")
def test_an_es256_signature_under_the_shared_secrets_name_is_refused(migrating):
    token = KEYS.service_token("gateway")
    claims = jwt.decode(token, options={"verify_signature": False})
    for headers in ({"kid": "legacy"}, {}):
        named = jwt.encode(claims, KEYS.active["serviceJwt"].private, algorithm="ES256", headers=headers)
        with pytest.raises(TokenError, match="token_invalid"):
            migrating.verify("serviceJwt", named)


def test_the_secret_is_used_from_when_it_is_mounted_in_either_order(rings):
    rings.push("serviceJwt", KEYS.sign(with_legacy()))
    with pytest.raises(TokenError, match="kid_unknown"):
        rings.verify("serviceJwt", sign_legacy(KEYS, SECRET, "memory", kid="legacy"))
    assert "legacy" not in rings.report()["serviceJwt"]["kids"]

    put(rings._paths.service_jwt_legacy / "legacy.jwk", legacy_jwk(SECRET))
    assert rings.poll()

    assert rings.verify("serviceJwt", sign_legacy(KEYS, SECRET, "memory"))
    assert "legacy" in rings.report()["serviceJwt"]["kids"]
    assert rings.ring("serviceJwt").document.generation == 2


def test_after_its_end_a_token_of_the_shared_secret_is_told_so(migrating):
    token = sign_legacy(KEYS, SECRET, "memory")
    assert migrating.verify("serviceJwt", token)
    stone = Tombstone("legacy", "retired", unix() + 3600)
    migrating.push("serviceJwt", KEYS.sign(KEYS.document("serviceJwt", generation=3, seq=3, tombstones=(stone,))))

    for refused in (token, sign_legacy(KEYS, SECRET, "memory", kid="legacy")):
        with pytest.raises(TokenError, match="kid_retired"):
            migrating.verify("serviceJwt", refused)

    migrating.push("serviceJwt", KEYS.sign(KEYS.document("serviceJwt", generation=4, seq=3)))
    with pytest.raises(TokenError, match="token_invalid"):
        migrating.verify("serviceJwt", token)  # a token without a kid is nobody's again


def test_a_secret_that_vanishes_too_early_refuses_nobody(migrating):
    (migrating._paths.service_jwt_legacy / "legacy.jwk").unlink()
    migrating.poll()

    assert migrating.verify("serviceJwt", sign_legacy(KEYS, SECRET, "memory"))


@pytest.mark.parametrize(
    "jwk",
    [b"", b"{}", legacy_jwk(b"short"), legacy_jwk(SECRET, kty="EC"), legacy_jwk(SECRET, alg="HS512"), b'{"k": 5}'],
)
def test_a_secret_that_is_none_is_refused(jwk):
    with pytest.raises(DocumentError):
        read_legacy(jwk)


def test_the_shared_secret_is_no_key_of_the_users(tmp_path):
    active = replace(KEYS.document("userJwt").keys[0], state="active")
    document = KEYS.document("userJwt", seq=3, keys=(active, legacy_entry("retiring", n=3)))

    with pytest.raises(DocumentError):
        build_ring(document, b"", via="mount", loaded_at=0, legacy=read_legacy(legacy_jwk(SECRET)))


def test_an_entry_that_pins_another_algorithm_is_refused():
    entry = legacy_entry("retiring", n=3)
    other = replace(entry, material=entry.material | {"alg": "HS512"})

    with pytest.raises(DocumentError, match="pinned"):
        ring_of(seq=3, keys=(KEYS.document("serviceJwt").keys[0], other))
