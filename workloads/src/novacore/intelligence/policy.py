"""Asking noble-spirit. Invariant POLICY-1: without a decision that names a policy version, nothing passes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

from novacore.common.callers import Caller
from novacore.common.peers import PeerError, Peers
from novacore.intelligence.settings import IntelligenceSettings

CONTENT_MAX = 32_000
BLOCKING = frozenset({"block", "rewrite"})
"""`rewrite` blocks: we do not have the rewritten text."""


class PolicySilentError(Exception):
    """noble-spirit did not answer in time, or not with a decision. Closed is the safe side."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What the constitution says about a text."""

    action: Literal["allow", "warn", "block"]
    rule_ids: tuple[str, ...]
    version: int


class Policy:
    """The client of `/policy/validate`."""

    def __init__(self, peers: Peers, settings: IntelligenceSettings) -> None:
        self._peers = peers
        self._timeout_s = settings.budgets.policy_ms / 1000
        self._strict = settings.policy_strict

    async def judge_input(self, text: str, caller: Caller) -> Decision:
        """Return the decision about what a user sent; asked with the user's own token."""
        return await self._judge(text, "input", caller=caller, act_for=None)

    async def judge_output(self, text: str, user_id: UUID) -> Decision:
        """Return the decision about a window of an answer; a run may outlive the user's token."""
        return await self._judge(text, "output", caller=None, act_for=user_id)

    async def _judge(self, text: str, direction: str, *, caller: Caller | None, act_for: UUID | None) -> Decision:
        try:
            answer = await self._peers.call(
                "noble-spirit", "POST", "/policy/validate",
                json={"content": text[:CONTENT_MAX], "direction": direction},
                caller=caller, act_for=act_for, timeout_s=self._timeout_s, expect=(200,),
            )  # fmt: skip
            return read_decision(answer, strict=self._strict)
        except PeerError as error:
            raise PolicySilentError(error.code) from error


def read_decision(answer: Any, *, strict: bool) -> Decision:
    """Return the decision in an answer. PolicySilentError when it is none (POLICY-1)."""
    try:
        version, action = int(answer["policy_version"]), str(answer["decision"])
        rules = tuple(str(violation["rule_id"]) for violation in answer["violations"])
        failed = answer["result"] == "failed"
        warnings = tuple(str(_rule(warning)) for warning in answer.get("warnings", ()))
    except (KeyError, TypeError, ValueError):
        raise PolicySilentError("no decision") from None
    if version < 1 or action not in BLOCKING | {"allow", "warn"}:
        raise PolicySilentError("no known policy version")
    if failed or action in BLOCKING or (strict and action == "warn"):
        return Decision("block", rules or warnings, version)
    return Decision("warn" if action == "warn" else "allow", rules or warnings, version)


def _rule(warning: Any) -> Any:
    return warning.get("rule_id", "") if isinstance(warning, dict) else warning
