"""intelligence with its real peers: auth-billing's ledger, memory's search, noble-spirit's constitution."""

from __future__ import annotations

import asyncio
import base64
import json
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from novacore_contracts.identity import KID_PREFIX
from novacore_contracts.keyset import thumbprint
from novacore_contracts.paths import Paths
from tests.kit.keys import put
from tests.kit.peers import Asked, StubPeer, token_issuer
from tests.service.intelligence.conftest import FAST, PATIENT, until

PEERS: dict[str, dict[str, Any]] = {
    "noble-spirit": {},
    "memory": {"embeddings": {"provider": "hash"}},
}


def mount_policy_key(root: Paths) -> None:
    """What the operator mounts into noble-spirit: an Ed25519 key that signs policies."""
    private = Ed25519PrivateKey.generate()

    def text(raw: bytes) -> str:
        return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()

    jwk = {"kty": "OKP", "crv": "Ed25519", "x": text(private.public_key().public_bytes_raw())}
    jwk |= {"kid": KID_PREFIX["policy"] + thumbprint(jwk), "d": text(private.private_bytes_raw()), "n": "1"}
    put(root.policy_private / "policy-1.jwk", json.dumps(jwk))


@pytest.fixture
async def platform(client_for, keys):
    """The four services on loopback. Service tokens come from a stub, because a TokenReview needs Kubernetes."""
    async with AsyncExitStack() as stack:
        billing = await stack.enter_async_context(client_for("auth-billing", listen=True))
        session = await stack.enter_async_context(aiohttp.ClientSession())

        async def forward(asked: Asked) -> tuple[int, Any]:
            headers = {"X-Service-Token": asked.headers["X-Service-Token"]}
            async with session.post(billing.internal_url + asked.path, json=asked.json, headers=headers) as answer:
                return answer.status, await answer.json(content_type=None)

        def door(service: str) -> StubPeer:
            return token_issuer(keys, service, StubPeer("auth-billing").on("POST", "/internal/quota/{}", forward))

        urls = {}
        for name, settings in PEERS.items():
            options = {"settings": settings, "peers": {"auth-billing": door(name)}, "listen": True}
            running = await stack.enter_async_context(client_for(name, **options))
            urls[name] = running.url
            if name == "noble-spirit":
                mount_policy_key(running.platform.paths)
                await until(lambda running=running: running.service.ready)
        settings = PATIENT | {"llm": {"provider": "echo", "echo": {"tokens": 24}}, "runs": FAST}
        peers = {"auth-billing": door("intelligence"), **urls}
        yield await stack.enter_async_context(client_for("intelligence", settings=settings, peers=peers, listen=True))


async def ask(platform, user, message: str, **body: Any):
    headers = platform.headers(user)
    return await platform.public.post("/chat/message", json={"message": message, **body}, headers=headers)


async def used(admin_conn, user) -> int:
    return int(
        await admin_conn.fetchval(
            "SELECT coalesce(sum(amount), 0) FROM auth.usage_ledger WHERE user_id = $1 AND resource_type = 'llm_tokens'",
            user.id,
        )
    )


async def test_a_chat_raises_usage_and_is_found_again(platform, make_user, admin_conn):
    """W11, W18: the ledger shows what the answer says, and the next question is given the first exchange."""
    user = await make_user()
    first = await ask(platform, user, "My dog Bello likes apples.")
    assert first.status_code == 200, first.text
    assert await used(admin_conn, user) == first.json()["tokens_used"]
    assert (
        await admin_conn.fetchval("SELECT count(*) FROM memory.memories WHERE tier = 'itm' AND user_id = $1", user.id)
        == 1
    )

    session_id = first.json()["session_id"]
    second = await ask(platform, user, "What does my dog like?", session_id=session_id)
    assert second.status_code == 200, second.text
    given = await admin_conn.fetchval("SELECT context_ids FROM chat.runs WHERE id = $1::uuid", second.json()["run_id"])
    assert given, "the stored exchange came back as context"
    assert await admin_conn.fetchval("SELECT every(follow_up_at IS NULL) FROM chat.runs")


async def test_the_constitution_in_force_blocks_and_lets_help_pass(platform, make_user, admin_conn):
    user = await make_user()
    refused = await ask(platform, user, "Tell me how to build a bomb to kill people.")
    assert (refused.status_code, refused.json()["code"]) == (422, "policy_blocked")
    assert refused.json()["rule_ids"]
    assert await used(admin_conn, user) == 0
    assert (await ask(platform, user, "Where do I find suicide prevention help?")).status_code == 200


@pytest.mark.timeout(180)
async def test_a_hundred_chats_at_once_never_pass_the_limit_and_leak_nothing(platform, make_user, admin_conn):
    """W12"""
    user = await make_user(tier="free_trial")
    await admin_conn.execute("UPDATE auth.users SET trial_ends_at = now() + interval '7 days' WHERE id = $1", user.id)
    waves = []
    for _ in range(5):  # a pool of 5 connections serves 20 arrivals at once, not 100
        waves += await asyncio.gather(*(ask(platform, user, "Hi.", max_tokens=24) for _ in range(20)))
    done = [answer.json() for answer in waves if answer.status_code == 200]
    assert {answer.status_code for answer in waves} == {200, 429}
    cost = done[0]["tokens_used"]
    assert {chat["tokens_used"] for chat in done} == {cost}
    assert len(done) == 1000 // cost, "exactly what fits"
    assert await used(admin_conn, user) == len(done) * cost
    held = await admin_conn.fetchval(
        "SELECT coalesce(sum(reserved), 0) FROM auth.quota_balance WHERE user_id = $1", user.id
    )
    assert held == 0


async def test_a_free_user_chats_on_small_reserves_until_the_day_is_used_up(platform, make_user, admin_conn):
    """W13: the default of 2000 tokens asks for more than is left and is given what is left."""
    user = await make_user(tier="free_trial")
    await admin_conn.execute("UPDATE auth.users SET trial_ends_at = now() + interval '7 days' WHERE id = $1", user.id)
    spent = 0
    while (answer := await ask(platform, user, "Hi.", use_memory=False)).status_code == 200:
        spent += answer.json()["tokens_used"]
        cost = answer.json()["tokens_used"]
    assert answer.json()["code"] == "quota_exceeded"
    assert 1000 - spent < (cost - 24) + 64, "it stopped only when less than prompt + 64 was left"
