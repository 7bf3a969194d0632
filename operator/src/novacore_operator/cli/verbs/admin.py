"""`admin create`: the workloads' own command, run in auth-billing's pod. No password goes in; one comes out."""

from __future__ import annotations

import json
import re

import click

from novacore_operator.cli.errors import BadInput, Failed, printable
from novacore_operator.cli.kubectl import EXEC_S, Kubectl, failure
from novacore_operator.cli.options import Options, pass_options, with_globals
from novacore_operator.cli.output import busy, document
from novacore_operator.cli.resource import find, identity

API = "novacore.ai/admin/v1"
EMAIL = re.compile(r"[^\s@<>\"\x00-\x1f\x7f]{1,64}@[^\s@<>\"\x00-\x1f\x7f]{1,254}")
PASSWORD = re.compile(r"^(?P<what>.*?\.) Password, shown this once: (?P<password>\S+)$")


@click.group(no_args_is_help=False)
@with_globals
def admin() -> None:
    """Accounts that no route may make."""


@admin.command()
@click.option("--email", required=True, help="Address of the account.")
@pass_options
def create(options: Options, *, email: str) -> None:
    """Make an administrator and print its password, once; or make an existing account one.

    The password is made in auth-billing's pod and comes back over kubectl exec: it is in no argument, no environment
    variable, no file and no log.

    \b
    Examples:
      kubectl novacore admin create --email ada@example.org
      kubectl novacore admin create --email ada@example.org -o json | jq -r .password
    """
    if email.startswith("-") or not EMAIL.fullmatch(email):
        raise BadInput(f"--email: {email!r} is not an e-mail address")
    kubectl = Kubectl(options)
    namespace, name = identity(find(kubectl, options))
    command = ("novacore", "admin", "create", "--email", email)
    with busy("asking auth-billing", options):
        code, out, said = kubectl.attempt(
            "exec",
            "deployment/novacore-auth-billing",
            "--container=auth-billing",
            "--",
            *command,
            namespace=namespace,
            limit_s=EXEC_S,
        )
    if code != 0:
        raise _refused(said)
    answer = _spoken(out)
    if options.output == "text":
        click.echo(answer)
        return
    match = PASSWORD.match(answer)
    document(
        {
            "apiVersion": API,
            "namespace": namespace,
            "name": name,
            "email": email,
            "made": match is not None,
            "password": match["password"] if match else None,
            "message": match["what"] if match else answer,
        },
        options,
    )


def _spoken(text: str) -> str:
    """Return what was said to a person: the service's log lines go to the same pipe, as JSON."""
    return "\n".join(printable(line) for line in text.splitlines() if line.strip() and not _is_log(line))


def _is_log(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _refused(said: str) -> Failed | BadInput:
    """Return the sentence of the command in the pod, or what kubectl could not do."""
    own = [line for line in said.splitlines() if line.startswith("novacore")]
    return Failed(printable(own[-1])) if own else failure(_spoken(said))
