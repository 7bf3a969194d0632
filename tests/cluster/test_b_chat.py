"""A user's way through the platform (acceptance C and D)."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import httpx
import yaml

from tests.cluster.client import PlatformUser
from tests.cluster.kube import Kube, until

CONTENT = Path(__file__).resolve().parents[2] / "workloads/src/novacore/ngs_curriculum/content"


def test_the_eight_documented_calls_work(url: str, platform: str) -> None:
    someone = PlatformUser(url)
    registered = someone.register()
    assert registered.status_code == 201
    assert registered.json()["user"]["subscription_tier"] == "free_trial"
    answer = someone.login()
    assert answer.status_code == 200
    assert answer.json()["access_token"] == answer.json()["accessToken"]

    chat = someone.post("/api/chat/message", {"message": "What is a sunrise?", "max_tokens": 40})
    assert chat.status_code == 200, chat.text
    assert chat.json()["response"].strip()
    assert chat.json()["tokens_used"] > 0

    listed = someone.get("/api/memory")
    assert listed.status_code == 200
    assert listed.json()["total"] >= 1
    found = someone.post("/api/memory/search", {"query": "sunrise"})
    assert found.status_code == 200
    assert "sunrise" in found.json()["results"][0]["input_context"].lower()

    progress = someone.get("/api/ngs/progress")
    assert progress.status_code == 200
    assert progress.json()["current_level"] == 1
    quota = someone.get("/api/usage/quota")
    assert quota.status_code == 200
    assert quota.json()["tokens"]["used"] == chat.json()["tokens_used"]
    assert httpx.get(f"{url}/health").status_code == 200


def test_the_embedded_model_streams_an_answer(user: PlatformUser) -> None:
    answer = user.stream("Name one colour of the rainbow.")
    assert answer.text.strip()
    assert answer.last["done"] is True
    assert answer.last["status"] == "done"
    assert answer.last["tokens_used"] > 0
    assert answer.last["run_id"] == answer.run_id


def test_two_questions_get_two_different_answers(user: PlatformUser) -> None:
    """No canned reply: the model answers what was asked."""
    first = user.post("/api/chat/message", {"message": "Count from one to five.", "max_tokens": 30, "temperature": 0})
    second = user.post("/api/chat/message", {"message": "Name a large animal.", "max_tokens": 30, "temperature": 0})
    assert first.json()["response"] != second.json()["response"]


def test_one_request_id_is_found_in_every_service_it_passed(kube: Kube, user: PlatformUser, platform: str) -> None:
    request_id = f"trace-{uuid.uuid4().hex[:16]}"
    answer = user.stream("Tell me about rivers.", **{"X-Request-ID": request_id})
    assert answer.last["status"] == "done"
    for service in ("gateway", "auth-billing", "intelligence", "memory", "noble-spirit", "reflection-worker"):

        def lines(service: str = service) -> list[dict[str, object]]:
            text = kube.logs(f"deploy/novacore-{service}", platform, "--since=5m")
            return [entry for entry in _json_lines(text) if entry.get("request_id") == request_id]

        found = until(lines, within_s=60, what=f"request id {request_id} in the log of {service}")
        assert {entry["service"] for entry in found} == {service}


def test_logs_hold_neither_the_prompt_nor_the_address(kube: Kube, user: PlatformUser, platform: str) -> None:
    canary = f"canary{uuid.uuid4().hex[:12]}"
    user.post("/api/chat/message", {"message": f"Remember {canary} please.", "max_tokens": 20})
    for service in ("gateway", "auth-billing", "intelligence", "memory", "noble-spirit"):
        text = kube.logs(f"deploy/novacore-{service}", platform, "--since=5m")
        assert text.strip(), f"{service} logged nothing: the check would prove nothing"
        assert canary not in text
        assert user.email not in text


def test_a_reflection_follows_and_stays_hidden(kube: Kube, user: PlatformUser, platform: str) -> None:
    user.post("/api/chat/message", {"message": "How do I stay honest?", "max_tokens": 30})
    user_id = user.get("/api/auth/me").json()["id"]

    def reflected() -> bool:
        sql = f"SELECT count(*) FROM memory.reflections WHERE user_id = '{user_id}'"
        out = kube.exec("novacore-postgres-0", platform, "psql", "-U", "postgres", "-d", "novacore", "-tAc", sql)
        return out.strip() == "1"

    until(reflected, within_s=60, what="one reflection of the chat is stored")
    assert {m["type"] for m in user.get("/api/memory").json()["memories"]} == {"conversation"}


def test_distillation_runs_at_once_by_command(kube: Kube, user: PlatformUser, platform: str) -> None:
    out = kube.exec("deploy/novacore-distillation-worker", platform, "novacore", "distill", "--now", timeout_s=120)
    assert json.loads(out)["result"] == "ok", out


def test_mcp_is_refused_to_a_free_user(user: PlatformUser) -> None:
    answer = user.post("/api/mcp/context/fetch", {"file_path": "a.py"})
    assert answer.status_code == 403
    assert answer.json()["code"] == "tier_required"


def test_a_lesson_gives_xp_once(user: PlatformUser) -> None:
    lesson = user.get("/api/ngs/levels/1/lessons").json()[0]
    level = yaml.safe_load((CONTENT / "01-awakeners.yaml").read_text())
    answers = {question["id"]: question["answer"] for question in level["lessons"][0]["quiz"]}
    path = f"/api/ngs/lessons/{lesson['id']}/complete"
    first = user.post(path, {"answers": answers})
    assert first.status_code == 201, first.text
    assert first.json()["xp_awarded"] == 100
    again = user.post(path, {"answers": answers})
    assert (again.status_code, again.json()["xp_awarded"]) == (200, 0)
    assert user.get("/api/ngs/progress").json()["total_xp"] == 100


def _json_lines(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]
