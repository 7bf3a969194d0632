"""Accounts and sessions on real stores."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest
from redis.asyncio import Redis

from novacore.auth_billing.revocation import Revocations
from novacore_contracts.identity import SERVICE_TOKEN_HEADER
from tests.service.auth_billing.conftest import PASSWORD, claims_of


async def post(auth, path, body, headers=None):
    return await auth.public.post(path, json=body, headers=headers or {})


async def test_registration_answers_with_account_and_both_spellings_of_the_tokens(auth, register):
    body = await register("  Ada@Example.ORG ")

    assert body["user"].keys() == {"id", "email", "role", "subscription_tier", "trial_ends_at"}
    assert body["user"]["email"] == "ada@example.org"
    assert (body["user"]["role"], body["user"]["subscription_tier"]) == ("student", "free_trial")
    assert body["accessToken"] == body["access_token"]
    assert body["refreshToken"] == body["refresh_token"]
    assert (body["token_type"], body["expires_in"]) == ("Bearer", 900)


async def test_an_access_token_has_exactly_the_agreed_claims_and_verifies(auth, register):
    session = await register()

    claims = claims_of(session["access_token"])

    assert claims.keys() == {
        "iss", "aud", "sub", "email", "role", "tier", "scope", "sv", "jti", "iat", "nbf", "exp"
    }  # fmt: skip
    assert claims["iss"] == "novacore-auth"
    assert claims["aud"] == "novacore-api"
    assert claims["sub"] == session["user"]["id"]
    assert claims["scope"] == "api"
    assert (claims["exp"] - claims["iat"], claims["iat"] - claims["nbf"]) == (900, 10)
    assert auth.platform.keyrings.verify("userJwt", session["access_token"])["sub"] == session["user"]["id"]


async def test_a_taken_address_is_refused_in_any_spelling(auth, register):
    await register("ada@example.org")

    answer = await post(auth, "/auth/register", {"email": "ADA@example.org", "password": PASSWORD})

    assert answer.status_code == 409
    assert answer.json()["code"] == "registration_refused"


async def test_the_sixth_refused_registration_of_an_address_in_an_hour_is_429(auth, register, clock):
    await register()
    refused = [await post(auth, "/auth/register", {"email": "ada@example.org", "password": PASSWORD}) for _ in range(5)]
    assert [answer.status_code for answer in refused] == [409] * 5

    answer = await post(auth, "/auth/register", {"email": "bob@example.org", "password": PASSWORD})
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) > 0

    clock.advance(hours=1, seconds=1)
    await register("bob@example.org")


async def test_another_client_behind_the_gateway_is_not_locked_out(auth, register):
    await register()
    for _ in range(5):
        await post(auth, "/auth/register", {"email": "ada@example.org", "password": PASSWORD})

    headers = auth.headers() | {"X-Forwarded-For": "203.0.113.9"}
    answer = await post(auth, "/auth/register", {"email": "bob@example.org", "password": PASSWORD}, headers)

    assert answer.status_code == 201


@pytest.mark.parametrize("caller", [None, "memory"])
async def test_only_the_gateway_says_where_a_client_is(auth, register, caller):
    await register()
    for n in range(5):
        headers = auth.headers(service=caller) | {"X-Forwarded-For": f"203.0.113.{n}"}
        await post(auth, "/auth/register", {"email": "ada@example.org", "password": PASSWORD}, headers)

    answer = await post(auth, "/auth/register", {"email": "bob@example.org", "password": PASSWORD})

    assert answer.status_code == 429


@pytest.mark.parametrize(
    "body",
    [
        {"email": "not-an-address", "password": PASSWORD},
        {"email": "ada@example.org", "password": "short"},
        {"email": "ada@example.org", "password": "x" * 129},
        {"email": "ada@example.org", "password": PASSWORD, "role": "admin"},
        {"email": "ada@example.org"},
    ],
)
async def test_a_malformed_registration_is_400_and_repeats_no_value(auth, body):
    answer = await post(auth, "/auth/register", body)

    assert answer.status_code == 400
    assert answer.json()["code"] == "validation_error"
    assert str(body.get("password")) not in answer.text or body.get("password") == "short"


async def test_login_gives_the_same_answer_shape_as_registration(auth, register):
    first = await register()

    answer = await post(auth, "/auth/login", {"email": "Ada@example.org", "password": PASSWORD})

    assert answer.status_code == 200
    assert answer.json().keys() == first.keys()
    assert auth.platform.metrics.value("novacore_logins_total", result="ok") == 1


async def test_a_wrong_password_and_an_unknown_account_get_the_same_body(auth, register):
    await register()

    known = await post(auth, "/auth/login", {"email": "ada@example.org", "password": "wrong-password"})
    unknown = await post(auth, "/auth/login", {"email": "bob@example.org", "password": "wrong-password"})

    assert (known.status_code, unknown.status_code) == (401, 401)
    differing = {"request_id"}
    assert {k: v for k, v in known.json().items() if k not in differing} == {
        k: v for k, v in unknown.json().items() if k not in differing
    }
    assert known.headers["www-authenticate"].startswith("Bearer ")


async def test_ten_failures_lock_account_and_address_for_a_quarter_of_an_hour_with_the_same_401(auth, register, clock):
    await register()
    wrong = {"email": "ada@example.org", "password": "wrong-password"}
    right = {"email": "ada@example.org", "password": PASSWORD}
    bodies = [(await post(auth, "/auth/login", wrong)).json()["code"] for _ in range(10)]

    locked = await post(auth, "/auth/login", right)
    elsewhere = await post(auth, "/auth/login", right, auth.headers() | {"X-Forwarded-For": "203.0.113.9"})

    assert set(bodies) == {"invalid_credentials"}
    assert (locked.status_code, locked.json()["code"]) == (401, "invalid_credentials")
    assert elsewhere.status_code == 200  # nobody can lock somebody else out from afar
    assert auth.platform.metrics.value("novacore_logins_total", result="locked") == 1

    clock.advance(minutes=15, seconds=1)
    assert (await post(auth, "/auth/login", right)).status_code == 200


async def test_failures_spread_over_more_than_the_window_do_not_lock(auth, register, clock):
    await register()
    wrong = {"email": "ada@example.org", "password": "wrong-password"}
    for _ in range(9):
        await post(auth, "/auth/login", wrong)
    clock.advance(minutes=15, seconds=1)
    await post(auth, "/auth/login", wrong)

    assert (await post(auth, "/auth/login", {**wrong, "password": PASSWORD})).status_code == 200


async def test_the_throttle_table_names_nobody(auth, register, admin_conn):
    await register()
    await post(auth, "/auth/login", {"email": "ada@example.org", "password": "wrong-password"})

    keys = [row["key"] for row in await admin_conn.fetch("SELECT key FROM auth.throttles")]

    assert len(keys) == 1
    assert "ada" not in keys[0]
    assert "127.0.0.1" not in keys[0]


async def test_a_refresh_rotates_and_the_old_token_is_used_up(auth, register, clock):
    session = await register()

    answer = await post(auth, "/auth/refresh", {"refreshToken": session["refreshToken"]})

    assert answer.status_code == 200
    fresh = answer.json()
    assert fresh.keys() == {"accessToken", "access_token", "refreshToken", "refresh_token", "token_type", "expires_in"}
    assert fresh["refresh_token"] != session["refresh_token"]
    clock.advance(minutes=1)
    assert (await post(auth, "/auth/refresh", {"refresh_token": fresh["refresh_token"]})).status_code == 200


async def test_two_tabs_get_a_sibling_each_within_ten_seconds(auth, register, clock):
    session = await register()
    body = {"refresh_token": session["refresh_token"]}

    both = await asyncio.gather(*(post(auth, "/auth/refresh", body) for _ in range(2)))

    assert [answer.status_code for answer in both] == [200, 200]
    tokens = {answer.json()["refresh_token"] for answer in both}
    assert len(tokens) == 2
    clock.advance(minutes=5)
    for token in tokens:
        assert (await post(auth, "/auth/refresh", {"refresh_token": token})).status_code == 200


async def test_a_late_reuse_revokes_the_family_and_its_access_tokens(auth, register, clock, redis_client):
    session = await register()
    fresh = (await post(auth, "/auth/refresh", {"refresh_token": session["refresh_token"]})).json()
    clock.advance(seconds=11)

    reused = await post(auth, "/auth/refresh", {"refresh_token": session["refresh_token"]})
    after = await post(auth, "/auth/refresh", {"refresh_token": fresh["refresh_token"]})

    assert (reused.status_code, after.status_code) == (401, 401)
    assert reused.json()["code"] == "token_invalid"
    assert redis_client.get(f"tok:rev:{claims_of(fresh['access_token'])['jti']}") == "1"
    assert auth.platform.metrics.value("novacore_refresh_reuse_total") == 1


async def test_a_reuse_leaves_other_sessions_alone(auth, register, clock):
    session = await register()
    other = (await post(auth, "/auth/login", {"email": "ada@example.org", "password": PASSWORD})).json()
    await post(auth, "/auth/refresh", {"refresh_token": session["refresh_token"]})
    clock.advance(seconds=11)
    await post(auth, "/auth/refresh", {"refresh_token": session["refresh_token"]})

    assert (await post(auth, "/auth/refresh", {"refresh_token": other["refresh_token"]})).status_code == 200


async def test_an_expired_or_invented_refresh_token_is_401(auth, register, clock):
    session = await register()
    clock.advance(days=7, seconds=1)

    expired = await post(auth, "/auth/refresh", {"refresh_token": session["refresh_token"]})
    invented = await post(auth, "/auth/refresh", {"refresh_token": "invented"})

    assert (expired.status_code, invented.status_code) == (401, 401)
    assert expired.json()["code"] == invented.json()["code"]
    assert (await post(auth, "/auth/refresh", {})).status_code == 400


async def test_logout_by_access_token_ends_its_family_only(auth, register, as_user, redis_client):
    session = await register()
    other = (await post(auth, "/auth/login", {"email": "ada@example.org", "password": PASSWORD})).json()

    answer = await auth.public.post("/auth/logout", headers=as_user(session))

    assert (answer.status_code, answer.content) == (204, b"")
    assert redis_client.get(f"tok:rev:{claims_of(session['access_token'])['jti']}") == "1"
    assert 0 < redis_client.ttl(f"tok:rev:{claims_of(session['access_token'])['jti']}") <= 960
    assert (await post(auth, "/auth/refresh", {"refresh_token": session["refresh_token"]})).status_code == 401
    assert (await post(auth, "/auth/refresh", {"refresh_token": other["refresh_token"]})).status_code == 200


async def test_logout_by_refresh_token_revokes_the_access_tokens_of_its_session(auth, register, redis_client):
    session = await register()

    answer = await post(auth, "/auth/logout", {"refreshToken": session["refreshToken"]})
    again = await post(auth, "/auth/logout", {"refreshToken": session["refreshToken"]})

    assert (answer.status_code, again.status_code) == (204, 204)
    assert redis_client.get(f"tok:rev:{claims_of(session['access_token'])['jti']}") == "1"


async def test_logout_with_somebody_elses_refresh_token_ends_only_ones_own(auth, register, as_user):
    ada, bob = await register("ada@example.org"), await register("bob@example.org")

    answer = await auth.public.post("/auth/logout", json={"refresh_token": bob["refresh_token"]}, headers=as_user(ada))

    assert answer.status_code == 204
    assert (await post(auth, "/auth/refresh", {"refresh_token": bob["refresh_token"]})).status_code == 200


async def test_logout_without_any_token_is_401(auth):
    for path in ("/auth/logout", "/auth/logout-all"):
        assert (await auth.public.post(path)).status_code == 401


async def test_a_user_token_sent_directly_without_the_gateways_is_401(auth, register):
    session = await register()
    direct = {"Authorization": f"Bearer {session['access_token']}"}

    for method, path in (("POST", "/auth/logout"), ("GET", "/auth/me"), ("GET", "/usage/quota")):
        assert (await auth.public.request(method, path, headers=direct)).status_code == 401


async def test_logout_all_ends_every_session_and_raises_the_session_version(auth, register, as_user, redis_client):
    session = await register()
    other = (await post(auth, "/auth/login", {"email": "ada@example.org", "password": PASSWORD})).json()

    answer = await auth.public.post("/auth/logout-all", headers=as_user(session))

    assert answer.status_code == 204
    assert redis_client.get(f"tok:sv:{session['user']['id']}") == "2"
    assert (await post(auth, "/auth/refresh", {"refresh_token": other["refresh_token"]})).status_code == 401
    again = await post(auth, "/auth/login", {"email": "ada@example.org", "password": PASSWORD})
    assert claims_of(again.json()["access_token"])["sv"] == 2


async def test_logout_all_by_refresh_token_works_once(auth, register):
    session = await register()

    assert (await post(auth, "/auth/logout-all", {"refresh_token": session["refresh_token"]})).status_code == 204
    assert (await post(auth, "/auth/logout-all", {"refresh_token": session["refresh_token"]})).status_code == 401


async def test_logout_without_redis_ends_the_session_and_asks_to_try_again(auth, register, as_user):
    session = await register()
    auth.service.accounts._revocations = Revocations(Redis(port=1))  # nothing listens there

    answer = await auth.public.post("/auth/logout", headers=as_user(session))

    assert answer.status_code == 503
    assert "retry-after" in answer.headers
    assert (await post(auth, "/auth/refresh", {"refresh_token": session["refresh_token"]})).status_code == 401


async def test_a_changed_password_ends_all_sessions_and_replaces_the_old_one(auth, register, as_user):
    session = await register()

    answer = await auth.public.post(
        "/auth/password", json={"current": PASSWORD, "new": "another good one"}, headers=as_user(session)
    )

    assert answer.status_code == 204
    assert (await post(auth, "/auth/refresh", {"refresh_token": session["refresh_token"]})).status_code == 401
    assert (await post(auth, "/auth/login", {"email": "ada@example.org", "password": PASSWORD})).status_code == 401
    answer = await post(auth, "/auth/login", {"email": "ada@example.org", "password": "another good one"})
    assert answer.status_code == 200


async def test_a_wrong_current_password_changes_nothing(auth, register, as_user):
    session = await register()

    answer = await auth.public.post(
        "/auth/password", json={"current": "wrong-password", "new": "another good one"}, headers=as_user(session)
    )

    assert (answer.status_code, answer.json()["code"]) == (401, "invalid_credentials")
    assert (await post(auth, "/auth/login", {"email": "ada@example.org", "password": PASSWORD})).status_code == 200


async def test_me_shows_the_account_as_it_is_now(auth, register, as_user, admin_conn):
    session = await register()
    await admin_conn.execute("UPDATE auth.users SET ngs_level = 4, ngs_total_xp = 470")

    answer = await auth.public.get("/auth/me", headers=as_user(session))

    body = answer.json()
    assert body.keys() == {
        "id", "email", "role", "subscription_tier", "trial_ends_at", "created_at", "subscription_status",
        "current_period_end", "ngs_progress",
    }  # fmt: skip
    assert body["ngs_progress"] == {"current_level": 4, "total_xp": 470}
    assert body["subscription_status"] is None
    assert body["trial_ends_at"].endswith("Z")


async def test_me_of_a_deleted_account_is_401(auth, register, as_user, admin_conn):
    session = await register()
    await admin_conn.execute("DELETE FROM auth.users")

    assert (await auth.public.get("/auth/me", headers=as_user(session))).status_code == 401


async def test_another_service_may_not_use_a_users_token_here(auth, register):
    session = await register()
    headers = auth.headers(service="intelligence") | {"Authorization": f"Bearer {session['access_token']}"}

    assert (await auth.public.get("/auth/me", headers=headers)).status_code == 403


async def test_forged_identity_headers_are_worth_nothing(auth, register):
    session = await register()
    forged = {"X-User-Id": session["user"]["id"], "X-Service-Name": "gateway", SERVICE_TOKEN_HEADER: "x.y.z"}

    assert (await auth.public.get("/auth/me", headers=forged)).status_code == 401


async def test_a_token_for_another_scope_is_403(auth, keys, register):
    session = await register()
    token = keys.user_token(UUID(session["user"]["id"]), scope="mcp")
    headers = auth.headers() | {"Authorization": f"Bearer {token}"}

    assert (await auth.public.get("/auth/me", headers=headers)).status_code == 403


async def test_registration_is_announced_on_the_outbox_stream(auth, register, redis_client):
    session = await register()

    async with asyncio.timeout(5):
        while not (entries := redis_client.xrange("stream:outbox:auth")):
            await asyncio.sleep(0.05)

    assert '"type":"user.registered"' in entries[0][1]["e"]
    assert session["user"]["id"] in entries[0][1]["e"]


async def test_no_mail_address_or_password_is_logged(auth, register, capsys):
    await register("canary-7f3a@example.org", "canary-password-7f3a")
    await post(auth, "/auth/login", {"email": "canary-7f3a@example.org", "password": "canary-wrong-7f3a"})

    assert "7f3a" not in capsys.readouterr().out


async def test_billing_is_refused_until_it_is_set_up(auth, register, as_user):
    session = await register()

    checkout = await auth.public.post("/billing/create-checkout", json={"tier": "pro"}, headers=as_user(session))
    portal = await auth.public.get("/billing/portal", headers=as_user(session))

    assert (checkout.status_code, portal.status_code) == (503, 503)
    assert checkout.json()["code"] == portal.json()["code"] == "billing_disabled"
    assert (await auth.public.get("/billing/portal", headers=auth.headers())).status_code == 401
