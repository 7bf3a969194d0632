"""The Model Context Protocol, spoken by the official SDK's client over a real socket (W24)."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

import httpx
import pytest
from mcp import MCPError

from tests.kit.harness import RunningService
from tests.service.mcp_server.conftest import SESSION_ID, answer_with, make_memory, said

both_protocols = pytest.mark.parametrize("mode", ["auto", "legacy"])


@both_protocols
async def test_a_client_finds_five_tools_and_the_memory_resource(session: Any, make_user: Any, mode: str) -> None:
    async with session(await make_user(), mode=mode) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        templates = (await client.list_resource_templates()).resource_templates
    assert set(tools) == {"context_fetch", "memory_search", "memory_log", "task_submit", "progress"}
    assert "ctx" not in tools["memory_search"].input_schema["properties"]
    assert tools["memory_search"].input_schema["required"] == ["query"]
    assert tools["memory_search"].description == "Search the user's memories by meaning and by words."
    assert [template.uri_template for template in templates] == ["memory://{memory_id}"]


@both_protocols
async def test_memory_search_asks_memory_with_the_users_token(
    mcp: RunningService, session: Any, make_user: Any, mode: str
) -> None:
    user = await make_user()
    memory = make_memory(input_context="the retry loop lives in the gateway")
    stub = mcp.stubs["memory"].on("POST", "/memory/search", (200, {"results": [memory], "total": 1, "query": "retry"}))
    async with session(user, mode=mode) as client:
        result = await client.call_tool("memory_search", {"query": "retry", "limit": 3, "memory_type": "task"})
    assert not result.is_error
    assert result.structured_content["total"] == 1
    assert result.structured_content["results"][0]["input_context"] == "the retry loop lives in the gateway"
    asked = stub.requests("/memory/search")[0]
    assert asked.json == {"query": "retry", "limit": 3, "memory_type": "task"}
    assert asked.headers["Authorization"] == user.headers["Authorization"]
    assert asked.headers["X-Service-Token"]
    assert asked.headers["X-Request-ID"]


@both_protocols
async def test_task_submit_waits_for_the_whole_answer(
    mcp: RunningService, session: Any, make_user: Any, mode: str
) -> None:
    stub = mcp.stubs["intelligence"]
    answer_with(stub, *said("Hello", ", ", "Wörld"))
    async with session(await make_user(), mode=mode) as client:
        result = await client.call_tool(
            "task_submit",
            {"task_description": " explain this ", "file_context": "x" * 200_000, "session_id": SESSION_ID},
        )
    assert result.structured_content == {"session_id": SESSION_ID, "response": "Hello, Wörld", "tokens_used": 42}
    sent = stub.requests("/chat/runs")[0].json
    assert (sent["message"], sent["session_id"]) == ("explain this", SESSION_ID)
    assert len(sent["context"]) == 32_000


async def test_memory_log_and_context_fetch_and_progress(mcp: RunningService, session: Any, make_user: Any) -> None:
    memory_id = str(uuid4())
    memory = mcp.stubs["memory"]
    memory.on("POST", "/memory/store", (201, make_memory(id=memory_id)))
    memory.on("POST", "/memory/search", (200, {"results": [make_memory()], "total": 1, "query": ""}))
    level = {"level_number": 3, "title": "Reflector", "phase": "Initiation", "description": "…", "xp_required": 250}
    progress = {
        "user_id": str(uuid4()), "current_level": 3, "total_xp": 300, "agent_creation_unlocked": False,
        "current_level_info": level, "next_level_info": None, "xp_to_next_level": 150, "progress_percent": 25.0,
    }  # fmt: skip
    mcp.stubs["ngs-curriculum"].on("GET", "/ngs/progress", (200, progress))
    async with session(await make_user()) as client:
        logged = await client.call_tool("memory_log", {"file_path": "a.py", "action": "save", "metadata": {"lines": 3}})
        found = await client.call_tool(
            "context_fetch", {"file_path": "a.py", "file_content": "import b", "language": "python"}
        )
        where = await client.call_tool("progress", {})
    assert logged.structured_content["memory_id"] == memory_id
    assert memory.requests("/memory/store")[0].json == {
        "type": "task", "tier": "ltm", "input_context": "save a.py", "output_response": '{"lines":3}',
        "outcome": "neutral", "tags": ["save", "vscode", "mcp"],
    }  # fmt: skip
    assert memory.requests("/memory/search")[0].json == {"query": "a.py python import b", "limit": 5}
    assert found.structured_content["context_summary"] == "1 memory about a.py:\n- save a.py"
    assert where.structured_content["current_level_info"]["title"] == "Reflector"


@both_protocols
async def test_a_memory_is_read_as_a_resource(mcp: RunningService, session: Any, make_user: Any, mode: str) -> None:
    memory = make_memory(input_context="a whole memory")
    mcp.stubs["memory"].on("GET", f"/memory/retrieve/{memory['id']}", (200, memory))
    async with session(await make_user(), mode=mode) as client:
        read = await client.read_resource(f"memory://{memory['id']}")
        assert json.loads(read.contents[0].text)["input_context"] == "a whole memory"
        for missing in (uuid4(), "not-an-id"):
            with pytest.raises(MCPError, match="not_found"):
                await client.read_resource(f"memory://{missing}")


async def test_a_refusal_is_a_tool_error_in_the_peers_words(mcp: RunningService, session: Any, make_user: Any) -> None:
    full = {"status": 429, "code": "quota_exceeded", "detail": "The allowance of memory_storage is used up."}
    mcp.stubs["memory"].on("POST", "/memory/store", (429, full))
    mcp.stubs["memory"].on("POST", "/memory/search", (500, {"code": "internal", "detail": "SELECT secret FROM x"}))
    async with session(await make_user()) as client:
        denied = await client.call_tool("memory_log", {"file_path": "a.py", "action": "save"})
        broken = await client.call_tool("memory_search", {"query": "x"})
        wrong = await client.call_tool("memory_log", {"file_path": "a.py", "action": "explode"})
    assert denied.is_error
    assert denied.content[0].text.endswith(": The allowance of memory_storage is used up. (quota_exceeded)")
    assert broken.content[0].text.endswith(": A part of the platform is not reachable right now. (upstream_down)")
    assert wrong.is_error
    value = mcp.platform.metrics.value
    labels = {"mcp_method_name": "tools/call"}
    assert value("novacore_mcp_operations_total", tool="memory_log", outcome="denied", **labels) == 1
    assert value("novacore_mcp_operations_total", tool="memory_search", outcome="error", **labels) == 1


async def test_a_bug_is_nameless_to_the_client(mcp: RunningService, session: Any, make_user: Any) -> None:
    mcp.stubs["memory"].on("POST", "/memory/search", (200, {"results": [{"secret": "shape"}], "total": 1}))
    async with session(await make_user()) as client:
        result = await client.call_tool("memory_search", {"query": "x"})
    assert result.is_error
    assert "secret" not in result.content[0].text


@both_protocols
async def test_two_replicas_serve_one_client(
    client_for: Any, mcp: RunningService, session: Any, make_user: Any, mode: str
) -> None:
    """No session lives in a process: every message of a client may reach another replica."""
    stubs = {name: mcp.stubs[name] for name in ("memory", "intelligence", "ngs-curriculum")}
    mcp.stubs["memory"].on("POST", "/memory/search", (200, {"results": [], "total": 0, "query": ""}))
    user = await make_user()
    async with client_for("mcp-server", listen=True, peers=stubs) as other:
        urls = iter([mcp.url, other.url] * 20)
        import httpx2
        from mcp.client import Client
        from mcp.client.streamable_http import streamable_http_client

        async def spread(request: httpx2.Request) -> None:
            target = httpx2.URL(next(urls))
            request.url = request.url.copy_with(host=target.host, port=target.port)
            request.headers["Host"] = f"{target.host}:{target.port}"

        async with (
            httpx2.AsyncClient(headers=mcp.headers(user), event_hooks={"request": [spread]}) as http,
            Client(streamable_http_client(f"{mcp.url}/mcp", http_client=http), mode=mode) as client,
        ):
            for _ in range(4):
                assert not (await client.call_tool("memory_search", {"query": "x"})).is_error
        calls = [
            one.platform.metrics.value(
                "novacore_mcp_operations_total", mcp_method_name="tools/call", tool="memory_search", outcome="ok"
            )
            for one in (mcp, other)
        ]
    assert sum(calls) == 4
    assert all(calls)


INITIALIZE = {
    "jsonrpc": "2.0", "id": 1, "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}},
}  # fmt: skip
ACCEPT = {"Accept": "application/json, text/event-stream"}


async def test_answers_are_json_without_a_session(mcp: RunningService, make_user: Any) -> None:
    headers = mcp.headers(await make_user()) | ACCEPT
    answer = await mcp.public.post("/mcp", json=INITIALIZE, headers=headers)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert "mcp-session-id" not in answer.headers
    assert answer.json()["result"]["serverInfo"]["name"] == "novacore"


async def test_there_is_no_stream_to_open_and_no_session_to_end(mcp: RunningService, make_user: Any) -> None:
    headers = mcp.headers(await make_user()) | ACCEPT
    for answer in (await mcp.public.get("/mcp", headers=headers), await mcp.public.delete("/mcp", headers=headers)):
        assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")


async def test_another_host_name_or_a_foreign_page_is_refused(mcp: RunningService, make_user: Any) -> None:
    headers = mcp.headers(await make_user()) | ACCEPT
    rebound = await mcp.public.post("/mcp", json=INITIALIZE, headers=headers | {"Host": "evil.example"})
    assert rebound.status_code == 421
    foreign = await mcp.public.post("/mcp", json=INITIALIZE, headers=headers | {"Origin": "https://evil.example"})
    assert foreign.status_code == 403


async def test_a_message_over_a_mebibyte_is_refused(mcp: RunningService, make_user: Any) -> None:
    headers = mcp.headers(await make_user()) | ACCEPT | {"Content-Type": "application/json"}
    answer = await mcp.public.post("/mcp", content=b'{"a":"' + b"x" * (1 << 20) + b'"}', headers=headers)
    assert answer.status_code == 413


async def test_nobody_speaks_without_both_tokens_and_the_tier(mcp: RunningService, make_user: Any) -> None:
    user, basic, admin = (
        await make_user(),
        await make_user(tier="basic"),
        await make_user(tier="free_trial", role="admin"),
    )

    async def speak(headers: dict[str, str]) -> httpx.Response:
        return await mcp.public.post("/mcp", json=INITIALIZE, headers=headers | ACCEPT)

    nobody = await speak(mcp.headers())
    assert nobody.status_code == 401
    assert nobody.headers["WWW-Authenticate"].endswith(
        'resource_metadata="http://127.0.0.1:5000/.well-known/oauth-protected-resource/api/mcp"'
    )
    assert (await speak(user.headers)).status_code == 401
    assert (await speak(mcp.headers(user, service="memory"))).status_code == 403
    refused = await speak(mcp.headers(basic))
    assert (refused.status_code, refused.json()["code"]) == (403, "tier_required")
    assert (await speak(mcp.headers(admin))).status_code == 200
    editor = await make_user(scope="mcp")
    assert (await speak(mcp.headers(editor))).status_code == 200
