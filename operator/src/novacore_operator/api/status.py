"""`status` of a NovaCoreDeployment. Written by server-side apply to `/status`, only when it changed."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from novacore_operator.api.fields import Model


class Condition(Model):
    """One aspect of the installation, in the manner of Kubernetes conditions."""

    type: str = Field(max_length=64, description="Aspect: Ready, Progressing, DataStoresReady, …")
    status: Literal["True", "False", "Unknown"] = Field(description="Whether it holds.")
    reason: str = Field(max_length=64, description="One word; docs/reference/conditions.md explains each.")
    message: str = Field(max_length=2048, description="What is wrong and what to do, in one sentence.")
    last_transition_time: str = Field(
        description="When status last changed.", json_schema_extra={"format": "date-time"}
    )
    observed_generation: int = Field(description="Generation of the spec this was computed from.")


class Component(Model):
    """One of the nine services, postgres or redis."""

    name: str = Field(max_length=63, description="Name of the service or data store.")
    ready: bool = Field(description="At the desired revision and available.")
    desired: int = Field(description="Pods wanted.")
    updated: int = Field(description="Pods of the desired revision.")
    available: int = Field(description="Pods that answer.")
    revision: str = Field(max_length=64, description="Short hash of the desired pod template.")
    image: str = Field(max_length=512, description="Image wanted.")
    reason: str = Field(max_length=64, description="One word; docs/reference/conditions.md explains each.")
    message: str = Field(max_length=1024, description="What is wrong and what to do; empty when ready.")


class Release(Model):
    """Which release runs."""

    target: str = Field(max_length=32, description="Release the spec asks for.")
    current: str | None = Field(default=None, max_length=32, description="Last release that was wholly Ready.")
    last_good: int | None = Field(
        default=None, description="Number of the stored release (ControllerRevision) that a failed roll-out returns to."
    )
    taken_back: str | None = Field(
        default=None, max_length=64, description="Digest of the spec that was taken back; it is not tried again."
    )
    since: str | None = Field(
        default=None,
        description="When the operator began with this generation.",
        json_schema_extra={"format": "date-time"},
    )


class PlannedAction(Model):
    """One object that a plan would write."""

    verb: Literal["create", "update", "delete"] = Field(description="What would be done.")
    kind: str = Field(max_length=63, description="Kind of the object.")
    name: str = Field(max_length=253, description="Name of the object.")
    consequence: str = Field(default="", max_length=256, description="What it means for pods and data.")


class Planned(Model):
    """What Apply would do, while spec.mode is Plan."""

    hash: str = Field(max_length=16, description="The same for the same changes.")
    at: str = Field(description="When it was computed.", json_schema_extra={"format": "date-time"})
    create: int = Field(description="Objects that would be made.")
    update: int = Field(description="Objects that would be changed.")
    delete: int = Field(description="Objects that would be deleted.")
    actions: list[PlannedAction] = Field(default=[], max_length=50, description="The first 50 of them.")


class HistoryEntry(Model):
    """How one generation ended."""

    generation: int = Field(description="Generation of the spec.")
    version: str = Field(max_length=32, description="Release of the services.")
    outcome: Literal["Succeeded", "RolledBack"] = Field(description="How it ended.")
    revision: int | None = Field(default=None, description="Number of the stored release that then ran.")
    at: str = Field(description="When it ended.", json_schema_extra={"format": "date-time"})
    reason: str = Field(max_length=64, description="One word; docs/reference/conditions.md explains each.")
    message: str = Field(default="", max_length=1024, description="What went wrong; empty when it succeeded.")


class Status(Model):
    """What the operator observed."""

    observed_generation: int | None = Field(default=None, description="Generation of the spec last acted upon.")
    conditions: list[Condition] = Field(
        default=[],
        max_length=32,
        description="Aspects of the installation.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
    release: Release | None = Field(default=None, description="Which release runs.")
    services: str | None = Field(default=None, max_length=16, description="Ready services of all, such as 9/9.")
    components: list[Component] = Field(
        default=[],
        max_length=32,
        description="Nine services, postgres and redis.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    plan: Planned | None = Field(default=None, description="What Apply would do, while spec.mode is Plan.")
    history: list[HistoryEntry] = Field(
        default=[], max_length=10, description="How the last generations ended, newest first."
    )
