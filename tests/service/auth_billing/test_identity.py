"""Service tokens by TokenReview, canaries, public keys, and what happens when keys change."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest

from novacore.auth_billing import admin
from novacore.common.callers import read_user
from novacore_contracts.identity import PERMISSIONS
from novacore_contracts.keyset import CANARY_REQUEST_TYPE, JWS_TYPE
from tests.kit.keys import SigningKey, legacy_entry, legacy_jwk, put
from tests.service.auth_billing.conftest import PASSWORD, claims_of


@pytest.fixture
def ask(auth):
    """`answer = await ask(projected_token, min_generation=…)`."""

    async def post(token, **body):
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return await auth.internal.post("/internal/token", json=body, headers=headers)

    return post


async def test_a_pod_gets_a_token_with_its_services_permissions(auth, ask, api_server):
    answer = await ask(api_server.projected_token("novacore-intelligence"), min_generation=1)

    body = answer.json()
    assert answer.status_code == 200
    assert (body["expires_in"], body["generation"]) == (86_400, 1)
    claims = auth.platform.keyrings.verify("serviceJwt", body["token"])
    assert claims.keys() == {"iss", "aud", "sub", "permissions", "iat", "nbf", "exp", "jti"}
    assert claims["sub"] == "intelligence"
    assert frozenset(claims["permissions"]) == PERMISSIONS["intelligence"]
    assert claims["iat"] - claims["nbf"] == 10


async def test_the_review_asks_for_our_audience_with_our_own_token(ask, api_server):
    token = api_server.projected_token("novacore-memory")

    await ask(token)

    assert api_server.reviews == [
        {
            "authorization": "Bearer auth-billings-own-token",
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": ["novacore-auth"]},
        }
    ]


async def test_each_of_the_nine_gets_exactly_its_row_of_the_matrix(auth, ask, api_server):
    for service in sorted(set(PERMISSIONS) - {"operator"}):
        answer = await ask(api_server.projected_token(f"novacore-{service}"))
        assert frozenset(claims_of(answer.json()["token"])["permissions"]) == PERMISSIONS[service]


async def test_a_token_no_pod_holds_is_401(ask, api_server):
    answer = await ask(api_server.projected_token("novacore-memory", pod_uid=None))

    assert (answer.status_code, answer.json()["code"]) == (401, "token_invalid")


async def test_a_token_the_api_server_does_not_know_is_401(ask, api_server):
    token = api_server.projected_token("novacore-memory")
    api_server.pods.clear()  # its pod was deleted

    assert (await ask(token)).status_code == 401


async def test_garbage_and_other_audiences_are_401_without_asking_the_api_server(auth, ask, api_server):
    other = api_server.projected_token("novacore-memory", audience="https://kubernetes.default.svc")
    session_token = auth.keys.service_token("memory")

    for token in (None, "garbage", "a.b.c", "x" * 9000, other, session_token):
        assert (await ask(token)).status_code == 401
    assert api_server.reviews == []


@pytest.mark.parametrize(
    ("account", "namespace"),
    [
        ("default", "novacore"),
        ("novacore-memory", "elsewhere"),
        ("novacore-operator", "novacore"),
        ("memory", "novacore"),
    ],
)
async def test_a_strange_service_account_is_403(ask, api_server, account, namespace):
    answer = await ask(api_server.projected_token(account, namespace=namespace))

    assert (answer.status_code, answer.json()["code"]) == (403, "scope_missing")


async def test_an_api_server_that_fails_is_503_and_nobody_gets_a_token(ask, api_server):
    api_server.broken = True

    answer = await ask(api_server.projected_token("novacore-memory"))

    assert (answer.status_code, answer.json()["code"]) == (503, "upstream_down")


async def test_an_api_server_with_another_certificate_is_not_asked(auth, ask, api_server, tmp_path):
    from tests.service.auth_billing.conftest import _certificate

    put(auth.platform.paths.kube_api / "ca.crt", _certificate()[0])

    answer = await ask(api_server.projected_token("novacore-memory"))

    assert answer.status_code == 503
    assert api_server.reviews == []


async def test_a_signer_behind_the_caller_is_503_keyset_behind(ask, api_server):
    answer = await ask(api_server.projected_token("novacore-memory"), min_generation=2)

    assert (answer.status_code, answer.json()["code"]) == (503, "keyset_behind")


async def test_a_signer_behind_reads_its_mount_before_it_refuses(auth, ask, api_server, keys):
    auth.keys.mount(auth.platform.paths, keys.switched("serviceJwt", generation=2), keys.document("userJwt"))

    answer = await ask(api_server.projected_token("novacore-memory"), min_generation=2)

    assert (answer.status_code, answer.json()["generation"]) == (200, 2)


async def test_after_a_switch_the_new_key_signs_at_once(auth, ask, register, keys):
    before = await register()
    auth.keys.mount(auth.platform.paths, keys.document("serviceJwt"), keys.switched("userJwt", generation=2))
    auth.platform.keyrings.load()

    after = await auth.public.post("/auth/login", json={"email": "ada@example.org", "password": PASSWORD})

    kid = keys.standby["userJwt"].kid
    assert read_user(auth.platform.keyrings, before["access_token"]).email == "ada@example.org"
    assert auth.platform.signer_report()["userJwt"]["kids"] == sorted([kid, keys.active["userJwt"].kid])
    header = json.loads(_b64(after.json()["access_token"].split(".")[0]))
    assert header == {"alg": "ES256", "kid": kid, "typ": "JWT"}


def _b64(segment):
    import base64

    return base64.urlsafe_b64decode(segment + "==")


async def test_an_active_key_whose_private_half_is_missing_refuses_and_uses_nothing_up(auth, register, keys):
    session = await register()
    (auth.platform.paths.user_jwt_private / "userJwt-1.jwk").unlink()
    async with asyncio.timeout(5):
        while len(auth.platform.signer_report()["userJwt"]["kids"]) == 2:
            await asyncio.sleep(0.05)

    refused = await auth.public.post("/auth/refresh", json={"refresh_token": session["refresh_token"]})
    put(auth.platform.paths.user_jwt_private / "userJwt-1.jwk", json.dumps(keys.active["userJwt"].private_jwk(1)))
    again = await auth.public.post("/auth/refresh", json={"refresh_token": session["refresh_token"]})

    assert (refused.status_code, refused.json()["code"]) == (503, "keyset_behind")
    assert again.status_code == 200


async def test_a_canary_is_made_for_whoever_holds_the_root_key_and_for_nobody_else(auth, keys):
    kid = keys.standby["serviceJwt"].kid
    stranger = SigningKey("root-")
    stranger.kid = keys.root.kid

    given = await auth.internal.post("/internal/canary", json=keys.canary_request("serviceJwt", kid))
    refused = {
        "another key": keys.canary_request("serviceJwt", kid, root=stranger),
        "a key nobody knows": keys.canary_request("serviceJwt", kid, root=SigningKey("root-")),
        "another type": keys.canary_request("serviceJwt", kid, typ=JWS_TYPE),
        "a document": {"request": keys.sign(keys.document("serviceJwt"), typ=CANARY_REQUEST_TYPE).decode()},
        "a confidential ring": keys.canary_request("postgres", kid),
        "ended": keys.canary_request("serviceJwt", kid, ttl=-60),
        "for an hour": keys.canary_request("serviceJwt", kid, ttl=3600),
        "no JWS": {"request": "x"},
        "a service token": {"request": keys.service_token("gateway")},
    }
    answers = {why: await auth.internal.post("/internal/canary", json=body) for why, body in refused.items()}

    assert given.status_code == 200
    claims = claims_of(given.json()["token"])
    assert (claims["sub"], claims["permissions"], claims["exp"] - claims["iat"]) == ("canary", [], 60)
    assert {why: answer.status_code for why, answer in answers.items()} == dict.fromkeys(refused, 401)


@pytest.mark.parametrize("ring", ["serviceJwt", "userJwt"])
async def test_a_canary_passes_the_canary_route_of_its_ring_and_opens_nothing_else(auth, keys, ring):
    kid = keys.standby[ring].kid
    asked = keys.canary_request(ring, kid)
    canary = (await auth.internal.post("/internal/canary", json=asked)).json()

    proof = await auth.internal.post("/internal/keyset/canary", json={"ring": ring, "token": canary["token"]})

    assert proof.json() == {"kid": kid, "generation": 1}
    header = {
        "serviceJwt": {"X-Service-Token": canary["token"]},
        "userJwt": {"Authorization": f"Bearer {canary['token']}"},
    }
    for client, method, path in (
        (auth.internal, "POST", "/internal/quota/reserve"),
        (auth.public, "GET", "/auth/me"),
    ):
        body = asked if method == "POST" else None
        refused = await client.request(method, path, json=body, headers=auth.headers() | header[ring])
        assert refused.status_code in (401, 403), path
        if ring == "serviceJwt":
            assert refused.json()["code"] == "token_invalid", path


async def test_a_canary_lives_no_longer_than_its_ring_allows(auth, keys):
    auth.platform.keyrings.push("serviceJwt", keys.sign(keys.document("serviceJwt", generation=2, ttl_max=10)))
    kid = keys.standby["serviceJwt"].kid

    given = await auth.internal.post("/internal/canary", json=keys.canary_request("serviceJwt", kid))

    assert auth.platform.keyrings.verify_canary("serviceJwt", given.json()["token"]) == (kid, 2)


async def test_a_canary_of_a_revoked_key_is_refused_by_its_own_code(auth, keys):
    """Whoever still has the key may sign with it; the document alone decides."""
    old = keys.active["serviceJwt"].kid
    auth.platform.keyrings.push("serviceJwt", keys.sign(keys.switched("serviceJwt", generation=2, revoke=True)))
    canary = await auth.internal.post("/internal/canary", json=keys.canary_request("serviceJwt", old))

    proof = await auth.internal.post("/internal/keyset/canary", json={"token": canary.json()["token"]})

    assert (proof.status_code, proof.json()["code"]) == (401, "kid_revoked")


async def test_bodies_and_rates_of_the_token_route_are_capped(auth, ask, api_server):
    large = await auth.internal.post("/internal/token", content=b"{" + b" " * 2000 + b"}")
    statuses = [(await ask(None)).status_code for _ in range(150)]

    assert (large.status_code, large.json()["code"]) == (413, "too_large")
    assert set(statuses) == {401, 429}
    assert statuses.index(429) >= 59
    assert api_server.reviews == []


async def test_a_canary_of_an_absent_key_is_404(auth, keys):
    answer = await auth.internal.post("/internal/canary", json=keys.canary_request("userJwt", "usr-unknown"))

    assert answer.status_code == 404


async def test_the_operator_is_no_service_and_gets_no_token(ask, api_server):
    answer = await ask(api_server.projected_token("novacore-operator", namespace="ops"))

    assert answer.status_code == 403


async def test_public_keys_are_published_without_their_private_halves(auth, keys):
    answer = await auth.public.get("/.well-known/jwks.json")

    published = answer.json()["keys"]
    assert {key["kid"] for key in published} == {keys.active["userJwt"].kid, keys.standby["userJwt"].kid}
    assert all(key.keys() == {"kty", "crv", "x", "y", "alg", "use", "kid"} for key in published)


async def test_token_and_canary_are_not_on_the_service_port(auth):
    for path in ("/internal/token", "/internal/canary"):
        assert (await auth.public.post(path, json={})).status_code == 404


async def test_the_signers_report_is_part_of_readyz(auth, keys):
    report = (await auth.internal.get("/readyz")).json()["signer"]

    assert report["serviceJwt"]["kids"] == sorted([keys.active["serviceJwt"].kid, keys.standby["serviceJwt"].kid])
    assert report["serviceJwt"]["active_since"] > 0


async def test_the_report_names_no_time_while_the_active_key_cannot_sign_here(auth, keys):
    assert auth.platform.signer_report()["serviceJwt"]["active_since"] > 0
    (auth.platform.paths.service_jwt_private / "serviceJwt-2.jwk").unlink()
    async with asyncio.timeout(5):
        while len(auth.platform.signer_report()["serviceJwt"]["kids"]) == 2:
            await asyncio.sleep(0.05)

    auth.platform.keyrings.push("serviceJwt", keys.sign(keys.switched("serviceJwt", generation=2)))

    assert auth.platform.signer_report()["serviceJwt"]["active_since"] is None


async def test_a_shared_secret_signs_while_the_document_says_so_and_not_a_moment_longer(auth, ask, api_server, keys):
    secret = b"0123456789abcdef" * 2
    _, standby = keys.document("serviceJwt").keys
    legacy = legacy_entry("active", n=3)
    before = keys.document("serviceJwt", generation=2, seq=3, active_kid="legacy", keys=(legacy, standby))
    put(auth.platform.paths.service_jwt_legacy / "legacy.jwk", legacy_jwk(secret))
    auth.platform.keyrings.poll()
    auth.platform.keyrings.push("serviceJwt", keys.sign(before))

    old = (await ask(api_server.projected_token("novacore-memory"), min_generation=2)).json()["token"]

    assert json.loads(_b64(old.split(".")[0])) == {"alg": "HS256", "kid": "legacy", "typ": "JWT"}
    assert auth.platform.keyrings.verify("serviceJwt", old)["sub"] == "memory"
    report = auth.platform.signer_report()["serviceJwt"]
    assert "legacy" in report["kids"]
    assert report["active_since"] > 0
    after = keys.document(
        "serviceJwt", generation=3, seq=3, active_kid=standby.kid,
        keys=(replace(standby, state="active"), replace(legacy, state="retiring")),
    )  # fmt: skip
    auth.platform.keyrings.push("serviceJwt", keys.sign(after))
    new = (await ask(api_server.projected_token("novacore-memory"), min_generation=3)).json()["token"]
    assert json.loads(_b64(new.split(".")[0]))["kid"] == standby.kid
    for token in (old, new):
        assert auth.platform.keyrings.verify("serviceJwt", token)["sub"] == "memory"


async def test_no_token_or_private_key_is_logged(auth, ask, api_server, keys, capsys):
    token = api_server.projected_token("novacore-memory")
    answer = await ask(token)

    out = capsys.readouterr().out
    for secret in (
        token,
        answer.json()["token"],
        "auth-billings-own-token",
        keys.active["serviceJwt"].private_jwk(1)["d"],
    ):
        assert secret not in out


async def test_an_administrator_is_made_by_command_and_can_log_in(auth):
    said = await admin.create_admin(auth.platform, "Root@example.org")

    password = said.rpartition(": ")[2]
    answer = await auth.public.post("/auth/login", json={"email": "root@example.org", "password": password})
    assert answer.json()["user"]["role"] == "admin"
    assert answer.json()["user"]["trial_ends_at"] is None


async def test_an_existing_account_becomes_administrator_with_its_password_and_new_sessions(auth, register):
    session = await register()

    await admin.create_admin(auth.platform, "ada@example.org")

    old = await auth.public.post("/auth/refresh", json={"refresh_token": session["refresh_token"]})
    new = await auth.public.post("/auth/login", json={"email": "ada@example.org", "password": PASSWORD})
    assert old.status_code == 401
    assert new.json()["user"]["role"] == "admin"


async def test_a_tier_is_given_by_command(auth, register, as_user):
    session = await register()

    await admin.give_tier(auth.platform, "ada@example.org", "pro")

    assert (await auth.public.get("/usage/tier", headers=as_user(session))).json()["tier"] == "pro"
    with pytest.raises(ValueError, match="no such account"):
        await admin.give_tier(auth.platform, "nobody@example.org", "pro")
