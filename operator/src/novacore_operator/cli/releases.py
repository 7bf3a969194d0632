"""Stored releases and the history: merging them, choosing one to return to, saying what that changes. Pure.

Invariants:
CLI-4 without `--to`, the newest stored release that says something else than the live spec is chosen.
CLI-5 a rollback keeps what is not part of a release (`releases.HOW`: `mode`, `paused`, `rollout`, `maintenance`,
`secrets`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from novacore_operator.api.spec import Spec
from novacore_operator.cli.errors import PROGRAM, BadInput, Failed
from novacore_operator.cli.resource import Resource
from novacore_operator.preview import FieldChange
from novacore_operator.releases import HOW
from novacore_operator.state.names import LABEL_COMPONENT, LABEL_MANAGED_BY, MANAGER

COLUMNS = ("revision", "generation", "version", "at", "outcome", "reason", "message")
SELECTOR = f"{LABEL_MANAGED_BY}={MANAGER},{LABEL_COMPONENT}=release"

SpecBody = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Release:
    """One stored release."""

    number: int
    at: str | None
    spec: SpecBody = field(repr=False)


def stored(revisions: Iterable[dict[str, Any]], *, uid: str) -> list[Release]:
    """Return the releases among ControllerRevisions that this resource owns, newest first."""
    found = []
    for body in revisions:
        metadata = body.get("metadata", {})
        spec = (body.get("data") or {}).get("spec")
        if any(owner.get("uid") == uid for owner in metadata.get("ownerReferences", ())) and isinstance(spec, dict):
            at = metadata.get("creationTimestamp")
            found.append(Release(int(body.get("revision", 0)), at, spec))
    return sorted(found, key=lambda release: release.number, reverse=True)


def history(resource: Resource, releases: Iterable[Release]) -> list[dict[str, Any]]:
    """Return a row per generation that has ended, and per stored release no row tells of; newest first.

    `revision` is the stored release that ran afterwards: for a generation that was rolled back, the one returned to.
    """
    live, kept = resource.get("spec") or {}, {release.number: release for release in releases}
    entries = (resource.get("status") or {}).get("history", ())
    told = {entry.get("revision") for entry in entries}
    silent = [
        {"revision": release.number, "version": release.spec.get("version"), "at": release.at}
        for release in kept.values()
        if release.number not in told
    ]
    rows = []
    for entry in (*entries, *silent):
        release = kept.get(entry.get("revision"))
        rows.append(
            {key: entry.get(key) for key in COLUMNS}
            | {"stored": release is not None, "live": release is not None and same(release.spec, live)}
        )
    return sorted(rows, key=lambda row: row["at"] or "", reverse=True)


def choose(releases: list[Release], live: SpecBody, *, to: int | None) -> Release:
    """Return the release to go back to (CLI-4). Failed or BadInput when there is none."""
    if not releases:
        raise Failed("no release is stored yet: the operator stores one when it has been Ready")
    if to is None:
        chosen = next((release for release in releases if not same(release.spec, live)), None)
        if chosen is None:
            raise Failed("every stored release has the live spec: there is nothing to go back to")
        return chosen
    chosen = next((release for release in releases if release.number == to), None)
    if chosen is None:
        numbers = ", ".join(str(release.number) for release in releases)
        raise BadInput(f"--to: release {to} is not stored; there are {numbers}: see `{PROGRAM} history`")
    return chosen


def target(release: Release, live: SpecBody) -> SpecBody:
    """Return the spec to write (CLI-5)."""
    body = {key: value for key, value in release.spec.items() if key not in HOW}
    return body | {key: live[key] for key in HOW if key in live}


def same(one: SpecBody, other: SpecBody) -> bool:
    """Return whether two specs ask for the same, defaults filled in, what is not part of a release apart."""
    return not field_changes(one, other)


def field_changes(old: SpecBody, new: SpecBody) -> list[FieldChange]:
    """Return what differs, defaults filled in, what is not part of a release apart."""
    return _differences("spec", _comparable(old), _comparable(new))


def _comparable(spec: SpecBody) -> SpecBody:
    """Fill in the defaults as the API server does, so that a stored spec may have been written without them."""
    try:
        body = Spec.model_validate(spec).model_dump(by_alias=True, exclude_none=True, mode="json")
    except ValidationError:
        body = spec  # of another version of the operator: compared as it stands
    return {key: value for key, value in body.items() if key not in HOW}


def _differences(path: str, old: Any, new: Any) -> list[FieldChange]:
    if old == new:
        return []
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted({*old, *new})
        return [change for key in keys for change in _differences(f"{path}.{key}", old.get(key), new.get(key))]
    return [FieldChange(path, old, new)]
