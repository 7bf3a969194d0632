"""What `status` shows: a stable document, the next steps, and one screen. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from novacore_operator.cli.errors import PROGRAM, printable
from novacore_operator.cli.resource import Resource, identity
from novacore_operator.reasons import Reason
from novacore_operator.status import condition_of

API = "novacore.ai/status/v1"
GOOD_WHEN_FALSE = frozenset(
    {"Progressing", "Paused", "Degraded", "RolledBack", "FieldConflict", "RotationBlocked", "EmergencyIncomplete"}
)
"""Conditions whose True is what a person wants to hear of."""

Summary = dict[str, Any]


def summary(resource: Resource) -> Summary:
    """Return the document of `status -o json`: keys are never removed, `None` is unknown."""
    namespace, name = identity(resource)
    spec, status = resource.get("spec") or {}, resource.get("status") or {}
    generation = resource["metadata"].get("generation")
    ready = condition_of(status, "Ready")
    release = status.get("release") or {}
    current = ready.get("observedGeneration") == generation
    return {
        "apiVersion": API,
        "namespace": namespace,
        "name": name,
        "generation": generation,
        "observedGeneration": status.get("observedGeneration"),
        "ready": ready.get("status") == "True" and current,
        "reason": ready.get("reason"),
        "message": ready.get("message"),
        "mode": spec.get("mode", "Apply"),
        "paused": bool(spec.get("paused")),
        "release": {
            "target": release.get("target") or spec.get("version"),
            "current": release.get("current"),
            "lastGood": release.get("lastGood"),
            "since": release.get("since"),
        },
        "services": status.get("services"),
        "plan": dict(status["plan"]) if status.get("plan") else None,
        "conditions": [_condition(item) for item in status.get("conditions", ())],
        "components": [dict(item) for item in status.get("components", ())],
        "next": next_steps(resource),
    }


def _condition(item: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": item.get("type"),
        "status": item.get("status"),
        "reason": item.get("reason"),
        "message": item.get("message", ""),
        "since": item.get("lastTransitionTime"),
        "observedGeneration": item.get("observedGeneration"),
    }


def remedy_of(reason: str | None, *, name: str, component: str = "SERVICE") -> str | None:
    """Return what a reason's text says to do, with the names filled in. None for a word of a newer operator."""
    known = Reason.__members__.values()
    member = next((member for member in known if member.value == reason), None)
    if member is None:
        return None
    return member.remedy.replace("nova/NAME", f"nova/{name}").replace("SERVICE", component)


def next_steps(resource: Resource) -> list[str]:
    """Return what a person should do now, most important first."""
    name, status = resource["metadata"]["name"], resource.get("status") or {}
    generation, seen = resource["metadata"].get("generation"), status.get("observedGeneration")
    spec, ready = resource.get("spec") or {}, condition_of(status, "Ready")
    steps = []
    if seen is None:
        return [f"The operator has not looked at this resource yet: `{PROGRAM} doctor` says whether it runs."]
    if seen != generation:
        steps.append(f"The operator has acted on generation {seen}, not yet on {generation}: wait a moment.")
    if spec.get("mode") == "Plan":
        steps.append(f"Nothing is written in mode Plan: read `{PROGRAM} plan`, then set `spec.mode: Apply`.")
    if spec.get("paused"):
        steps.append(f"It is paused: `{PROGRAM} resume` when you are done.")
    if condition_of(status, "RolledBack").get("status") == "True":
        steps.append(f"It was rolled back: read `{PROGRAM} history`, then correct the spec; it is tried again then.")
    if ready.get("status") != "True" and not spec.get("paused"):
        steps += _for_trouble(name, status, ready)
    return steps or ["Nothing to do."]


def _for_trouble(name: str, status: Mapping[str, Any], ready: Mapping[str, Any]) -> list[str]:
    """Return each cause once, with the first component it was seen on."""
    causes: dict[str, str] = {}
    for component in status.get("components", ()):
        if not component.get("ready"):
            causes.setdefault(component.get("reason", ""), component["name"])
    main = str(ready.get("reason", ""))
    steps = []
    for reason in dict.fromkeys((main, *causes)):
        remedy = remedy_of(reason, name=name, component=causes.get(reason, "SERVICE"))
        if remedy is not None:
            steps.append(f"{reason}: {remedy}")
    return steps or [f"{main or 'No reason given'}: {ready.get('message', 'the operator has not said why')}"]


# --- one screen -------------------------------------------------------------------------------------------------------


def screen(shown: Summary) -> RenderableType:
    """Return the whole screen of a summary."""
    parts: list[RenderableType] = [_head(shown), _release(shown), Text()]
    if shown["conditions"]:
        parts += [_conditions(shown), Text()]
    if shown["components"]:
        parts += [_components(shown), Text()]
    parts.append(Text("What to do next", style="bold"))
    parts += [Text(f"  {printable(step)}") for step in shown["next"]]
    return Group(*parts)


def line(shown: Summary) -> str:
    """Return the state as one line, for a pipe that is watched."""
    state = "ready" if shown["ready"] else f"not ready ({shown['reason'] or 'unknown'})"
    return f"{shown['namespace']}/{shown['name']} {state} {shown['services'] or '-'} {shown['message'] or ''}".rstrip()


def _head(shown: Summary) -> Text:
    ready = shown["ready"]
    text = Text.assemble(
        ("NovaCore ", "bold"),
        (f"{shown['name']} ", "bold cyan"),
        f"in {shown['namespace']}  ",
        ("Ready" if ready else f"Not ready: {shown['reason'] or 'unknown'}", "bold green" if ready else "bold red"),
        f"  {shown['services'] or '-'} services  generation {shown['generation']}",
    )
    for word, holds in (("  PAUSED", shown["paused"]), ("  MODE PLAN", shown["mode"] == "Plan")):
        text.append(word if holds else "", "bold yellow")
    return text


def _release(shown: Summary) -> Text:
    release = shown["release"]
    good = f"release {release['lastGood']}" if release["lastGood"] else "-"
    words = (("target", release["target"]), ("current", release["current"]), ("last good", good))
    text = Text("   ".join((*(f"{word} {value or '-'}" for word, value in words), f"since {release['since'] or '-'}")))
    plan = shown["plan"]
    if plan is not None:
        numbers = ", ".join(f"{plan.get(verb, 0)} to {verb}" for verb in ("create", "update", "delete"))
        text.append(f"\nplan {plan.get('hash', '')}: {numbers}")
    return text


def table(*columns: str, wide: str = "") -> Table:
    """Return a table without lines; `wide` is the column that takes what is left, and folds."""
    made = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0), expand=False)
    for column in columns:
        made.add_column(column, no_wrap=column != wide, overflow="fold")
    return made


def _conditions(shown: Summary) -> Table:
    made = table("CONDITION", "STATUS", "REASON", "SINCE", "MESSAGE", wide="MESSAGE")
    for item in shown["conditions"]:
        made.add_row(
            Text(str(item["type"])),
            Text(str(item["status"]), style=_colour(item)),
            Text(str(item["reason"])),
            Text(str(item["since"] or "-")),
            Text(printable(item["message"])),
        )
    return made


def _colour(item: dict[str, Any]) -> str:
    if item["status"] == "Unknown":
        return "yellow"
    good = (item["status"] == "True") != (item["type"] in GOOD_WHEN_FALSE)
    return "green" if good else "yellow" if item["type"] in GOOD_WHEN_FALSE else "red"


def _components(shown: Summary) -> Table:
    made = table("COMPONENT", "READY", "UPDATED", "REVISION", "IMAGE", "STATE", wide="STATE")
    for part in shown["components"]:
        ready, desired = bool(part.get("ready")), part.get("desired", 0)
        state = "" if ready else f"{part.get('reason', '')} {part.get('message', '')}"
        made.add_row(
            Text(part["name"]),
            Text(f"{part.get('available', 0)}/{desired}", style="green" if ready else "red"),
            Text(f"{part.get('updated', 0)}/{desired}"),
            Text(str(part.get("revision", ""))[:10]),
            Text(str(part.get("image", ""))),
            Text(printable(state.strip())),
        )
    return made
