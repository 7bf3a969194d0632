"""What `status` says of a resource."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from novacore_operator.cli.status_view import line, next_steps, screen, summary
from novacore_operator.reasons import Reason
from tests.unit.operator.cli.cluster import component, condition, failing, resource

KEYS = {
    "apiVersion", "namespace", "name", "generation", "observedGeneration", "ready", "reason", "message", "mode",
    "paused", "release", "services", "plan", "conditions", "components", "next",
}  # fmt: skip


def drawn(found: dict[str, Any]) -> str:
    out = Console(file=io.StringIO(), width=140, highlight=False, markup=False)
    out.print(screen(summary(found)))
    assert isinstance(out.file, io.StringIO)
    return out.file.getvalue()


@pytest.mark.parametrize("found", [resource(), failing(), {**resource(), "status": {}}], ids=["ready", "bad", "new"])
def test_the_document_always_has_the_same_keys(found: dict[str, Any]) -> None:
    assert set(summary(found)) == KEYS
    assert set(summary(found)["release"]) == {"target", "current", "lastGood", "since"}


def test_ready_of_an_older_generation_is_not_ready() -> None:
    found = resource(generation=4)
    assert summary(found)["ready"] is False
    assert "not yet on 4" in next_steps(found)[0]
    assert summary(resource())["ready"] is True


@pytest.mark.parametrize(
    ("found", "first"),
    [
        (resource(), "Nothing to do."),
        ({**resource(), "status": {}}, "The operator has not looked at this resource yet"),
        (resource(spec={"paused": True}), "It is paused"),
        (resource(spec={"mode": "Plan"}), "Nothing is written in mode Plan"),
        (failing("Installing"), "Installing: Wait: `kubectl wait --for=condition=Ready nova/shop"),
        (failing("AWordOfANewerOperator", "do this"), "AWordOfANewerOperator: do this"),
    ],
)
def test_what_to_do_next(found: dict[str, Any], first: str) -> None:
    assert next_steps(found)[0].startswith(first)


def test_what_was_rolled_back_says_so_before_anything_else() -> None:
    found = failing()
    found["status"]["conditions"].append(condition("RolledBack", "True", "ImagePullFailed"))
    assert next_steps(found)[0].startswith("It was rolled back")


def test_each_cause_is_told_once_with_a_component_it_was_seen_on() -> None:
    found = failing("CrashLooping")
    found["status"]["components"] += [
        component("gateway", ready=False, reason="CrashLooping"),
        component("redis", ready=False, reason="Unschedulable"),
    ]
    first, second = next_steps(found)
    assert "deploy/novacore-memory" in first
    assert "app.kubernetes.io/component=redis" in second


@pytest.mark.parametrize("reason", list(Reason), ids=str)
def test_every_reason_leads_to_a_step(reason: Reason) -> None:
    found = failing(reason.value)
    assert next_steps(found)
    assert "SERVICE" not in next_steps(found)[0]
    assert reason.value in drawn(found)


def test_text_of_the_cluster_is_shown_as_it_is_and_drives_no_terminal() -> None:
    shown = drawn(failing(message="[red]x[/red] \x1b[2J :smile:"))
    assert "[red]x[/red] [2J :smile:" in shown
    assert "\x1b" not in shown


def test_mode_plan_shows_what_would_be_written() -> None:
    plan = {"hash": "abc", "create": 1, "update": 2, "delete": 0, "actions": []}
    assert "plan abc: 1 to create, 2 to update, 0 to delete" in drawn(resource(status={"plan": plan}))


def test_a_watched_pipe_gets_one_line() -> None:
    assert line(summary(failing())) == "shop-ns/shop not ready (CrashLooping) 8/9 memory: CrashLoopBackOff"
