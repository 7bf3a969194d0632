"""Levels, lessons and challenges as a learner sees them."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from tests.service.ngs_curriculum.conftest import CHALLENGES, LESSONS, Ngs


async def test_progress_is_made_on_first_use(ngs: Ngs, make_user: Any) -> None:
    user = await make_user(tier="free_trial")
    answer = await ngs.get(user, "/ngs/progress")
    assert answer.status_code == 200
    assert answer.json() == {
        "user_id": str(user.id),
        "current_level": 1,
        "total_xp": 0,
        "agent_creation_unlocked": False,
        "current_level_info": answer.json()["current_level_info"],
        "next_level_info": answer.json()["next_level_info"],
        "xp_to_next_level": 100,
        "progress_percent": 0.0,
    }
    assert answer.json()["current_level_info"]["title"] == "Awakeners"
    assert answer.json()["next_level_info"]["title"] == "Observer"


async def test_progress_of_a_user_who_is_gone_is_not_found(ngs: Ngs, make_user: Any, admin_conn: Any) -> None:
    user = await make_user()
    await admin_conn.execute("DELETE FROM auth.users WHERE id = $1", user.id)
    assert (await ngs.get(user, "/ngs/progress")).status_code == 404


async def test_the_mcp_server_may_read_progress_and_nothing_else(ngs: Ngs, make_user: Any) -> None:
    user = await make_user()
    headers = ngs.headers(user, service="mcp-server")
    assert (await ngs.running.public.get("/ngs/progress", headers=headers)).status_code == 200
    assert (await ngs.running.public.get("/ngs/levels", headers=headers)).status_code == 403


async def test_24_levels_come_with_their_locks(ngs: Ngs, make_user: Any, give_xp: Any) -> None:
    user = await make_user(tier="free_trial")
    await give_xp(user, 250)
    levels = (await ngs.get(user, "/ngs/levels")).json()
    assert [level["level_number"] for level in levels] == list(range(1, 25))
    assert {n["level_number"]: n["lock_reason"] for n in levels[:4]} == {
        1: None, 2: "prerequisite_missing", 3: "prerequisite_missing", 4: "tier_required",
    }  # fmt: skip
    assert levels[2]["unlock_requirements"] == {"xp": 250, "lessons": ["differentiating-noise-from-signal"]}


async def test_levels_that_did_not_change_are_not_sent_again(ngs: Ngs, make_user: Any) -> None:
    user = await make_user()
    first = await ngs.get(user, "/ngs/levels")
    headers = ngs.headers(user) | {"If-None-Match": first.headers["ETag"]}
    assert (await ngs.running.public.get("/ngs/levels", headers=headers)).status_code == 304
    await ngs.complete(user, 1)
    assert (await ngs.running.public.get("/ngs/levels", headers=headers)).status_code == 200


async def test_one_level_is_found_by_its_number(ngs: Ngs, make_user: Any) -> None:
    user = await make_user()
    assert (await ngs.get(user, "/ngs/levels/12")).json()["title"] == "Operator"
    assert (await ngs.get(user, "/ngs/levels/25")).status_code == 404
    assert (await ngs.get(user, "/ngs/levels/0")).status_code == 404


@pytest.mark.parametrize("what", ["lessons", "challenges"])
async def test_a_list_outside_the_levels_is_refused(ngs: Ngs, make_user: Any, what: str) -> None:
    user = await make_user()
    for number in ("0", "25", "one"):
        answer = await ngs.get(user, f"/ngs/levels/{number}/{what}")
        assert (answer.status_code, answer.json()["code"]) == (400, "validation_error")


async def test_a_lesson_comes_without_its_answers(ngs: Ngs, make_user: Any) -> None:
    user = await make_user()
    listed = await ngs.lesson_of(user)
    answer = await ngs.get(user, f"/ngs/lessons/{listed['id']}")
    assert answer.status_code == 200
    lesson = answer.json()
    assert len(lesson["quiz"]) == 5
    assert all(set(question) == {"id", "text", "options"} for question in lesson["quiz"])
    for question in LESSONS[lesson["slug"]].quiz:
        assert question.why not in answer.text


@pytest.mark.invariant("GATE-1")
async def test_a_locked_lesson_is_refused_with_its_reason(ngs: Ngs, make_user: Any, give_xp: Any) -> None:
    free, paying = await make_user(tier="free_trial"), await make_user(tier="basic")
    await give_xp(free, 700)
    for user, level, code in (
        (free, 4, "tier_required"),
        (paying, 4, "level_locked"),
        (free, 3, "prerequisite_missing"),
    ):
        listed = await ngs.lesson_of(user, level)
        assert (listed["locked"], listed["lock_reason"]) == (True, code)
        answer = await ngs.get(user, f"/ngs/lessons/{listed['id']}")
        assert (answer.status_code, answer.json()["code"]) == (403, code)
        challenge = await ngs.challenge_of(user, level)
        assert (await ngs.get(user, f"/ngs/challenges/{challenge['id']}")).json()["code"] == code


async def test_an_admin_is_bound_by_level_and_not_by_tier(ngs: Ngs, make_user: Any) -> None:
    admin = await make_user(tier="free_trial", role="admin")
    listed = await ngs.lesson_of(admin, 4)
    assert listed["lock_reason"] == "level_locked"


async def test_ids_that_do_not_exist_are_not_found(ngs: Ngs, make_user: Any) -> None:
    user = await make_user()
    for path in (f"/ngs/lessons/{uuid4()}", f"/ngs/challenges/{uuid4()}"):
        assert (await ngs.get(user, path)).status_code == 404
    assert (await ngs.post(user, f"/ngs/lessons/{uuid4()}/complete", {})).status_code == 404
    assert (await ngs.post(user, f"/ngs/challenges/{uuid4()}/submit", {"submission_code": "x"})).status_code == 404


async def test_a_challenge_shows_no_solution_and_no_hidden_check(ngs: Ngs, make_user: Any) -> None:
    user = await make_user()
    listed = await ngs.challenge_of(user)
    answer = await ngs.get(user, f"/ngs/challenges/{listed['id']}")
    content = CHALLENGES[listed["slug"]]
    assert answer.status_code == 200
    assert answer.json()["checks"] == [check.message for check in content.checks if not check.hidden]
    for check in content.checks:
        assert not check.hidden or check.message not in answer.text
    assert "I told myself" not in answer.text
    assert {"test_cases", "solution_template"} & set(answer.json()) == set()


async def test_the_root_says_what_it_is(ngs: Ngs) -> None:
    answer = await ngs.running.public.get("/")
    assert answer.json() == {"service": "ngs-curriculum", "version": ngs.running.platform.version}
