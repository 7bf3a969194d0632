"""`keys`, `rotate`, `revoke` and `deny`: the keys that sign tokens. Each asks by an annotation, and can follow it."""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections.abc import Callable
from typing import Any

import click

from novacore_contracts.identity import JWT_RINGS, KID_PREFIX
from novacore_contracts.services import BY_NAME
from novacore_operator.cli.errors import DONE, FAILED, PROGRAM, BadInput, Failed, Unreachable
from novacore_operator.cli.keys_view import API, idle_because, progress, rings_of, screen
from novacore_operator.cli.kubectl import FIELD_MANAGER, Kubectl
from novacore_operator.cli.options import Options, pass_options
from novacore_operator.cli.output import console, document
from novacore_operator.cli.resource import RESOURCE, find, identity
from novacore_operator.cli.waiting import Duration
from novacore_operator.rotation.triggers import DOMAIN, MODE, REASON, REASON_LENGTH_MAX, Mode, Verb

LOOK_S = 0.5


def _following(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a verb `--wait` and `--timeout`."""
    for option in (
        click.option("--timeout", type=Duration(), default="10m", show_default=True, help="Such as 90s or 10m."),
        click.option("-w", "--wait", "--watch", "wait", is_flag=True, help="Follow it, and end when it is done."),
    ):
        command = option(command)
    return command


@click.command()
@pass_options
def keys(options: Options) -> None:
    """List the keys that sign tokens, and what happened to them; check that nobody altered that history.

    \b
    Examples:
      kubectl novacore keys
      kubectl novacore keys -o json | jq '.rings.serviceJwt.history[-1]'
    """
    resource = find(Kubectl(options), options)
    namespace, name = identity(resource)
    rings = rings_of(resource)
    if options.output != "text":
        document({"apiVersion": API, "namespace": namespace, "name": name, "rings": rings}, options)
    elif not rings:
        click.echo("Nobody has looked at the keys yet: that begins when the installation is Ready.")
    else:
        console(options).print(screen(rings))


@click.command()
@click.argument("ring", type=click.Choice(JWT_RINGS))
@click.option("--undo", is_flag=True, help="Call it off, or have the key before sign again, within an hour.")
@_following
@pass_options
def rotate(options: Options, *, ring: str, undo: bool, wait: bool, timeout: float) -> int:
    """Have another key sign: the one that stands by, as soon as every pod has proven it.

    No request fails and no pod restarts. The key before is trusted until its last token has ended.

    \b
    Examples:
      kubectl novacore rotate serviceJwt --wait
      kubectl novacore rotate serviceJwt --undo
    """
    verb = Verb.ROLLBACK if undo else Verb.ROTATE
    return _ask(options, verb, ring, ring, {}, wait=wait, timeout=timeout)


@click.command()
@click.argument("kids", nargs=-1, required=True)
@click.option("--reason", required=True, help="Why: it is kept in the history.")
@click.option(
    "--mode",
    type=click.Choice([str(mode) for mode in Mode]),
    default=str(Mode.IMMEDIATE),
    show_default=True,
    help="immediate: refused at once. drain: callers get new tokens first.",
)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@_following
@pass_options
def revoke(
    options: Options, *, kids: tuple[str, ...], reason: str, mode: str, yes: bool, wait: bool, timeout: float
) -> int:
    """Have leaked keys refused by every pod, within seconds. KIDS as `keys` shows them; name the standby too, if it
    leaked with the key that signs.

    A pod that does not follow is taken out of its Service and replaced. A revoked key never comes back.

    \b
    Example:
      kubectl novacore revoke svc-Xy… --reason "found in a log" --wait
    """
    ring = next((name for name in JWT_RINGS if all(kid.startswith(KID_PREFIX[name]) for kid in kids)), None)
    if ring is None:
        raise BadInput(f"keys of one ring are needed, as `{PROGRAM} keys` shows them")
    if not reason.strip() or len(reason) > REASON_LENGTH_MAX:
        raise BadInput(f"--reason needs 1 to {REASON_LENGTH_MAX} characters")
    _known(options, ring, kids)
    if not yes:
        click.confirm(f"Revoke {', '.join(kids)}? It cannot be undone.", abort=True, err=True)
    more = {REASON: reason.strip(), MODE: mode}
    return _ask(options, Verb.REVOKE, ring, ",".join(kids), more, wait=wait, timeout=timeout)


@click.command()
@click.argument("service", type=click.Choice(sorted(BY_NAME)))
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@_following
@pass_options
def deny(options: Options, *, service: str, yes: bool, wait: bool, timeout: float) -> int:
    """Refuse all tokens that one service has been given so far, and replace its pods: it was broken into.

    The other services notice nothing. Its new pods get new tokens.

    \b
    Example:
      kubectl novacore deny memory --wait
    """
    if not yes:
        click.confirm(f"Refuse the tokens of {service} and replace its pods?", abort=True, err=True)
    return _ask(options, Verb.DENY, "serviceJwt", service, {}, wait=wait, timeout=timeout)


def _known(options: Options, ring: str, kids: tuple[str, ...]) -> None:
    """Refuse key ids that the ring does not have: a typing error must not pass for a revocation."""
    rings = rings_of(find(Kubectl(options), options))
    there = {key["kid"] for key in rings.get(ring, {}).get("keys", ())}
    wrong = [kid for kid in kids if kid not in there]
    if wrong:
        raise BadInput(f"{ring} has no key {', '.join(wrong)}: it has {', '.join(sorted(there)) or 'none yet'}")


def _ask(
    options: Options, verb: Verb, ring: str, what: str, more: dict[str, str], *, wait: bool, timeout: float
) -> int:
    """Write the annotation, and follow what comes of it."""
    kubectl = Kubectl(options)
    resource = find(kubectl, options)
    namespace, name = identity(resource)
    why = idle_because(resource)
    if why:
        raise Failed(why)
    nonce = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{secrets.token_hex(3)}"
    wanted = {f"{DOMAIN}{verb}": f"{what}/{nonce}", **more}
    flags = ("--overwrite", f"--field-manager={FIELD_MANAGER}")
    kubectl.text("annotate", RESOURCE, name, *(f"{key}={value}" for key, value in wanted.items()), *flags,
                 namespace=namespace)  # fmt: skip
    answer: dict[str, Any] = {"apiVersion": API, "namespace": namespace, "name": name, "ring": ring}
    answer |= {"trigger": f"{verb}/{nonce}", "done": False}
    if not wait:
        if options.output != "text":
            document(answer, options)
        else:
            click.echo(f"Asked for: {verb} {what}. Follow it: {PROGRAM} keys -n {namespace} --name {name}")
        return DONE
    kids = tuple(what.split(",")) if verb is Verb.REVOKE else ()
    return _follow(kubectl, options, ring, answer, kids=kids, timeout=timeout)


def _follow(
    kubectl: Kubectl, options: Options, ring: str, answer: dict[str, Any], *, kids: tuple[str, ...], timeout: float
) -> int:
    """Print how far it is, a line for each change on stderr; return the exit code."""
    started, said = time.monotonic(), ""
    pause = threading.Event()  # nothing sets it: it is a wait that Ctrl-C ends at once
    while True:
        found = None
        with contextlib.suppress(Unreachable):
            found = progress(find(kubectl, options), ring, answer["trigger"], kids)
        waited = time.monotonic() - started
        if found is not None and (found.entry is not None or found.refused):
            break
        if found is not None and found.line != said:
            said = found.line
            click.echo(f"{waited:6.1f} s  {said}", err=True)
        if waited >= timeout:
            click.echo(f"not done after {waited:.0f} s: {said or 'the operator has not looked at it'}", err=True)
            return FAILED
        pause.wait(LOOK_S)
    if found.refused:
        click.echo(found.refused, err=True)
        return FAILED
    if options.output != "text":
        document({**answer, "done": True, "entry": found.entry}, options)
    else:
        click.echo(found.line)
    return DONE
