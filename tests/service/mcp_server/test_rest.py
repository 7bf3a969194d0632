"""The REST routes, and what happens when peers refuse or fail."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import pytest
from aiohttp import web

from tests.kit.harness import RunningService
from tests.kit.peers import Asked
from tests.service.mcp_server.conftest import RUN_ID, SESSION_ID, answer_with, make_memory, said


async def post(mcp: RunningService, user: Any, path: str, body: Any, **headers: str) -> Any:
    return await mcp.public.post(path, json=body, headers=mcp.headers(user) | headers)


async def test_context_fetch_answers_with_memories_and_a_summary(mcp: RunningService, make_user: Any) -> None:
    memory = make_memory(input_context="edit a.py", output_response="done")
    stub = mcp.stubs["memory"].on("POST", "/memory/search", (200, {"results": [memory], "total": 1, "query": ""}))
    body = {"file_path": "a.py", "file_content": "y" * 200_000, "limit": 20}
    answer = await post(mcp, await make_user(), "/mcp/context/fetch", body)
    assert answer.status_code == 200
    assert answer.json()["memories"] == [
        {"id": memory["id"], "content": "edit a.py\ndone", "tier": "ltm", "confidence_score": 0.8,
         "created_at": answer.json()["memories"][0]["created_at"]}
    ]  # fmt: skip
    assert len(stub.requests("/memory/search")[0].json["query"]) == 1000


async def test_memory_log_passes_the_idempotency_key_on(mcp: RunningService, make_user: Any) -> None:
    memory_id = str(uuid4())
    stub = mcp.stubs["memory"].on("POST", "/memory/store", (201, make_memory(id=memory_id)))
    body = {"file_path": "a.py", "action": "debug", "content": "it was the clock", "outcome": "success"}
    answer = await post(mcp, await make_user(), "/mcp/memory/log", body, **{"Idempotency-Key": "k1"})
    assert (answer.status_code, answer.json()["memory_id"], answer.json()["stored"]) == (201, memory_id, True)
    asked = stub.requests("/memory/store")[0]
    assert asked.headers["Idempotency-Key"] == "k1"
    assert (asked.json["outcome"], asked.json["input_context"]) == ("success", "debug a.py\nit was the clock")


async def test_task_submit_returns_the_models_answer(mcp: RunningService, make_user: Any) -> None:
    answer_with(mcp.stubs["intelligence"], *said("a ", "b"))
    answer = await post(
        mcp, await make_user(), "/mcp/task/submit", {"task_description": "go"}, **{"Idempotency-Key": "k"}
    )
    assert answer.json() == {"session_id": SESSION_ID, "response": "a b", "tokens_used": 42}
    asked = mcp.stubs["intelligence"].requests("/chat/runs")[0]
    assert (asked.json, asked.headers["Idempotency-Key"]) == ({"message": "go"}, "k")


@pytest.mark.parametrize(
    ("end", "status", "code"),
    [
        ({"status": "blocked"}, 422, "policy_blocked"),
        ({"status": "failed", "code": "provider_error", "detail": "The model failed."}, 502, "provider_error"),
        ({"status": "failed", "code": "quota_exceeded", "detail": "Used up."}, 429, "quota_exceeded"),
        ({"status": "failed", "code": "deadline", "detail": "Too slow."}, 504, "deadline"),
        ({"status": "interrupted", "code": "interrupted"}, 503, "upstream_down"),
        ({"status": "cancelled"}, 503, "upstream_down"),
    ],
)
async def test_a_run_that_does_not_end_well_is_no_answer(
    mcp: RunningService, make_user: Any, end: dict[str, Any], status: int, code: str
) -> None:
    answer_with(mcp.stubs["intelligence"], *said("half an ", **end))
    answer = await post(mcp, await make_user(), "/mcp/task/submit", {"task_description": "go"})
    assert (answer.status_code, answer.json()["code"]) == (status, code)


async def test_a_stream_that_breaks_off_is_no_answer(mcp: RunningService, make_user: Any) -> None:
    answer_with(mcp.stubs["intelligence"], *said("half")[:-1])
    answer = await post(mcp, await make_user(), "/mcp/task/submit", {"task_description": "go"})
    assert (answer.status_code, answer.json()["code"]) == (503, "upstream_down")
    assert RUN_ID in answer.json()["detail"]


async def test_the_callers_deadline_ends_the_waiting(mcp: RunningService, make_user: Any) -> None:
    stuck = asyncio.Event()

    async def hang(_asked: Asked) -> web.Response:
        await stuck.wait()
        return web.Response()

    answer_with(mcp.stubs["intelligence"])
    mcp.stubs["intelligence"].on("GET", "/chat/runs/{}/stream", hang)
    answer = await post(
        mcp, await make_user(), "/mcp/task/submit", {"task_description": "go"}, **{"X-Deadline-Ms": "600"}
    )
    stuck.set()
    assert (answer.status_code, answer.json()["code"]) == (504, "deadline")


@pytest.mark.parametrize(
    ("given", "status", "code"),
    [
        ((402, {"code": "trial_over", "detail": "Your trial is over."}), 402, "trial_over"),
        ((404, {"code": "not_found", "detail": "There is no such thing here."}), 404, "not_found"),
        ((401, {"code": "token_invalid", "detail": "no"}), 503, "upstream_down"),
        ((503, {"code": "not_ready", "detail": "no"}), 503, "upstream_down"),
        ((504, {"code": "deadline", "detail": "no"}), 504, "deadline"),
        ((502, {"code": "provider_error", "detail": "no"}), 502, "provider_error"),
        ((200, None), 503, "upstream_down"),
    ],
)
async def test_a_peers_refusal_keeps_its_words_and_its_failure_does_not(
    mcp: RunningService, make_user: Any, given: tuple[int, Any], status: int, code: str
) -> None:
    mcp.stubs["intelligence"].on("POST", "/chat/runs", given)
    answer = await post(mcp, await make_user(), "/mcp/task/submit", {"task_description": "go"})
    assert (answer.status_code, answer.json()["code"]) == (status, code)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/mcp/context/fetch", {"file_path": "x" * 1025}),
        ("/mcp/context/fetch", {"file_path": "a", "limit": 21}),
        ("/mcp/context/fetch", {"file_path": "a", "file_content": "x" * 200_001}),
        ("/mcp/memory/log", {"file_path": "a", "action": "dance"}),
        ("/mcp/memory/log", {"file_path": "a\x00", "action": "run"}),
        ("/mcp/memory/log", {"file_path": "a", "action": "run", "content": "x" * 16_001}),
        ("/mcp/memory/log", {"file_path": "a", "action": "run", "metadata": {"a": "x" * 9000}}),
        ("/mcp/memory/log", {"file_path": "a", "action": "run", "user_id": "b"}),
        ("/mcp/task/submit", {"task_description": "   "}),
        ("/mcp/task/submit", {"task_description": "x" * 4001}),
    ],
)
async def test_what_is_out_of_bounds_is_refused(mcp: RunningService, make_user: Any, path: str, body: Any) -> None:
    answer = await post(mcp, await make_user(), path, body)
    assert (answer.status_code, answer.json()["code"]) == (400, "validation_error")


async def test_every_user_route_needs_both_tokens_and_the_tier(mcp: RunningService, make_user: Any) -> None:
    """W1 of this service, and the tier, for each route that its OpenAPI names."""
    user, basic = await make_user(), await make_user(tier="basic")
    forged = {"X-User-Id": str(user.id), "X-User-Tier": "pro", "X-Act-For": str(user.id)}
    open_routes = ("/health", "/mcp/health", "/.well-known/")
    routes = [
        (method.upper(), path)
        for path, methods in mcp.apps.public.openapi()["paths"].items()
        for method in methods
        if not path.startswith(open_routes)
    ]
    assert len(routes) == 6
    for method, path in routes:
        for headers in (
            forged,
            user.headers | forged,
            mcp.headers() | forged,
            mcp.headers(user, service="intelligence"),
        ):
            answer = await mcp.public.request(method, path, headers=headers, json={})
            assert answer.status_code in (401, 403), (method, path)
        refused = await mcp.public.request(method, path, headers=mcp.headers(basic), json={})
        assert (refused.status_code, refused.json()["code"]) == (403, "tier_required"), (method, path)


@pytest.mark.parametrize("suffix", ["", "/api/mcp", "/mcp"])
async def test_a_client_finds_where_to_sign_in(client_for: Any, suffix: str) -> None:
    settings = {"frontend_url": "https://nova.example.org/"}
    async with client_for("mcp-server", settings=settings) as mcp:
        answer = await mcp.public.get(f"/.well-known/oauth-protected-resource{suffix}")
    assert answer.json() == {
        "resource": "https://nova.example.org/api/mcp",
        "resource_name": "NovaCore MCP",
        "authorization_servers": ["https://nova.example.org"],
        "scopes_supported": ["mcp"],
        "bearer_methods_supported": ["header"],
    }


async def test_health_is_open_below_both_names(mcp: RunningService) -> None:
    for path in ("/health", "/mcp/health"):
        answer = await mcp.public.get(path)
        assert answer.status_code == 200
        assert (answer.json()["service"], answer.json()["status"]) == ("mcp-server", "ok")
    assert (await mcp.internal.get("/readyz")).status_code == 200


async def test_what_is_logged_is_found_again_in_the_real_memory(client_for: Any, make_user: Any) -> None:
    """W24: log, then search finds it, with memory itself behind."""
    adjusted = (200, {"used": 0, "limit": -1, "remaining": -1})
    async with client_for("memory", settings={"embeddings": {"provider": "hash"}}, listen=True) as memory:
        memory.stubs["auth-billing"].on("POST", "/internal/quota/adjust", adjusted)
        async with client_for("mcp-server", peers={"memory": memory.url}) as mcp:
            user = await make_user()
            body = {"file_path": "src/heron.py", "action": "edit", "content": "the heron waits for the tide " * 100}
            logged = await post(mcp, user, "/mcp/memory/log", body)
            assert logged.status_code == 201, logged.text
            found = await post(mcp, user, "/mcp/context/fetch", {"file_path": "src/heron.py"})
            other = await post(mcp, await make_user(), "/mcp/context/fetch", {"file_path": "src/heron.py"})
    assert [one["id"] for one in found.json()["memories"]] == [logged.json()["memory_id"]]
    assert other.json()["memories"] == []
