"""XP: once, by the server's grade, capped, in one transaction with level, achievements and outbox."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.service.ngs_curriculum.conftest import CHALLENGES, Ngs, right_answers, until

PROSE = (
    "Today I noticed that my answer came before the question had ended, and that I had called this being helpful. "
    "When I waited, the other person corrected their own sentence, and the problem I had wanted to solve was gone. "
    "{n} What stays is the wish to be needed, and I will look at it again on Friday with a friend who knows me well."
)
TEXTS = [
    PROSE.format(n="First of all it was the meeting in the morning that showed me how quick I am with other people."),
    "Walking home I counted the signals I had missed: a pause, a turned chair, one cup of tea left untouched. Each of them "
    "would have changed what I said next, and none was loud. Tomorrow I put the phone away before I enter the room.",
    "My sister asked why I defend the newsletter I never read. I had no reason except that cancelling felt like admitting "
    "the years of it were wasted. So I cancelled it in front of her, and nothing happened, which was the whole lesson.",
    "Calibration hurt today. I had been ninety per cent sure about the delivery and wrong by four days. The record does not "
    "argue, it only lies there. I lowered the number for my own promises and left the one for the weather as it was.",
]


def reflection(n: int = 0, **changes: Any) -> dict[str, Any]:
    return {
        "level_number": 1, "reflection_prompt": f"What did you notice today, part {n}?", "reflection_text": TEXTS[n % 4],
    } | changes  # fmt: skip


@pytest.mark.parametrize(("wrong", "score", "xp"), [(0, 100, 100), (1, 80, 75), (2, 60, 50)])
async def test_a_lesson_pays_by_the_servers_score(
    ngs: Ngs, make_user: Any, books_balance: Any, wrong: int, score: int, xp: int
) -> None:
    user = await make_user(tier="free_trial")
    answer = await ngs.complete(user, 1, wrong=wrong, score=100, time_spent_seconds=600)
    assert answer.status_code == 201
    body = answer.json()
    assert (body["completed"], body["score"], body["xp_awarded"]) == (True, score, xp)
    assert body["progress"]["total_xp"] == xp == await books_balance(user.id)


async def test_a_lesson_completed_again_pays_nothing(ngs: Ngs, make_user: Any, books_balance: Any) -> None:
    user = await make_user()
    await ngs.complete(user, 1, wrong=1)
    again = await ngs.complete(user, 1)
    assert (again.status_code, again.json()["xp_awarded"], again.json()["score"]) == (200, 0, 80)
    assert await books_balance(user.id) == 75


async def test_the_alias_takes_the_lesson_from_the_body(ngs: Ngs, make_user: Any) -> None:
    user = await make_user()
    lesson = await ngs.lesson_of(user)
    body = {"lesson_id": lesson["id"], "answers": right_answers(lesson["slug"])}
    assert (await ngs.post(user, "/ngs/complete-lesson", body)).status_code == 201
    assert (await ngs.lesson_of(user))["completed"] is True


@pytest.mark.invariant("EARN-2")
async def test_parallel_completions_pay_once(ngs: Ngs, make_user: Any, books_balance: Any) -> None:
    user = await make_user()
    answers = await asyncio.gather(*(ngs.complete(user, 1) for _ in range(8)))
    assert sorted(answer.status_code for answer in answers) == [200] * 7 + [201]
    assert await books_balance(user.id) == 100


async def test_the_same_key_gets_the_same_answer_and_another_body_is_refused(
    ngs: Ngs, make_user: Any, books_balance: Any
) -> None:
    user = await make_user()
    first = await ngs.post(user, "/ngs/reflections", reflection(), key="once")
    second = await ngs.post(user, "/ngs/reflections", reflection(), key="once")
    other = await ngs.post(user, "/ngs/reflections", reflection(1), key="once")
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json() == second.json()
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_conflict")
    assert await books_balance(user.id) == 25


async def test_a_failed_quiz_is_no_completion_and_there_are_three_tries_a_day(
    ngs: Ngs, make_user: Any, books_balance: Any
) -> None:
    user = await make_user()
    left = []
    for _ in range(3):
        answer = await ngs.complete(user, 1, wrong=3)
        assert (answer.status_code, answer.json()["completed"], answer.json()["score"]) == (200, False, 40)
        left.append(answer.json()["attempts_left"])
    assert left == [2, 1, 0]
    refused = await ngs.complete(user, 1)
    assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
    assert refused.headers["Retry-After"] == str(12 * 3600)
    ngs.clock.forward(days=1)
    assert (await ngs.complete(user, 1)).status_code == 201
    assert await books_balance(user.id) == 100


async def test_a_quiz_without_answers_uses_up_no_try(ngs: Ngs, make_user: Any) -> None:
    user = await make_user()
    lesson = await ngs.lesson_of(user)
    for _ in range(4):
        answer = await ngs.post(user, f"/ngs/lessons/{lesson['id']}/complete", {})
        assert (answer.status_code, answer.json()["code"]) == (422, "answers_missing")
    assert (await ngs.complete(user, 1)).status_code == 201


async def test_a_locked_lesson_cannot_be_completed(ngs: Ngs, make_user: Any, books_balance: Any) -> None:
    user = await make_user()
    answer = await ngs.complete(user, 2)
    assert (answer.status_code, answer.json()["code"]) == (403, "level_locked")
    assert await books_balance(user.id) == 0


@pytest.mark.invariant("EARN-3")
async def test_a_level_is_reached_in_the_transaction_of_the_event(
    ngs: Ngs, make_user: Any, admin_conn: Any, redis_client: Any
) -> None:
    user = await make_user()
    answer = await ngs.complete(user, 1)
    achieved = {"achievement_type": "level_up", "achievement_data": {"from": 1, "to": 2, "xp": 100}}
    assert [one | {"unlocked_at": None} for one in answer.json()["achievements"]] == [achieved | {"unlocked_at": None}]
    assert answer.json()["progress"]["current_level"] == 2
    assert len((await ngs.get(user, "/ngs/achievements")).json()) == 1
    row = await admin_conn.fetchrow("SELECT type, payload, meta FROM ngs.outbox")
    assert (row["type"], row["payload"]) == ("progress.changed", {"current_level": 2, "total_xp": 100})
    assert row["meta"]["user_id"] == str(user.id)
    await until(lambda: redis_client.xlen("stream:outbox:ngs"), "the event in its stream")
    assert ngs.running.platform.metrics.value("novacore_lessons_completed_total", level="1") == 1
    assert ngs.running.platform.metrics.value("novacore_xp_awarded_total", source="quiz_perfect") == 100


async def test_agent_creation_unlocks_with_level_12_and_once(ngs: Ngs, make_user: Any, give_xp: Any) -> None:
    user = await make_user()
    await give_xp(user, 4995)
    answer = await ngs.post(user, "/ngs/reflections", reflection())
    assert answer.json()["xp_awarded"] == 25
    assert (await ngs.progress(user))["agent_creation_unlocked"] is True
    kinds = [one["achievement_type"] for one in (await ngs.get(user, "/ngs/achievements")).json()]
    assert sorted(kinds) == ["agent_creation_unlocked", "level_up"]
    await ngs.post(user, "/ngs/reflections", reflection(1))
    assert len((await ngs.get(user, "/ngs/achievements")).json()) == 2


async def test_the_streak_is_paid_on_the_second_day_in_a_row_and_once(
    ngs: Ngs, make_user: Any, books_balance: Any
) -> None:
    user = await make_user()
    await ngs.post(user, "/ngs/reflections", reflection(0))
    assert await books_balance(user.id) == 25
    ngs.clock.forward(days=1)
    await ngs.post(user, "/ngs/reflections", reflection(1))
    assert await books_balance(user.id) == 25 + 25 + 20
    await ngs.post(user, "/ngs/reflections", reflection(2))
    assert await books_balance(user.id) == 25 + 25 + 20 + 25
    ngs.clock.forward(days=2)
    await ngs.post(user, "/ngs/reflections", reflection(3))
    assert await books_balance(user.id) == 25 + 25 + 20 + 25 + 25


async def test_reflections_pay_once_per_prompt_and_three_times_a_day(
    ngs: Ngs, make_user: Any, books_balance: Any
) -> None:
    user = await make_user()
    same = reflection(1, reflection_prompt=reflection(0)["reflection_prompt"].upper())
    paid = [
        (await ngs.post(user, "/ngs/reflections", body)).json()["xp_awarded"]
        for body in (reflection(0), same, reflection(2), reflection(3), reflection(1, reflection_text=PROSE))
    ]
    assert paid[:4] == [25, 0, 25, 25]
    assert paid[4] == 0
    assert await books_balance(user.id) == 75
    listed = (await ngs.get(user, "/ngs/reflections", limit=2)).json()
    assert len(listed) == 2
    assert set(listed[0]) >= {"reflection_text", "quality_score", "xp_awarded", "is_public"}


async def test_the_same_text_never_pays_twice(ngs: Ngs, make_user: Any, books_balance: Any) -> None:
    user = await make_user()
    await ngs.post(user, "/ngs/reflections", reflection(0))
    ngs.clock.forward(days=1)
    again = await ngs.post(user, "/ngs/reflections", reflection(0))
    assert (again.json()["quality_score"], again.json()["xp_awarded"]) == (0, 0)
    assert await books_balance(user.id) == 25


async def test_a_reflection_of_a_lesson_of_another_level_is_refused(ngs: Ngs, make_user: Any) -> None:
    user = await make_user()
    other = await ngs.lesson_of(user, 2)
    assert (await ngs.post(user, "/ngs/reflections", reflection(lesson_id=other["id"]))).status_code == 404
    own = await ngs.lesson_of(user, 1)
    assert (await ngs.post(user, "/ngs/reflections", reflection(lesson_id=own["id"]))).status_code == 201
    assert (await ngs.post(user, "/ngs/reflections", reflection(level_number=9))).json()["code"] == "level_locked"


async def test_a_public_text_the_policy_blocks_is_refused_and_a_private_one_is_not_asked_about(
    ngs: Ngs, make_user: Any
) -> None:
    user = await make_user()
    policy = ngs.stubs["noble-spirit"].on("POST", "/policy/validate", (200, {"decision": "block"}))
    assert (await ngs.post(user, "/ngs/reflections", reflection(is_public=False))).status_code == 201
    assert policy.requests("/policy/validate") == []
    refused = await ngs.post(user, "/ngs/reflections", reflection(1, is_public=True))
    assert (refused.status_code, refused.json()["code"]) == (422, "policy_blocked")
    asked = policy.requests("/policy/validate")[0]
    assert asked.json == {"content": TEXTS[1], "direction": "input"}
    assert asked.headers["Authorization"] == user.headers["Authorization"]


async def test_a_silent_policy_does_not_stop_a_learner(ngs: Ngs, make_user: Any) -> None:
    user = await make_user()
    ngs.stubs["noble-spirit"].on("POST", "/policy/validate", (503, {"code": "not_ready"}))
    assert (await ngs.post(user, "/ngs/reflections", reflection(is_public=True))).status_code == 201


async def test_a_better_solution_pays_only_the_difference(ngs: Ngs, make_user: Any, books_balance: Any) -> None:
    user = await make_user()
    listed = await ngs.challenge_of(user)
    content = CHALLENGES[listed["slug"]]
    path = f"/ngs/challenges/{listed['id']}/submit"
    middling = content.solution.replace("Next time I will use the gap, pause", "I will").replace("instead of", "not")
    paid = []
    for text in (content.starter, middling, content.solution, content.solution, middling):
        answer = await ngs.post(user, path, {"submission_code": text, "time_taken_seconds": 60})
        assert answer.status_code == 201
        paid.append((answer.json()["passed"], answer.json()["xp_awarded"]))
    assert paid[0] == (False, 0)
    assert paid[1][0] is True
    assert 0 < paid[1][1] < 100
    assert paid[1][1] + paid[2][1] == 100
    assert paid[3:] == [(True, 0), (True, 0)]
    assert await books_balance(user.id) == 100
    mine = (await ngs.get(user, "/ngs/challenges/submissions")).json()
    assert [one["passed"] for one in mine].count(True) == 4
    assert "submission_code" not in mine[0]
    assert (await ngs.challenge_of(user))["completed"] is True
    assert (await ngs.get(user, f"/ngs/challenges/{listed['id']}")).json()["best_score"] == 100


async def test_parallel_solutions_pay_once(ngs: Ngs, make_user: Any, books_balance: Any) -> None:
    user = await make_user()
    listed = await ngs.challenge_of(user)
    body = {"submission_code": CHALLENGES[listed["slug"]].solution}
    await asyncio.gather(*(ngs.post(user, f"/ngs/challenges/{listed['id']}/submit", body) for _ in range(6)))
    assert await books_balance(user.id) == 100


async def test_a_submission_over_its_limit_is_refused(ngs: Ngs, make_user: Any) -> None:
    user = await make_user()
    listed = await ngs.challenge_of(user)
    answer = await ngs.post(user, f"/ngs/challenges/{listed['id']}/submit", {"submission_code": "x" * 50_001})
    assert answer.status_code == 400


async def test_the_daily_cap_cuts_what_is_too_much(client_for: Any, make_user: Any, books_balance: Any) -> None:
    async with client_for("ngs-curriculum", settings={"ngs": {"daily_caps": {"xp": 110}}}) as running:
        ngs = Ngs(running, running.platform.clock)
        user = await make_user()
        await ngs.complete(user, 1)
        assert (await ngs.post(user, "/ngs/reflections", reflection())).json()["xp_awarded"] == 10
        assert (await ngs.post(user, "/ngs/reflections", reflection(1))).json()["xp_awarded"] == 0
        assert await books_balance(user.id) == 110


async def test_a_farming_script_gains_nothing(ngs: Ngs, make_user: Any, books_balance: Any) -> None:
    user = await make_user(tier="free_trial")
    await ngs.complete(user, 1)
    honest = await books_balance(user.id)
    lesson = await ngs.lesson_of(user)
    for n in range(5):
        await ngs.complete(user, 1, score=100, metadata={"xp_awarded": 500})
        await ngs.post(user, f"/ngs/lessons/{lesson['id']}/complete", {"score": 100}, key=f"k{n}")
        await ngs.post(
            user, "/ngs/award-xp", {"user_id": str(user.id), "source": "creative_solution", "source_id": str(n)}
        )
        await ngs.post(user, "/ngs/complete-lesson", {"lesson_id": lesson["id"], "xp_awarded": 900})
    assert await books_balance(user.id) == honest


@pytest.mark.invariant("EARN-1")
async def test_a_student_walks_over_all_24_levels(ngs: Ngs, make_user: Any, give_xp: Any, books_balance: Any) -> None:
    """W23: every lesson and challenge on seeded data can be opened, passed, and leads on."""
    user = await make_user(tier="basic")
    from novacore.ngs_curriculum.rules import xp_required

    for level in range(1, 25):
        if (await ngs.progress(user))["current_level"] < level:
            await give_xp(user, xp_required(level))
        ngs.clock.forward(days=3)
        lesson = await ngs.complete(user, level)
        assert lesson.status_code == 201, (level, lesson.text)
        task = await ngs.challenge_of(user, level)
        solved = await ngs.post(
            user, f"/ngs/challenges/{task['id']}/submit", {"submission_code": CHALLENGES[task["slug"]].solution}
        )
        assert (solved.json()["score"], solved.json()["xp_awarded"]) == (100, 100)
        await books_balance(user.id)
    progress = await ngs.progress(user)
    assert (progress["current_level"], progress["next_level_info"], progress["progress_percent"]) == (24, None, 100.0)
    assert not any(level["locked"] for level in (await ngs.get(user, "/ngs/levels")).json())


@pytest.mark.parametrize(
    "changes",
    [
        {"reflection_text": "a\x00b"},
        {"reflection_prompt": "a\x00b"},
        {"level_number": 25},
        {"reflection_text": "x" * 5001},
        {"reflection_text": ""},
        {"xp": 1},
    ],
)
async def test_a_reflection_no_store_takes_is_refused(ngs: Ngs, make_user: Any, changes: dict[str, Any]) -> None:
    answer = await ngs.post(await make_user(), "/ngs/reflections", reflection(**changes))
    assert (answer.status_code, answer.json()["code"]) == (400, "validation_error")


@pytest.mark.parametrize("raw", ['{"a": "\\u0000"}', '{"a": NaN}', '{"a": "\\ud800"}', '{"a": "' + "x" * 9000 + '"}'])
async def test_metadata_no_store_takes_is_refused(ngs: Ngs, make_user: Any, raw: str) -> None:
    user = await make_user()
    lesson = await ngs.lesson_of(user)
    headers = ngs.headers(user) | {"Content-Type": "application/json"}
    answer = await ngs.running.public.post(
        f"/ngs/lessons/{lesson['id']}/complete", content='{"metadata": ' + raw + "}", headers=headers
    )
    assert (answer.status_code, answer.json()["code"]) == (400, "validation_error")
