"""noble-spirit on a real Postgres, with a policy key as the operator mounts it."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.kit.keys import put
from tests.unit.workloads.noble_spirit.test_document import policy_jwk


@pytest.fixture
def policy_key(tmp_path):
    """The key every replica of this test has."""
    return policy_jwk(1)


@pytest.fixture
def noble_for(client_for, policy_key):
    """`async with noble_for(strict=True) as noble:`; several at once are replicas on one database."""
    from contextlib import asynccontextmanager

    @asynccontextmanager
    async def run(*, key=True, **policy):
        settings = {"policy": {"audit_sample": 0.0, "poll_seconds": 0.1, "verify_seconds": 3600, **policy}}
        async with client_for("noble-spirit", settings=settings) as running:
            if key:
                put(running.platform.paths.policy_private / "policy-1.jwk", json.dumps(policy_key))
                async with asyncio.timeout(20):
                    while not running.service.ready:
                        await asyncio.sleep(0.02)
            yield running

    return run


@pytest.fixture
async def noble(noble_for):
    async with noble_for() as running:
        yield running


@pytest.fixture
def validate(noble):
    """`answer = await validate("text", …)` as intelligence."""

    async def post(content, *, headers=None, **more):
        headers = headers if headers is not None else noble.headers(service="intelligence")
        return await noble.public.post("/policy/validate", json={"content": content, **more}, headers=headers)

    return post
