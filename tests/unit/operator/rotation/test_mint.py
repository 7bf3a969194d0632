"""Minting: complete, once, and never again."""

import base64
import hmac
import json
from datetime import timedelta
from typing import Any

import jwt
import pytest
from cryptography import x509
from hypothesis import given, settings
from hypothesis import strategies as st

from novacore_contracts.keyset import RingDocument
from novacore_contracts.services import SERVICES
from novacore_operator.rotation import forms, mint
from novacore_operator.state import PostgresAdmin, names
from tests.unit.operator.make import NOW, Chance, make_material, no_chance

SETTING = mint.Setting("test")
ROOT = names.root_secret("test")
SECRETS = sorted(make_material())


def document(material: Any, secret: str, entry: str) -> RingDocument:
    """Return a document, verified with the root key that the pods get."""
    root = json.loads(mint.root_jwks(material, "test"))["keys"][0]
    compact = material[secret][entry]
    header = jwt.get_unverified_header(compact)
    assert header == {"alg": "ES256", "kid": root["kid"], "typ": "novacore-ring+jws"}
    payload = jwt.api_jws.decode(compact, jwt.PyJWK(root), algorithms=["ES256"])
    return RingDocument.from_bytes(payload)


@pytest.mark.parametrize("ring", ["serviceJwt", "userJwt"])
def test_a_new_ring_has_an_active_key_and_a_standby_with_their_private_halves(ring: str) -> None:
    """MINT-2."""
    material = make_material()
    found = document(material, names.KEYSET, f"{ring}.jws")
    assert [(key.n, key.state) for key in found.keys] == [(1, "active"), (2, "pending")]
    assert (found.generation, found.seq) == (1, 2)
    secret = {"serviceJwt": names.SERVICE_JWT_PRIVATE, "userJwt": names.USER_JWT_PRIVATE}[ring]
    private = {json.loads(data)["kid"]: json.loads(data) for data in material[secret].values()}
    assert set(material[secret]) == {f"{ring}-1.jwk", f"{ring}-2.jwk"}
    for key in found.keys:
        assert "d" not in key.material
        signed = jwt.encode({"sub": "x"}, jwt.PyJWK(private[key.kid]), algorithm="ES256")
        assert jwt.decode(signed, jwt.PyJWK({**key.material, "kid": key.kid}), algorithms=["ES256"]) == {"sub": "x"}


def test_complete_material_is_returned_byte_for_byte() -> None:
    """MINT-1: and no chance is asked for."""
    material = make_material()
    again = mint.complete(material, SETTING, now=NOW + timedelta(days=100), entropy=no_chance)
    assert again == material


@given(st.sets(st.sampled_from(SECRETS)), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_whatever_is_lost_is_made_anew_once_and_the_rest_stays(lost: set[str], seed: int) -> None:
    """MINT-1, after any loss: sound again, stable, and no key that still exists is replaced."""
    material = make_material()
    left = {name: data for name, data in material.items() if name not in lost}
    mended = mint.complete(left, SETTING, now=NOW, entropy=Chance(f"loss{seed}"))
    assert mended.keys() == material.keys()
    assert mint.complete(mended, SETTING, now=NOW, entropy=no_chance) == mended
    for name in (names.SERVICE_JWT_PRIVATE, names.USER_JWT_PRIVATE, names.POLICY_PRIVATE, names.POSTGRES_ADMIN, ROOT):
        if name not in lost:
            assert mended[name] == material[name]
    for service in SERVICES:
        if names.creds(service.name) not in lost and service.role is not None:
            before = forms.payload_unverified(material[names.creds(service.name)]["postgres.jws"])
            after = forms.payload_unverified(mended[names.creds(service.name)]["postgres.jws"])
            assert before is not None
            assert after is not None
            assert before.active.material == after.active.material


def test_a_lost_document_comes_back_with_a_higher_generation_and_the_same_keys() -> None:
    """MINT-3."""
    material = make_material()
    before = document(material, names.KEYSET, "serviceJwt.jws")
    del material[names.KEYSET]
    after = document(mint.complete(material, SETTING, now=NOW, entropy=Chance("again")), names.KEYSET, "serviceJwt.jws")
    assert after.generation == int(NOW.timestamp()) > before.generation
    assert [(key.kid, key.state) for key in after.keys] == [(key.kid, key.state) for key in before.keys]


def test_lost_private_halves_leave_the_old_keys_trusted_until_their_tokens_end() -> None:
    material = make_material()
    before = document(material, names.KEYSET, "serviceJwt.jws")
    del material[names.SERVICE_JWT_PRIVATE]
    mended = mint.complete(material, SETTING, now=NOW, entropy=Chance("again"))
    after = document(mended, names.KEYSET, "serviceJwt.jws")
    assert after.generation == before.generation + 1
    assert [(key.n, key.state) for key in after.keys] == [(1, "retiring"), (3, "active"), (4, "pending")]


@pytest.mark.invariant("MINT-5")
def test_a_lost_private_half_is_left_to_the_rotation() -> None:
    material = make_material()
    before = material[names.KEYSET]
    del material[names.SERVICE_JWT_PRIVATE]["serviceJwt-1.jwk"]
    mended = mint.complete(material, SETTING, now=NOW, entropy=no_chance)
    assert mended[names.KEYSET] == before
    assert set(mended[names.SERVICE_JWT_PRIVATE]) == {"serviceJwt-2.jwk"}


@pytest.mark.parametrize(("ring", "seconds"), [("serviceJwt", 86_400), ("userJwt", 900)])
def test_a_document_says_how_long_its_tokens_live(ring: str, seconds: int) -> None:
    assert document(make_material(), names.KEYSET, f"{ring}.jws").ttl_max == seconds


def test_a_document_signed_by_somebody_else_brings_no_key_in() -> None:
    """MINT-4."""
    material, foreign = make_material(), mint.complete({}, SETTING, now=NOW, entropy=Chance("foreign"))
    material[names.KEYSET] = dict(foreign[names.KEYSET])
    mended = mint.complete(material, SETTING, now=NOW, entropy=Chance("x"))
    intruders = {key.kid for key in document(foreign, names.KEYSET, "serviceJwt.jws").keys}
    assert not intruders & {key.kid for key in document(mended, names.KEYSET, "serviceJwt.jws").keys}


def test_a_private_key_whose_halves_differ_is_not_kept() -> None:
    """MINT-4."""
    material = make_material()
    entry = json.loads(material[names.SERVICE_JWT_PRIVATE]["serviceJwt-1.jwk"])
    other = json.loads(material[names.USER_JWT_PRIVATE]["userJwt-1.jwk"])
    material[names.SERVICE_JWT_PRIVATE]["serviceJwt-1.jwk"] = forms.dumps(entry | {"d": other["d"]})
    mended = mint.complete(material, SETTING, now=NOW, entropy=Chance("x"))
    assert set(mended[names.SERVICE_JWT_PRIVATE]) == {"serviceJwt-2.jwk"}


def test_credentials_have_a_role_each_and_a_verifier_that_fits() -> None:
    material = make_material()
    roles = {role["name"]: role for role in json.loads(material[names.MIGRATE_CREDS]["roles.json"])["roles"]}
    for service in SERVICES:
        if service.role is None:
            assert "postgres.jws" not in material[names.creds(service.name)]
            continue
        login = document(material, names.creds(service.name), "postgres.jws").active.material
        assert login["user"] == f"{service.role}_a"
        assert login["sslmode"] == "verify-full"
        assert forms.scram_matches(roles[login["user"]]["scram"], login["password"])
        assert roles[login["user"]]["member_of"] == service.role
    assert "password" not in json.dumps([*roles.values()])


def test_all_services_hash_users_with_the_same_key() -> None:
    material = make_material()
    keys = {material[names.creds(service.name)]["log.key"] for service in SERVICES}
    assert len(keys) == 1
    assert len(keys.pop()) == 64


def test_scram_verifier_proves_the_server_of_rfc_7677() -> None:
    """The exchange of RFC 7677 section 3: the stored server key makes exactly the signature printed there."""
    salt, nonce = "W22ZaJ0SNY7soEsUEjb6gQ==", "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
    verifier = forms.scram_verifier("pencil", base64.b64decode(salt))
    assert verifier.startswith(f"SCRAM-SHA-256$4096:{salt}$")
    exchange = f"n=user,r=rOprNGfwEbeRWgbNEkqO,r={nonce},s={salt},i=4096,c=biws,r={nonce}"
    server_key = base64.b64decode(verifier.rpartition(":")[2])
    signature = hmac.digest(server_key, exchange.encode(), "sha256")
    assert base64.b64encode(signature) == b"6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="


@pytest.mark.parametrize(
    ("secret", "host"),
    [
        (names.POSTGRES_TLS, "novacore-postgres"),
        (names.REDIS_TLS, "novacore-redis"),
        (names.REDIS_CACHE_TLS, "novacore-redis-cache"),
    ],
)
def test_servers_have_certificates_for_their_names(secret: str, host: str) -> None:
    with_cache = mint.Setting("test", own_cache=True)
    material = mint.complete(make_material(), with_cache, now=NOW, entropy=Chance("cache"))
    leaf = x509.load_pem_x509_certificate(material[secret]["tls.crt"])
    authority = x509.load_pem_x509_certificate(material[names.CA_PRIVATE]["tls.crt"])
    verifier = x509.verification.PolicyBuilder().store(x509.verification.Store([authority])).time(NOW)
    for name in (host, f"{host}.test.svc", f"{host}.test.svc.cluster.local"):
        verifier.build_server_verifier(x509.DNSName(name)).verify(leaf, [])
    assert material[secret]["ca.crt"] == material[names.CA_PRIVATE]["tls.crt"]


def test_a_certificate_is_renewed_a_month_before_its_end_by_the_same_authority() -> None:
    material = make_material()
    later = mint.complete(material, SETTING, now=NOW + timedelta(days=340), entropy=Chance("renew"))
    assert later[names.POSTGRES_TLS]["tls.crt"] != material[names.POSTGRES_TLS]["tls.crt"]
    assert later[names.CA_PRIVATE] == material[names.CA_PRIVATE]


def test_an_external_postgres_keeps_passwords_and_changes_the_place() -> None:
    material = make_material()
    admin = PostgresAdmin("db.example.org", 5433, "root", "p" * 32, "nova", ca="CA")
    moved = mint.complete(material, mint.Setting("test", postgres=admin), now=NOW, entropy=Chance("x"))
    before = document(material, names.creds("memory"), "postgres.jws")
    after = document(moved, names.creds("memory"), "postgres.jws")
    assert after.generation == before.generation + 1
    assert after.active.material["host"] == "db.example.org"
    assert after.active.material["password"] == before.active.material["password"]
    assert names.POSTGRES_ADMIN not in moved


def test_a_provider_key_goes_to_intelligence_only_and_away_again() -> None:
    with_key = mint.complete(make_material(), mint.Setting("test", provider_key="sk-1"), now=NOW, entropy=Chance("x"))
    holders = [name for name, data in with_key.items() if "providers.jws" in data]
    assert holders == [names.creds("intelligence")]
    changed = mint.complete(with_key, mint.Setting("test", provider_key="sk-2"), now=NOW, entropy=Chance("x"))
    assert document(changed, holders[0], "providers.jws").generation == 2
    without = mint.complete(changed, SETTING, now=NOW, entropy=no_chance)
    assert "providers.jws" not in without[holders[0]]


def test_stripes_key_and_webhook_secret_go_to_auth_billing_only_and_away_again() -> None:
    given = mint.Setting("test", stripe=("rk_1", "whsec_1"))
    material = mint.complete(make_material(), given, now=NOW, entropy=Chance("x"))
    holders = {name for name, data in material.items() if {"stripeKey.jws", "stripeWebhook.jws"} & data.keys()}
    assert holders == {names.creds("auth-billing")}
    assert document(material, names.creds("auth-billing"), "stripeKey.jws").active.material == {"api_key": "rk_1"}
    assert document(material, names.creds("auth-billing"), "stripeWebhook.jws").active.material == {"secret": "whsec_1"}
    assert mint.complete(material, given, now=NOW, entropy=no_chance) == material
    changed = mint.complete(material, mint.Setting("test", stripe=("rk_1", "whsec_2")), now=NOW, entropy=no_chance)
    assert document(changed, names.creds("auth-billing"), "stripeKey.jws").generation == 1
    assert document(changed, names.creds("auth-billing"), "stripeWebhook.jws").generation == 2
    without = mint.complete(changed, SETTING, now=NOW, entropy=no_chance)
    assert not {"stripeKey.jws", "stripeWebhook.jws"} & without[names.creds("auth-billing")].keys()


def test_no_message_or_repr_shows_material() -> None:
    admin = PostgresAdmin("h", 1, "u", "canary-password", "d")
    setting = mint.Setting("test", postgres=admin, provider_key="canary-key", stripe=("canary-rk", "canary-whsec"))
    assert "canary" not in repr(setting)
    assert "canary" not in repr(document(make_material(), names.creds("memory"), "postgres.jws"))
