"""The issuer away: tokens are verified without it, and callers keep theirs."""

from __future__ import annotations

from collections import Counter
from contextlib import AsyncExitStack
from urllib.parse import urlsplit

import pytest

from novacore.common.tokens import JITTER, RENEW_AT, NoTokenError
from tests.kit.child import free_port
from tests.kit.harness import listening
from tests.kit.keys import put

MINUTE = 60
DAY = 86_400


@pytest.mark.invariant("TOKEN-2")
async def test_r10_thirty_minutes_without_the_issuer_fail_nobody(auth, client_for, clock, api_server):
    """Compressed: the clock of caller, verifier and issuer goes a minute a step; the sockets are real."""
    address = f"http://127.0.0.1:{free_port()}"
    port = urlsplit(address).port or 0
    answers: Counter[tuple[str, int]] = Counter()
    async with AsyncExitStack() as stack:
        async with listening(auth.apps.internal, port=port):
            caller = await stack.enter_async_context(
                client_for("mcp-server", peers={"auth-billing": address}, clock=clock)
            )
            put(caller.platform.paths.identity_token, api_server.projected_token("novacore-mcp-server"))
            clock.advance(seconds=MINUTE)
            tokens = caller.platform.tokens
            held = await tokens.get()
            due_s = tokens._held.renew_at - clock.monotonic()
            assert RENEW_AT * (1 - JITTER) * DAY - 2 * MINUTE < due_s <= RENEW_AT * DAY
            clock.advance(seconds=due_s - 10 * MINUTE)
            assert await tokens.get() == held

        async def minute(word: str) -> str:
            clock.advance(seconds=MINUTE)
            token = await tokens.get()
            answer = await caller.public.get("/mcp", headers={"X-Service-Token": token})
            answers[word, answer.status_code] += 1
            return token

        away = {await minute("away") for _ in range(30)}
        async with listening(auth.apps.internal, port=port):
            back = {await minute("back") for _ in range(3)}

        # Behind the check of the service's token its missing permission is found: a token that fails is 401.
        assert answers == {("away", 403): 30, ("back", 403): 3}
        assert away == {held}, "it was due after ten minutes, and there was nobody to renew it"
        assert len(back) == 1
        assert back != {held}

        clock.advance(days=1, seconds=MINUTE)
        with pytest.raises(NoTokenError):  # a token ends when it ends
            await tokens.get()
