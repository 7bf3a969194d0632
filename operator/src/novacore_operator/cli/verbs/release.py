"""`history` and `rollback`, `pause` and `resume`: what was, and who decides what is next."""

from __future__ import annotations

import json
import sys
from typing import Any

import click
from rich.text import Text

from novacore_operator.cli.errors import PROGRAM, BadInput, printable
from novacore_operator.cli.kubectl import FIELD_MANAGER, Kubectl
from novacore_operator.cli.options import Options, pass_options
from novacore_operator.cli.output import console, document
from novacore_operator.cli.plan_view import field_line
from novacore_operator.cli.releases import SELECTOR, Release, choose, field_changes, stored, target
from novacore_operator.cli.releases import history as rows_of
from novacore_operator.cli.resource import RESOURCE, Resource, find, identity
from novacore_operator.cli.status_view import table
from novacore_operator.preview import FieldChange

HISTORY_API = "novacore.ai/history/v1"
ROLLBACK_API = "novacore.ai/rollback/v1"
PAUSE_API = "novacore.ai/pause/v1"
COLOURS = {"Succeeded": "green", "RolledBack": "yellow", "Failed": "red"}


@click.command()
@pass_options
def history(options: Options) -> None:
    """List what was tried and how it ended, and which releases are stored.

    RELEASE is the stored release that ran afterwards: for what was rolled back, the one returned to.

    \b
    Examples:
      kubectl novacore history
      kubectl novacore history -o json | jq '.history[] | select(.outcome == "RolledBack")'
    """
    kubectl = Kubectl(options)
    resource = find(kubectl, options)
    rows = rows_of(resource, _stored(kubectl, resource))
    namespace, name = identity(resource)
    if options.output != "text":
        document({"apiVersion": HISTORY_API, "namespace": namespace, "name": name, "history": rows}, options)
        return
    if not rows:
        click.echo("No release has been recorded yet: the first one is when the installation is Ready.")
        return
    made = table("RELEASE", "GENERATION", "VERSION", "AT", "OUTCOME", "STORED", "MESSAGE", wide="MESSAGE")
    for row in rows:
        outcome = row["outcome"] or "-"
        made.add_row(
            Text(f"{row['revision'] or '-'}{' (live)' if row['live'] else ''}"),
            Text(f"{row['generation'] or '-'}"),
            Text(row["version"] or "-"),
            Text(row["at"] or "-"),
            Text(outcome, style=COLOURS.get(outcome, "")),
            Text("yes" if row["stored"] else "no"),
            Text(printable(f"{row['reason'] or ''} {row['message'] or ''}".strip())),
        )
    console(options).print(made)


@click.command()
@click.option("--to", type=click.IntRange(min=1), help="Release to go back to; without it the newest that differs.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@pass_options
def rollback(options: Options, *, to: int | None, yes: bool) -> None:
    """Put a stored release's spec back. Shows what changes and asks first.

    The database is not taken back: each release can run on the next one's schema. `mode`, `paused`, `rollout`,
    `maintenance` and `secrets` stay as they are: they are no part of a release. Where the resource comes from Git or
    Helm, put it back there too, or they will undo this.

    \b
    Examples:
      kubectl novacore rollback                  to the newest stored release with another spec
      kubectl novacore rollback --to 4 --yes     to release 4 of `history`, without a question
    """
    kubectl = Kubectl(options)
    resource = find(kubectl, options)
    live = resource["spec"]
    chosen = choose(_stored(kubectl, resource), live, to=to)
    changes = field_changes(live, chosen.spec)
    if changes:
        _show(chosen, changes, options)
        _confirm(yes)
        kubectl.json(
            "replace",
            "--filename=-",
            f"--field-manager={FIELD_MANAGER}",
            namespace=resource["metadata"]["namespace"],
            stdin=json.dumps(_replaced(resource, target(chosen, live))),
        )
    _tell(resource, chosen, changes, options)


def _stored(kubectl: Kubectl, resource: Resource) -> list[Release]:
    metadata = resource["metadata"]
    found = kubectl.items("controllerrevisions.apps", f"--selector={SELECTOR}", namespace=metadata["namespace"])
    return stored(found, uid=metadata["uid"])


def _show(chosen: Release, changes: list[FieldChange], options: Options) -> None:
    """On stderr, beside the question: stdout is for the answer."""
    out = console(options, stderr=True)
    out.print(Text(f"Release {chosen.number} ({chosen.spec.get('version', '-')}, {chosen.at or '-'}) changes:"))
    for change in changes:
        out.print(field_line(change, indent=2), soft_wrap=True)


def _confirm(yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise BadInput("nobody can answer here: add --yes, or run it in a terminal")
    click.confirm("Roll back?", abort=True, err=True)


def _replaced(resource: Resource, spec: dict[str, Any]) -> Resource:
    """Return the resource to send. Its resourceVersion makes the API server refuse it if somebody was faster."""
    return {key: value for key, value in resource.items() if key != "status"} | {"spec": spec}


def _tell(resource: Resource, chosen: Release, changes: list[FieldChange], options: Options) -> None:
    namespace, name = identity(resource)
    if options.output != "text":
        answer = {
            "apiVersion": ROLLBACK_API,
            "namespace": namespace,
            "name": name,
            "to": chosen.number,
            "version": chosen.spec.get("version"),
            "changed": bool(changes),
            "changes": [{"path": change.path, "old": change.old, "new": change.new} for change in changes],
        }
        document(answer, options)
        return
    if not changes:
        click.echo(f"{name} has the spec of release {chosen.number} already: nothing to do.")
        return
    click.echo(f"{name} asks for release {chosen.number} now.")
    if resource["spec"].get("paused"):
        click.echo(f"It is paused: `{PROGRAM} resume -n {namespace} --name {name}` starts the roll-out.")
    click.echo(f"Follow it: {PROGRAM} wait -n {namespace} --name {name}")


@click.command()
@pass_options
def pause(options: Options) -> None:
    """Let the operator change and repair nothing until `resume`. The status is still kept.

    \b
    Example:
      kubectl novacore pause -n shop
    """
    _set_paused(options, paused=True)


@click.command()
@pass_options
def resume(options: Options) -> None:
    """End a pause: what was edited meanwhile is carried out, what drifted is put back.

    \b
    Example:
      kubectl novacore plan -n shop; kubectl novacore resume -n shop
    """
    _set_paused(options, paused=False)


def _set_paused(options: Options, *, paused: bool) -> None:
    kubectl = Kubectl(options)
    resource = find(kubectl, options)
    namespace, name = identity(resource)
    changed = bool(resource["spec"].get("paused")) != paused
    if changed:
        patch = json.dumps({"spec": {"paused": paused}})
        flags = ("--type=merge", f"--patch={patch}", f"--field-manager={FIELD_MANAGER}")
        kubectl.json("patch", RESOURCE, name, *flags, namespace=namespace)
    if options.output != "text":
        answer = {"apiVersion": PAUSE_API, "namespace": namespace, "name": name, "paused": paused, "changed": changed}
        document(answer, options)
        return
    word = "paused" if paused else "running"
    click.echo(f"{name} is {word}." if changed else f"{name} is {word} already: nothing to do.")
    if paused:
        click.echo(f"Go on with: {PROGRAM} resume -n {namespace} --name {name}")
