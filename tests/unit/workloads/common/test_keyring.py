"""The verifier under attack, and what a ring never does."""

from __future__ import annotations

import base64
import json
import time
from datetime import UTC, datetime, timedelta

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacore.common.keyring import DocumentError, KeyRings, TokenError
from novacore.common.metrics import Metrics
from novacore.common.ring import CACHE_ENTRIES_MAX, Verified, build_ring, verify
from novacore_contracts.identity import ISSUER, SERVICE_AUDIENCE
from novacore_contracts.keyset import Deny
from novacore_contracts.paths import Paths
from tests.kit.keys import Keys, SigningKey, put

KEYS = Keys()


class MovedClock:
    """A clock the test moves."""

    def __init__(self) -> None:
        self.shift = timedelta()

    def now(self):
        return datetime.now(UTC) + self.shift

    def monotonic(self):
        return time.monotonic()


@pytest.fixture
def clock():
    return MovedClock()


@pytest.fixture
def paths(tmp_path):
    return Paths(tmp_path)


@pytest.fixture
def rings(paths, clock):
    KEYS.mount(paths)
    rings = KeyRings(paths, clock, Metrics("memory"))
    rings.poll()
    return rings


def code(rings, token, ring="serviceJwt"):
    with pytest.raises(TokenError) as caught:
        rings.verify(ring, token)
    return caught.value.code


def segment(data):
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def with_header(token, **changes):
    """The same token with another header and its old signature."""
    head, payload, signature = token.split(".")
    header = json.loads(base64.urlsafe_b64decode(head + "=="))
    return f"{segment(header | changes)}.{payload}.{signature}"


def claims(**changes):
    now = int(time.time())
    body = {
        "iss": ISSUER, "aud": SERVICE_AUDIENCE, "sub": "gateway", "permissions": [], "iat": now, "exp": now + 60,
    } | changes  # fmt: skip
    return {name: value for name, value in body.items() if value is not ...}


def signed(body, key=None, **header):
    key = key or KEYS.active["serviceJwt"]
    return jwt.encode(body, key.private, algorithm="ES256", headers={"kid": key.kid, **header})


def test_accepts_a_token_of_the_active_and_of_the_standby_key(rings):
    for key in (KEYS.active["serviceJwt"], KEYS.standby["serviceJwt"]):
        assert rings.verify("serviceJwt", KEYS.service_token("gateway", key=key))["sub"] == "gateway"


# --- attacks --------------------------------------------------------------------------------------------------------


def test_refuses_alg_none(rings):
    kid = KEYS.active["serviceJwt"].kid
    for alg in ("none", "None", "NONE"):
        assert code(rings, f"{segment({'alg': alg, 'kid': kid})}.{segment(claims())}.") == "token_invalid"


@pytest.mark.invariant("RING-3")
def test_refuses_hmac_keyed_with_the_public_key(rings):
    import hashlib
    import hmac

    key = KEYS.active["serviceJwt"]
    material = json.dumps(key.jwk).encode()
    head = f"{segment({'alg': 'HS256', 'kid': key.kid})}.{segment(claims())}"
    forged = f"{head}.{segment(hmac.new(material, head.encode(), hashlib.sha256).digest())}"

    assert code(rings, forged) == "token_invalid"


@pytest.mark.invariant("RING-3")
@pytest.mark.parametrize("alg", ["ES384", "RS256", "EdDSA", "PS256", "HS512", "", 5, None])
def test_refuses_any_algorithm_but_the_keys_own(rings, alg):
    assert code(rings, with_header(KEYS.service_token("gateway"), alg=alg)) == "token_invalid"


def test_refuses_a_token_without_exp_iat_or_sub(rings):
    for name in ("exp", "iat", "sub", "iss", "aud"):
        assert code(rings, signed(claims(**{name: ...}))) == "token_invalid"


def test_refuses_a_life_longer_than_the_rings(rings):
    assert code(rings, KEYS.service_token("gateway", ttl=86_401)) == "token_invalid"
    assert rings.verify("serviceJwt", KEYS.service_token("gateway", ttl=86_400))


def test_refuses_another_issuer_and_another_audience(rings):
    assert code(rings, signed(claims(iss="someone"))) == "token_invalid"
    assert code(rings, signed(claims(aud="novacore-api"))) == "token_invalid"
    assert code(rings, signed(claims(aud=[SERVICE_AUDIENCE, "novacore-api"]))) == "token_invalid"


def test_refuses_a_user_token_as_a_service_token_and_the_other_way_round(rings):
    assert code(rings, KEYS.user_token()) == "kid_unknown"
    assert code(rings, KEYS.user_token(key=KEYS.active["serviceJwt"])) == "token_invalid"
    assert code(rings, KEYS.service_token("gateway"), ring="userJwt") == "kid_unknown"


@pytest.mark.invariant("RING-4")
def test_refuses_an_unknown_and_a_missing_kid(rings):
    assert code(rings, KEYS.service_token("gateway", key=SigningKey("svc-"))) == "kid_unknown"
    assert code(rings, with_header(KEYS.service_token("gateway"), kid=None)) == "token_invalid"
    assert code(rings, with_header(KEYS.service_token("gateway"), kid=["a"])) == "token_invalid"


def test_refuses_a_known_kid_with_a_strangers_signature(rings):
    assert code(rings, signed(claims(), key=SigningKey("svc-"), kid=KEYS.active["serviceJwt"].kid)) == "token_invalid"


def test_refuses_crit(rings):
    assert code(rings, signed(claims(), crit=["exp"])) == "token_invalid"
    assert code(rings, signed(claims(), crit=[])) == "token_invalid"


def test_ignores_keys_that_the_token_brings_along(rings):
    thief = SigningKey("svc-")
    forged = signed(
        claims(), key=thief, jwk=thief.jwk, jku="http://attacker.example/jwks", x5u="http://attacker.example"
    )

    assert code(rings, forged) == "kid_unknown"


def test_refuses_a_token_over_8_kib(rings):
    assert code(rings, signed(claims(filler="x" * 8192))) == "token_invalid"


def test_refuses_a_token_from_the_future(rings):
    now = int(time.time())
    assert code(rings, signed(claims(iat=now + 120, exp=now + 200))) == "token_invalid"
    assert code(rings, signed(claims(nbf=now + 120))) == "token_invalid"


@pytest.mark.parametrize("value", ["1", 1.5, True, None, -5, [1], 1 << 60])
def test_refuses_times_that_are_no_unix_seconds(rings, value):
    assert code(rings, signed(claims(iat=value))) == "token_invalid"
    assert code(rings, signed(claims(exp=value))) in ("token_invalid", "token_expired")


def test_refuses_an_expired_token_after_the_leeway(rings):
    assert rings.verify("serviceJwt", KEYS.service_token("gateway", ttl=-20))
    assert code(rings, KEYS.service_token("gateway", ttl=-40)) == "token_expired"


def test_refuses_a_denied_jti_and_tokens_issued_before_a_denial(rings, paths):
    now = int(time.time())
    document = KEYS.document("serviceJwt", generation=2, deny=(Deny(jti="bad"), Deny(sub="memory", iat_before=now + 5)))
    rings.push("serviceJwt", KEYS.sign(document))

    assert code(rings, KEYS.service_token("gateway", jti="bad")) == "denied"
    assert code(rings, KEYS.service_token("memory")) == "denied"
    assert rings.verify("serviceJwt", KEYS.service_token("gateway"))


@given(st.text(max_size=300))
def test_refuses_any_other_text(text):
    rings = KeyRings(Paths(Paths("/nowhere").root), MovedClock(), Metrics("memory"), rings=("serviceJwt",))
    rings._roots = {"r": None}
    with pytest.raises(TokenError):
        rings.verify("serviceJwt", text)


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_no_header_or_payload_breaks_the_parser(header, payload):
    document = KEYS.document("serviceJwt")
    ring = build_ring(document, b"", via="mount", loaded_at=0)
    with pytest.raises(TokenError):
        verify(
            ring, f"{segment(header)}.{segment(payload)}.AAAA", audience=SERVICE_AUDIENCE, now=time.time(), monotonic=0
        )


# --- the cache ------------------------------------------------------------------------------------------------------


def test_a_cached_token_still_expires(rings, clock):
    token = KEYS.service_token("gateway", ttl=60)
    rings.verify("serviceJwt", token)
    clock.shift = timedelta(seconds=100)

    assert code(rings, token) == "token_expired"


def test_a_new_ring_forgets_what_the_old_one_verified(rings):
    token = KEYS.service_token("gateway")
    rings.verify("serviceJwt", token)
    rings.push("serviceJwt", KEYS.sign(KEYS.switched("serviceJwt", generation=2, revoke=True)))

    assert code(rings, token) == "kid_revoked"


def test_the_cache_is_bounded(rings):
    ring = rings.ring("serviceJwt")
    for number in range(CACHE_ENTRIES_MAX):
        ring.cache[f"t{number}"] = Verified({}, "k", until=0.0, ends=0.0)
    rings.verify("serviceJwt", KEYS.service_token("gateway"))

    assert len(ring.cache) <= CACHE_ENTRIES_MAX


# --- documents ------------------------------------------------------------------------------------------------------


@pytest.mark.invariant("RING-1")
def test_keeps_the_highest_generation_whatever_is_mounted(rings, paths):
    put(paths.keyset / "serviceJwt.jws", KEYS.sign(KEYS.switched("serviceJwt", generation=5)))
    rings.poll()
    put(paths.keyset / "serviceJwt.jws", KEYS.sign(KEYS.document("serviceJwt", generation=4)))
    rings.poll()

    assert rings.ring("serviceJwt").document.generation == 5


@pytest.mark.invariant("RING-1")
def test_a_restart_on_a_stale_mount_cannot_revive_a_revoked_key(rings, paths, clock):
    rings.push("serviceJwt", KEYS.sign(KEYS.switched("serviceJwt", generation=2, revoke=True)))
    again = KeyRings(paths, clock, Metrics("memory"))  # the mount still holds generation 1
    again.poll()

    assert again.ring("serviceJwt").document.generation == 2
    assert again.ring("serviceJwt").via == "disk"
    assert code(again, KEYS.service_token("gateway")) == "kid_revoked"


@pytest.mark.invariant("RING-2")
@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"not a jws",
        KEYS.sign(KEYS.document("serviceJwt", generation=9), root=SigningKey("root-")),
        KEYS.sign(KEYS.document("serviceJwt", generation=9), typ="JWT"),
        KEYS.sign(KEYS.document("userJwt", generation=9)),
        KEYS.sign(KEYS.document("serviceJwt", generation=9))[:-4] + b"AAAA",
        b"x" * 200_000,
    ],
    ids=["empty", "text", "stranger", "typ", "other ring", "signature", "size"],
)
def test_a_bad_document_is_counted_and_the_good_one_stays(rings, paths, bad):
    put(paths.keyset / "serviceJwt.jws", bad)
    rings.poll()

    assert rings.ring("serviceJwt").document.generation == 1
    assert rings.verify("serviceJwt", KEYS.service_token("gateway"))
    assert rings._metrics.value("novacore_keyset_load_errors_total", ring="serviceJwt") >= 1
    with pytest.raises(DocumentError):
        rings.push("serviceJwt", bad)


@pytest.mark.invariant("RING-2")
def test_a_vanished_mount_clears_nothing(rings, paths):
    (paths.keyset / "serviceJwt.jws").unlink()
    rings.poll()

    assert rings.ready


def test_sees_the_kubelets_swap_of_the_data_link(tmp_path, clock):
    paths = Paths(tmp_path)
    put(paths.keyset_root / "root.jwks", KEYS.root_jwks())
    for number, generation in (("1", 1), ("2", 2)):
        put(
            paths.keyset / f"..{number}" / "serviceJwt.jws",
            KEYS.sign(KEYS.document("serviceJwt", generation=generation)),
        )
    link = paths.keyset / "..data"
    link.symlink_to("..1")
    (paths.keyset / "serviceJwt.jws").symlink_to("..data/serviceJwt.jws")
    rings = KeyRings(paths, clock, Metrics("memory"), rings=("serviceJwt",))
    assert rings.poll()
    assert not rings.poll()

    swapped = paths.keyset / "..data_tmp"
    swapped.symlink_to("..2")
    swapped.replace(link)

    assert rings.poll()
    assert rings.ring("serviceJwt").document.generation == 2


def test_a_credential_document_reloads_and_tells_its_listeners(rings, paths):
    seen = []
    rings.on_change(seen.append)
    put(paths.creds / "postgres.jws", KEYS.sign(KEYS.credential("postgres", {"user": "a"})))
    rings.poll()
    put(paths.creds / "postgres.jws", KEYS.sign(KEYS.credential("postgres", {"user": "b"}, generation=2)))
    rings.poll()

    assert seen == ["postgres", "postgres"]
    assert rings.material("postgres") == {"user": "b"}
    assert "b" not in repr(rings.credential("postgres")).split("since")[1]


def test_reports_what_it_holds_and_which_key_it_last_saw(rings):
    rings.verify("serviceJwt", KEYS.service_token("gateway"))
    report = rings.report()["serviceJwt"]

    assert report["generation"] == 1
    assert report["active_kid"] == KEYS.active["serviceJwt"].kid
    assert set(report["kids"]) == {KEYS.active["serviceJwt"].kid, KEYS.standby["serviceJwt"].kid}
    assert list(report["last_ok"]) == [KEYS.active["serviceJwt"].kid]
