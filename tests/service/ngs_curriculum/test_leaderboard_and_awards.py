"""The leaderboard, its visibility, and awards by an admin."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from tests.kit.keys import TestUser
from tests.service.ngs_curriculum.conftest import Ngs


async def set_visible(ngs: Ngs, user: TestUser, **body: Any) -> Any:
    return await ngs.running.public.patch("/ngs/leaderboard", json=body, headers=ngs.headers(user))


async def test_ties_share_a_rank_and_no_user_ids_appear(ngs: Ngs, make_user: Any, give_xp: Any) -> None:
    users = [await make_user() for _ in range(4)]
    for user, xp in zip(users, (300, 500, 300, 100), strict=True):
        await give_xp(user, xp)
    answer = await ngs.get(users[0], "/ngs/leaderboard", limit=3)
    rows = answer.json()
    assert [(row["rank"], row["total_xp"], row["current_level"]) for row in rows] == [
        (1, 500, 4),
        (2, 300, 3),
        (2, 300, 3),
    ]
    assert all(set(row) == {"rank", "handle", "total_xp", "current_level"} for row in rows)
    assert not any(str(user.id) in answer.text for user in users)
    assert ngs.running.platform.metrics.value("novacore_leaderboard_rebuild_seconds_count") == 1


async def test_hiding_takes_effect_at_once(ngs: Ngs, make_user: Any, give_xp: Any) -> None:
    user = await make_user()
    await give_xp(user, 300)
    answer = await set_visible(ngs, user, visible=True, handle="Quiet_Fox")
    assert answer.json() == {"visible": True, "handle": "Quiet_Fox"}
    assert [row["handle"] for row in (await ngs.get(user, "/ngs/leaderboard")).json()] == ["Quiet_Fox"]
    await set_visible(ngs, user, visible=False)
    assert (await ngs.get(user, "/ngs/leaderboard")).json() == []


async def test_xp_earned_appears_at_once(ngs: Ngs, make_user: Any) -> None:
    user = await make_user()
    await ngs.progress(user)
    assert (await ngs.get(user, "/ngs/leaderboard")).json()[0]["total_xp"] == 0
    await ngs.complete(user, 1)
    assert (await ngs.get(user, "/ngs/leaderboard")).json()[0]["total_xp"] == 100


async def test_the_leaderboard_survives_the_loss_of_its_cache(
    ngs: Ngs, make_user: Any, give_xp: Any, redis_client: Any
) -> None:
    user = await make_user()
    await give_xp(user, 300)
    assert len((await ngs.get(user, "/ngs/leaderboard")).json()) == 1
    assert redis_client.ttl("lb:xp") > 0
    redis_client.delete("lb:xp")
    assert len((await ngs.get(user, "/ngs/leaderboard")).json()) == 1


async def test_a_handle_belongs_to_one_learner_letter_case_apart(ngs: Ngs, make_user: Any) -> None:
    one, other = await make_user(), await make_user()
    await set_visible(ngs, one, visible=True, handle="river")
    taken = await set_visible(ngs, other, visible=True, handle="RIVER")
    assert (taken.status_code, taken.json()["code"]) == (409, "conflict")
    assert (await set_visible(ngs, other, visible=True, handle="a b")).status_code == 400


async def test_a_handle_the_policy_blocks_is_refused(ngs: Ngs, make_user: Any) -> None:
    ngs.stubs["noble-spirit"].on("POST", "/policy/validate", (200, {"decision": "block"}))
    assert (await set_visible(ngs, await make_user(), visible=True, handle="nasty")).json()["code"] == "policy_blocked"


def award(user: TestUser, source: str, source_id: str = "1", **more: Any) -> dict[str, Any]:
    return {"user_id": str(user.id), "source": source, "source_id": source_id, **more}


@pytest.mark.parametrize(
    ("source", "xp", "stored"),
    [
        ("helping_others", 10, "helping_others"),
        ("creative_solution", 75, "creative_solution"),
        ("magic", 10, "unknown"),
    ],
)
async def test_the_table_decides_what_an_award_is_worth(
    ngs: Ngs, make_user: Any, books_balance: Any, source: str, xp: int, stored: str
) -> None:
    admin, user = await make_user(role="admin"), await make_user()
    answer = await ngs.post(admin, "/ngs/award-xp", award(user, source, amount=9999))
    assert answer.status_code == 201
    assert (answer.json()["source"], answer.json()["xp_awarded"]) == (stored, xp)
    again = await ngs.post(admin, "/ngs/award-xp", award(user, source))
    assert (again.status_code, again.json()["xp_awarded"]) == (200, 0)
    assert await books_balance(user.id) == xp


async def test_awards_end_at_their_daily_cap(ngs: Ngs, make_user: Any, books_balance: Any) -> None:
    admin, user = await make_user(role="admin"), await make_user()
    for n in range(7):
        await ngs.post(admin, "/ngs/award-xp", award(user, "helping_others", str(n)))
        await ngs.post(admin, "/ngs/award-xp", award(user, "creative_solution", str(n)))
    assert await books_balance(user.id) == 5 * 10 + 75
    ngs.clock.forward(days=1)
    assert (await ngs.post(admin, "/ngs/award-xp", award(user, "helping_others", "6"))).json()["xp_awarded"] == 10


async def test_only_admins_and_the_award_permission_may_award(ngs: Ngs, make_user: Any, keys: Any) -> None:
    user = await make_user()
    refused = await ngs.post(user, "/ngs/award-xp", award(user, "helping_others"))
    assert (refused.status_code, refused.json()["code"]) == (403, "role_required")
    for service, code in (("gateway", 403), ("memory", 403)):
        headers = ngs.headers(service=service)
        answer = await ngs.running.public.post("/ngs/award-xp", json=award(user, "magic"), headers=headers)
        assert answer.status_code == code
    headers = {"X-Service-Token": keys.service_token("memory", permissions=["ngs:award"])}
    answer = await ngs.running.public.post("/ngs/award-xp", json=award(user, "magic"), headers=headers)
    assert answer.status_code == 201


async def test_an_award_to_nobody_is_not_found(ngs: Ngs, make_user: Any) -> None:
    admin = await make_user(role="admin")
    body = {"user_id": str(uuid4()), "source": "helping_others", "source_id": "1"}
    assert (await ngs.post(admin, "/ngs/award-xp", body)).status_code == 404
