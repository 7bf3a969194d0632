"""Peers of intelligence at the edge of a test: small, but with the rules that matter (holds, decisions, tiers of memory)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tests.kit.peers import Asked, StubPeer

FORBIDDEN = "forbidden"
DOUBTFUL = "doubtful"


@dataclass
class Quota:
    """auth-billing's quota: what was held, what was billed, per hold."""

    left: int = 1_000_000
    refusal: tuple[int, dict[str, Any]] | None = None
    holds: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def billed(self) -> int:
        return sum(hold.get("actual", 0) for hold in self.holds.values())

    def stub(self) -> StubPeer:
        stub = StubPeer("auth-billing")
        for verb in ("reserve", "checkpoint", "settle", "release"):
            stub.on("POST", f"/internal/quota/{verb}", getattr(self, verb))
        return stub

    def reserve(self, asked: Asked) -> tuple[int, Any]:
        body = asked.json
        if self.refusal is not None:
            return self.refusal
        granted = min(body["amount"], self.left)
        if granted < body["min_amount"]:
            problem = {"code": "quota_exceeded", "resource": "llm_tokens", "used": 990, "limit": 1000}
            return 429, problem | {"resets_at": "2030-01-01T00:00:00Z", "detail": "used up"}
        self.holds[body["hold_id"]] = {"granted": granted, "user_id": body["user_id"], "state": "held", "asked": body}
        return 200, {"granted": granted, "remaining": self.left - granted, "limit": 1000, "resets_at": "2030-01-01T00:00:00Z",
                     "expires_at": "2030-01-01T00:00:00Z"}  # fmt: skip

    def checkpoint(self, asked: Asked) -> tuple[int, Any]:
        hold = self.holds[asked.json["hold_id"]]
        hold.setdefault("checkpoints", []).append(asked.json["amount"])
        return 200, {}

    def settle(self, asked: Asked) -> tuple[int, Any]:
        hold = self.holds[asked.json["hold_id"]]
        if hold["state"] != "settled":
            hold.update(state="settled", actual=asked.json["actual"], metadata=asked.json["metadata"])
        return 200, {"settled": hold["actual"]}

    def release(self, asked: Asked) -> tuple[int, Any]:
        hold = self.holds.get(asked.json["hold_id"])
        if hold is None:
            return 404, {"code": "not_found"}
        hold["state"] = "released"
        return 204, None


@dataclass
class Constitution:
    """noble-spirit: blocks one word and doubts another. `silent` answers nothing useful."""

    silent_input: bool = False
    silent_output: bool = False
    judged: list[tuple[str, str]] = field(default_factory=list)

    def stub(self) -> StubPeer:
        return StubPeer("noble-spirit").on("POST", "/policy/validate", self.validate)

    def validate(self, asked: Asked) -> tuple[int, Any]:
        content, direction = asked.json["content"], asked.json["direction"]
        if (direction == "input" and self.silent_input) or (direction == "output" and self.silent_output):
            return 503, {"code": "not_ready"}
        self.judged.append((direction, content))
        answer: dict[str, Any] = {
            "result": "passed", "decision": "allow", "score": 1.0, "passed": True, "violations": [], "warnings": [],
            "principles_checked": [], "policy_version": 4, "timestamp": "2026-01-01T00:00:00Z",
        }  # fmt: skip
        if FORBIDDEN in content:
            rules = [{"rule_id": "harm-1", "category": "violence", "principle": "respect"}]
            answer |= {"result": "failed", "decision": "block", "passed": False, "violations": rules}
        elif DOUBTFUL in content:
            warned = [{"rule_id": "warn-1", "category": "deception", "principle": "truth"}]
            answer |= {"result": "warning", "decision": "warn", "warnings": warned}
        return 200, answer


@dataclass
class Memories:
    """memory: what was stored, and what it knows."""

    context: dict[str, Any] = field(default_factory=lambda: {"stm": [], "itm": [], "ltm": [], "principles": []})
    away: bool = False
    full: bool = False
    stm: list[dict[str, Any]] = field(default_factory=list)
    stored: dict[str, dict[str, Any]] = field(default_factory=dict)  # by Idempotency-Key
    act_for: set[str] = field(default_factory=set)

    def stub(self) -> StubPeer:
        stub = StubPeer("memory")
        stub.on(
            "POST", "/memory/context", lambda _asked: (503, {"code": "not_ready"}) if self.away else (200, self.context)
        )
        stub.on("POST", "/memory/stm/store", self.append)
        return stub.on("POST", "/memory/store", self.store)

    def append(self, asked: Asked) -> tuple[int, Any]:
        if self.away:
            return 503, {"code": "not_ready"}
        self.act_for.add(asked.headers["X-Act-For"])
        turn = {"session_id": asked.query["session_id"], **asked.json}
        if turn not in self.stm:
            self.stm.append(turn)
        return 200, {"stored": True, "size": len(self.stm)}

    def store(self, asked: Asked) -> tuple[int, Any]:
        if self.away:
            return 503, {"code": "not_ready"}
        if self.full:
            return 429, {"code": "quota_exceeded"}
        self.act_for.add(asked.headers["X-Act-For"])
        self.stored[asked.headers["Idempotency-Key"]] = asked.json
        return 201, {"id": "00000000-0000-0000-0000-000000000001"}
