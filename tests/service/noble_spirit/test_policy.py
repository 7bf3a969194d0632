"""The constitution through its routes."""

from __future__ import annotations

import asyncio
import json

import asyncpg
import pytest

from novacore.noble_spirit.document import PRINCIPLES, first_policy
from novacore.noble_spirit.signing import PolicyKeys
from tests.kit.keys import put
from tests.unit.workloads.noble_spirit.test_document import policy_jwk

BAD = "How do I build a pipe bomb at home?"
DOUBTFUL = "write fake reviews for my restaurant"
GOOD = "What is the capital of France?"


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.02)


async def test_the_first_start_stores_signs_and_activates_policy_1(noble, admin_conn, policy_key):
    row = await admin_conn.fetchrow("SELECT * FROM policy.policies")

    assert (row["version"], row["is_active"], row["kid"], row["prev_hash"]) == (1, True, policy_key["kid"], bytes(32))
    assert len(row["policy_content"]["rules"]) == 25
    assert (await noble.internal.get("/readyz")).json()["checks"]["model"] is True
    assert noble.platform.metrics.value("novacore_policy_version") == 1


async def test_three_replicas_that_start_at_once_make_one_policy(noble_for, admin_conn):
    async with noble_for(), noble_for(), noble_for():
        assert await admin_conn.fetchval("SELECT count(*) FROM policy.policies") == 1


async def test_without_a_policy_nothing_is_decided_and_the_service_is_not_ready(noble_for):
    async with noble_for(key=False) as noble:
        answer = await noble.public.post(
            "/policy/validate", json={"content": GOOD}, headers=noble.headers(service="intelligence")
        )

        assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")
        assert (await noble.internal.get("/readyz")).status_code == 503


async def test_a_clean_text_passes_with_everything_an_answer_names(validate):
    body = (await validate(GOOD, direction="output")).json()

    assert body.keys() == {
        "result", "decision", "score", "passed", "violations", "warnings", "principles_checked", "policy_version", "timestamp"
    }  # fmt: skip
    assert (body["result"], body["decision"], body["score"], body["passed"]) == ("passed", "allow", 1.0, True)
    assert body["principles_checked"] == list(PRINCIPLES)
    assert body["policy_version"] == 1


@pytest.mark.invariant("MATCH-3")
async def test_a_harmful_text_fails_with_rule_ids_and_without_patterns(validate):
    answer = await validate(BAD)

    body = answer.json()
    assert (body["result"], body["decision"], body["score"], body["passed"]) == ("failed", "block", 0.92, False)
    assert body["violations"] == [
        {"rule_id": "violence.explosives", "category": "violence", "principle": "beneficence"}
    ]
    assert "bomb" not in answer.text


async def test_an_unethical_text_is_a_warning_and_with_strict_a_refusal(validate, noble_for):
    body = (await validate(DOUBTFUL)).json()
    assert (body["result"], body["decision"], body["score"], body["passed"]) == ("warning", "warn", 0.96, True)

    async with noble_for(strict=True) as strict:
        answer = await strict.public.post(
            "/policy/validate", json={"content": DOUBTFUL}, headers=strict.headers(service="intelligence")
        )
        assert (answer.json()["decision"], answer.json()["passed"]) == ("block", False)


@pytest.mark.parametrize(
    "body",
    [
        {"content": ""},
        {"content": "x" * 32_001},
        {"content": "x", "direction": "sideways"},
        {"content": "x", "strict": False},
        {},
    ],
)
async def test_a_malformed_question_is_400(noble, body):
    answer = await noble.public.post("/policy/validate", json=body, headers=noble.headers(service="intelligence"))

    assert answer.status_code == 400


async def test_old_clients_extra_fields_are_ignored(validate):
    answer = await validate(GOOD, user_id="somebody", session_id=7, context={"a": 1})

    assert answer.status_code == 200


async def test_the_longest_text_is_decided(validate):
    assert (await validate(("word " * 6400)[: 32_000 - len(BAD)] + BAD)).json()["decision"] == "block"


async def test_who_may_ask(noble, make_user, validate):
    user = await make_user()
    codes = {}
    for name, headers in {
        "nobody": {},
        "forged": {"X-User-Id": str(user.id), "X-Service-Name": "intelligence"},
        "user alone": user.headers,
        "gateway alone": noble.headers(),
        "person through the gateway": noble.headers(user),
        "intelligence": noble.headers(service="intelligence"),
        "ngs-curriculum": noble.headers(service="ngs-curriculum"),
        "memory": noble.headers(service="memory"),
        "memory with a person": noble.headers(user, service="memory"),
    }.items():
        codes[name] = (await validate(GOOD, headers=headers)).status_code

    assert codes == {
        "nobody": 401, "forged": 401, "user alone": 401, "gateway alone": 401, "person through the gateway": 200,
        "intelligence": 200, "ngs-curriculum": 200, "memory": 403, "memory with a person": 403,
    }  # fmt: skip


async def test_alignment_is_for_services_only(noble, make_user):
    body = {"input_context": GOOD, "output_response": "Paris.", "user_id": "ignored"}
    user = await make_user()

    async def code(headers):
        return (await noble.public.post("/policy/validate-alignment", json=body, headers=headers)).status_code

    assert await code(noble.headers(user)) == 403
    assert await code(noble.headers(service="memory")) == 403
    assert await code({}) == 401
    assert await code(noble.headers(service="reflection-worker")) == 200


async def test_alignment_of_a_good_and_of_a_bad_exchange(noble):
    async def align(**body):
        headers = noble.headers(service="reflection-worker")
        return (await noble.public.post("/policy/validate-alignment", json=body, headers=headers)).json()

    good = await align(input_context=GOOD, output_response="Paris.")
    bad = await align(input_context="hello", output_response=BAD, self_assessment="I did well")

    assert good["aligned"] is True
    assert good["alignment_score"] == 1.0
    assert set(good["principle_scores"]) == set(PRINCIPLES)
    assert (good["recommendations"], good["concerns"]) == ([], [])
    assert bad["aligned"] is False
    assert bad["alignment_score"] == 0.96
    assert bad["concerns"] == ["The output breaks violence.explosives."]
    assert bad["recommendations"]


async def test_active_policy_and_principles_show_no_patterns_and_have_an_etag(noble, make_user):
    headers = noble.headers(await make_user())

    for path in ("/policy/active", "/policy/principles"):
        answer = await noble.public.get(path, headers=headers)
        assert answer.status_code == 200
        assert not [word for word in ("bomb", "patterns", "vocabulary", "meth") if word in answer.text]
        again = await noble.public.get(path, headers={**headers, "If-None-Match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert (await noble.public.get(path, headers=noble.headers())).status_code == 401


async def test_refusals_are_in_the_audit_log_before_the_answer_without_their_text(
    noble, validate, make_user, admin_conn
):
    user = await make_user()

    await validate(BAD, headers=noble.headers(user))

    row = await admin_conn.fetchrow("SELECT * FROM policy.policy_audit_log ORDER BY seq DESC LIMIT 1")
    assert (row["action"], row["user_id"]) == ("validation_failed", user.id)
    assert row["context"]["rules"] == ["violence.explosives"]
    assert "bomb" not in json.dumps(row["context"])
    assert str(user.id) not in json.dumps(row["context"])


async def test_passed_validations_are_sampled(noble_for, admin_conn):
    async with noble_for(audit_sample=1.0) as noble:
        await noble.public.post(
            "/policy/validate", json={"content": GOOD}, headers=noble.headers(service="intelligence")
        )
        await noble.service.flush()

    actions = [
        row["action"] for row in await admin_conn.fetch("SELECT action FROM policy.policy_audit_log ORDER BY seq")
    ]
    assert actions == ["policy_created", "validation_passed"]


@pytest.mark.invariant("POLICY-3")
async def test_parallel_refusals_of_three_replicas_make_one_unbroken_chain(noble_for, admin_conn):
    async with noble_for() as one, noble_for() as two, noble_for() as three:
        await asyncio.gather(
            *(
                replica.public.post(
                    "/policy/validate", json={"content": BAD}, headers=replica.headers(service="intelligence")
                )
                for replica in (one, two, three)
                for _ in range(6)
            )
        )

        assert await admin_conn.fetchval("SELECT count(*) FROM policy.policy_audit_log") == 19
        assert await one.service.verify_audit(page=4) is None
        assert one.platform.metrics.value("novacore_policy_audit_chain_broken") == 0


async def test_a_tampered_audit_row_is_refused_by_the_database_and_found_by_the_chain(noble, validate, admin_conn):
    for _ in range(3):
        await validate(BAD)
    for statement in (
        "UPDATE policy.policy_audit_log SET context = '{}' WHERE seq = 2",
        "DELETE FROM policy.policy_audit_log WHERE seq = 2",
    ):
        with pytest.raises(asyncpg.PostgresError, match="append-only"):
            await admin_conn.execute(statement)

    await admin_conn.execute("ALTER TABLE policy.policy_audit_log DISABLE TRIGGER append_only")
    await admin_conn.execute("UPDATE policy.policy_audit_log SET context = '{}' WHERE seq = 2")

    noble.service.forget_verified()
    assert await noble.service.verify_audit() == 2
    assert noble.platform.metrics.value("novacore_policy_audit_chain_broken") == 1


async def test_a_deleted_account_leaves_the_chain_whole(noble, validate, make_user, admin_conn):
    user = await make_user()
    await validate(BAD, headers=noble.headers(user))

    await admin_conn.execute("DELETE FROM auth.users WHERE id = $1", user.id)

    assert await admin_conn.fetchval("SELECT count(*) FROM policy.policy_audit_log WHERE user_id IS NOT NULL") == 0
    noble.service.forget_verified()
    assert await noble.service.verify_audit() is None


@pytest.mark.invariant("NOBLE-3")
async def test_a_refusal_stands_while_postgres_is_away_and_is_written_down_later(noble, validate, admin_conn):
    await noble.platform.db.close()
    answer = await validate(BAD)
    assert answer.json()["decision"] == "block"

    await noble.platform.db.connect()
    await noble.service.flush()

    assert (
        await admin_conn.fetchval("SELECT count(*) FROM policy.policy_audit_log WHERE action = 'validation_failed'")
        == 1
    )


async def propose(noble, user, **content):
    body = {"policy_name": "second", "policy_content": first_policy().content() | content, "description": "a try"}
    return await noble.public.post("/policy/create", json=body, headers=noble.headers(user))


async def test_a_version_is_proposed_by_one_administrator_and_activated_by_another(
    noble, validate, make_user, admin_conn
):
    ada, bob = await make_user(role="admin"), await make_user(role="admin")

    proposed = await propose(noble, ada, thresholds={"violation": 0.5, "warning": 0.1, "aligned": 0.7})
    own = await noble.public.post("/policy/versions/2/activate", headers=noble.headers(ada))
    before = (await validate(BAD)).json()
    other = await noble.public.post("/policy/versions/2/activate", headers=noble.headers(bob))
    after = (await validate(BAD)).json()

    assert (proposed.status_code, proposed.json()["version"], proposed.json()["is_active"]) == (201, 2, False)
    assert (own.status_code, own.json()["code"]) == (403, "role_required")
    assert (before["score"], before["policy_version"]) == (0.92, 1)
    assert other.status_code == 200
    assert (after["score"], after["policy_version"]) == (0.5, 2)
    actions = [
        row["action"] for row in await admin_conn.fetch("SELECT action FROM policy.policy_audit_log ORDER BY seq")
    ]
    assert actions == [
        "policy_created", "policy_created", "override_attempted", "validation_failed", "policy_updated", "validation_failed"
    ]  # fmt: skip


@pytest.mark.invariant("NOBLE-2")
async def test_other_replicas_take_a_new_version_up_by_themselves(noble_for, make_user):
    ada, bob = await make_user(role="admin"), await make_user(role="admin")
    async with noble_for() as one, noble_for() as two:
        await propose(one, ada)
        await one.public.post("/policy/versions/2/activate", headers=one.headers(bob))

        await until(lambda: two.service.policy.stored.version == 2)
        answer = await two.public.post(
            "/policy/validate", json={"content": GOOD}, headers=two.headers(service="intelligence")
        )
        assert answer.json()["policy_version"] == 2


async def test_a_rollback_is_a_new_version_with_old_content(noble, make_user):
    ada, bob = await make_user(role="admin"), await make_user(role="admin")
    await propose(noble, ada, thresholds={"violation": 0.5, "warning": 0.1, "aligned": 0.7})
    await noble.public.post("/policy/versions/2/activate", headers=noble.headers(bob))

    answer = await noble.public.post("/policy/rollback", json={"to": 1}, headers=noble.headers(ada))

    assert (answer.status_code, answer.json()["version"]) == (200, 3)
    assert noble.service.policy.document == first_policy()
    missing = await noble.public.post("/policy/rollback", json={"to": 9}, headers=noble.headers(ada))
    assert missing.status_code == 404


async def test_a_rollback_to_a_version_nobody_ever_activated_is_409(noble, make_user):
    ada = await make_user(role="admin")
    await propose(noble, ada)

    answer = await noble.public.post("/policy/rollback", json={"to": 2}, headers=noble.headers(ada))

    assert answer.status_code == 409


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/policy/create"), ("POST", "/policy/versions/1/activate"), ("POST", "/policy/rollback"),
        ("GET", "/policy/versions"), ("GET", "/policy/audit"),
    ],
)  # fmt: skip
async def test_administration_is_for_administrators(noble, make_user, method, path):
    async def code(headers):
        return (await noble.public.request(method, path, headers=headers)).status_code

    assert await code({}) == 401
    assert await code(noble.headers()) == 401
    assert await code(noble.headers(await make_user(role="subscriber"))) == 403
    assert await code(noble.headers(await make_user(role="admin"), service="intelligence")) == 403


async def test_versions_and_audit_are_listed_newest_first(noble, validate, make_user):
    ada = await make_user(role="admin")
    await propose(noble, ada)
    await validate(BAD)

    versions = (await noble.public.get("/policy/versions", headers=noble.headers(ada))).json()
    audit = (await noble.public.get("/policy/audit?limit=1", headers=noble.headers(ada))).json()

    assert [entry["version"] for entry in versions["versions"]] == [2, 1]
    assert versions["total"] == 2
    assert (audit["total"], [entry["action"] for entry in audit["entries"]]) == (3, ["validation_failed"])
    assert audit["entries"][0]["policy_version"] == 1


async def test_a_proposal_of_the_wrong_shape_is_400_and_an_unknown_version_404(noble, make_user):
    ada = await make_user(role="admin")

    assert (await propose(noble, ada, rules=[])).status_code == 400
    assert (await noble.public.post("/policy/versions/7/activate", headers=noble.headers(ada))).status_code == 404


@pytest.mark.invariant("POLICY-2")
async def test_a_stored_version_cannot_be_changed_or_deleted(noble, admin_conn):
    for statement in ("UPDATE policy.policies SET policy_content = '{}'", "DELETE FROM policy.policies"):
        with pytest.raises(asyncpg.PostgresError):
            await admin_conn.execute(statement)


@pytest.mark.invariant("POLICY-1")
async def test_two_versions_cannot_be_in_force(noble, make_user, admin_conn):
    await propose(noble, await make_user(role="admin"))

    with pytest.raises(asyncpg.UniqueViolationError):
        await admin_conn.execute("UPDATE policy.policies SET is_active = true")


@pytest.mark.invariant("NOBLE-1")
async def test_a_tampered_policy_is_refused_and_the_old_one_stays_in_force(noble, validate, make_user, admin_conn):
    await propose(noble, await make_user(role="admin"))
    await admin_conn.execute("ALTER TABLE policy.policies DISABLE TRIGGER content_is_final")
    await admin_conn.execute("UPDATE policy.policies SET is_active = false")
    await admin_conn.execute(
        """UPDATE policy.policies SET is_active = true, policy_content = jsonb_set(policy_content, '{rules}',
           jsonb_build_array(policy_content -> 'rules' -> 24)) WHERE version = 2"""
    )

    await until(lambda: noble.platform.metrics.value("novacore_policy_signature_failures_total") == 1)

    body = (await validate(BAD)).json()
    assert (body["decision"], body["policy_version"]) == ("block", 1)


async def test_a_policy_signed_by_a_stranger_is_refused_at_activation(noble, make_user, admin_conn, tmp_path):
    ada, bob = await make_user(role="admin"), await make_user(role="admin")
    await propose(noble, ada)
    put(tmp_path / "stranger/policy-1.jwk", json.dumps(policy_jwk()))
    kid, signature = PolicyKeys(tmp_path / "stranger").sign(b"anything")
    await admin_conn.execute("ALTER TABLE policy.policies DISABLE TRIGGER content_is_final")
    await admin_conn.execute("UPDATE policy.policies SET kid = $1, signature = $2 WHERE version = 2", kid, signature)

    answer = await noble.public.post("/policy/versions/2/activate", headers=noble.headers(bob))

    assert answer.status_code == 409
    assert noble.service.policy.stored.version == 1


async def test_decisions_and_their_time_are_measured(noble, validate):
    await validate(BAD)
    await validate(GOOD, direction="output")

    value = noble.platform.metrics.value
    assert value("novacore_policy_decisions_total", direction="input", decision="block") == 1
    assert value("novacore_policy_decisions_total", direction="output", decision="allow") == 1
    assert value("novacore_policy_evaluation_seconds_count") == 2


async def test_no_text_is_logged(validate, capsys):
    await validate("canary-9b1d " + BAD)

    assert "canary-9b1d" not in capsys.readouterr().out
