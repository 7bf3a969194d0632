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


class RingKey(Model):
    """One trusted key of a ring."""

    kid: str = Field(max_length=128, description="Key id: the ring's prefix and the thumbprint of the public half.")
    number: int = Field(description="Number under which it was made.")
    state: Literal["pending", "active", "retiring"] = Field(
        description="pending: trusted, signs nothing yet. active: signs. retiring: trusted until its last token ends."
    )
    since: str = Field(description="When it came into this state.", json_schema_extra={"format": "date-time"})


class RingEntry(Model):
    """What happened to a ring once: one link of a chain of hashes."""

    id: str = Field(max_length=128, description="The rotation, <ring>-<n> of the key it made active, or a key's id.")
    outcome: Literal["activated", "retired", "revoked", "rolled-back", "denied"] = Field(description="How it ended.")
    trigger: str = Field(default="", max_length=128, description="Who asked: schedule/…, rotate/<nonce>, install.")
    at: int = Field(description="When it was written down, Unix seconds.")
    generation: int = Field(description="Generation of the ring's document.")
    kids: list[str] = Field(default=[], max_length=8, description="Keys it is about: the new one first.")
    actor: str = Field(default="", max_length=128, description="Who wrote the annotation, by its field manager.")
    reason: str = Field(default="", max_length=256, description="Why a key was revoked, in the person's words.")
    seconds: str = Field(default="", max_length=16, description="From the trigger to the end, in seconds.")
    acked: str = Field(default="", max_length=16, description="Pods that proved it, such as 27/27.")
    acks_sha256: str = Field(default="", max_length=64, description="Hash over the names of these pods.")
    times: dict[str, int] = Field(default={}, max_length=8, description="Unix seconds of its steps.")
    failures: list[str] = Field(default=[], max_length=8, description="What went wrong on the way.")
    prev: str = Field(default="", max_length=64, description="Hash of the entry before it.")
    hash: str = Field(default="", max_length=64, description="SHA-256 over all of the above.")


class RotationSummary(Model):
    """The last change of the signing key."""

    id: str = Field(max_length=128, description="The rotation, <ring>-<n>.")
    trigger: str = Field(max_length=128, description="Who asked.")
    at: str = Field(description="When it was complete.", json_schema_extra={"format": "date-time"})
    seconds: int = Field(description="From the trigger to the instant when the last signer used the new key.")
    failures: int = Field(description="How many things went wrong on the way.")


class RingStatus(Model):
    """Where one ring of keys is."""

    phase: Literal["idle", "publish", "prove", "activate", "retire", "revoke"] = Field(
        description="What is under way. The overlap of two keys counts as idle."
    )
    generation: int | None = Field(default=None, description="Generation of the ring's document: it only grows.")
    active_kid: str | None = Field(default=None, max_length=128, description="Key that signs.")
    keys: list[RingKey] = Field(default=[], max_length=4, description="Keys that are trusted.")
    acked: str | None = Field(default=None, max_length=16, description="Pods that hold this generation, of all.")
    pending: list[str] = Field(default=[], max_length=10, description="Pods that lack a proof, and what they lack.")
    next_rotation: str | None = Field(
        default=None, description="When the schedule rotates next.", json_schema_extra={"format": "date-time"}
    )
    last_rotation: RotationSummary | None = Field(default=None, description="The last change of the signing key.")
    history: list[RingEntry] = Field(default=[], max_length=50, description="What happened, oldest first.")


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
    rings: dict[str, RingStatus] = Field(
        default={}, max_length=8, description="Rings of keys, by name: serviceJwt, userJwt."
    )
    plan: Planned | None = Field(default=None, description="What Apply would do, while spec.mode is Plan.")
    history: list[HistoryEntry] = Field(
        default=[], max_length=10, description="How the last generations ended, newest first."
    )
