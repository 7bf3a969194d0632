"""The entry point: the group of verbs, and the one place where a command ends (CLI-1)."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any, NoReturn

import click

from novacore_operator.cli.errors import BAD_INPUT, COMPLETE_VARIABLE, FAILED, PROGRAM, one_line
from novacore_operator.cli.options import with_globals

DEBUG = "NOVACORE_DEBUG"
VERBS: dict[str, str] = {
    "status": "status",
    "plan": "plan",
    "diff": "plan",
    "wait": "status",
    "rollback": "release",
    "history": "release",
    "pause": "release",
    "resume": "release",
    "keys": "keys",
    "rotate": "keys",
    "revoke": "keys",
    "deny": "keys",
    "logs": "logs",
    "doctor": "doctor",
    "admin": "admin",
    "completion": "shell",
    "version": "shell",
}
"""Verb -> module below `verbs`, in the order people meet them. Loaded when called: all at once take a second."""


class Root(click.Group):
    """The group, which ends every command with one of our exit codes."""

    def main(self, *args: Any, **extra: Any) -> NoReturn:
        """Run, and end the process."""
        extra |= {"standalone_mode": False, "prog_name": PROGRAM, "complete_var": COMPLETE_VARIABLE}
        try:
            code = super().main(*args, **extra)
        except click.exceptions.Abort:
            sys.exit(_say("stopped: nothing more was done", FAILED))
        except click.UsageError as error:
            where = error.ctx.command_path if error.ctx is not None else PROGRAM
            sys.exit(_say(f"{one_line(error.format_message())} (see `{where} --help`)", BAD_INPUT))
        except click.ClickException as error:
            sys.exit(_say(error.format_message(), error.exit_code))
        except Exception as error:
            if os.environ.get(DEBUG):
                raise
            text = f"a defect of this command: {type(error).__name__}: {error}; {DEBUG}=1 shows where, please report it"
            sys.exit(_say(one_line(text), FAILED))
        sys.exit(code if isinstance(code, int) else 0)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the verbs."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - see above
        """Return a verb, or None."""
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(f"novacore_operator.cli.verbs.{VERBS[cmd_name]}")
        command: click.Command = getattr(module, cmd_name)
        return command


def _say(message: str, code: int) -> int:
    for line in message.splitlines():
        click.echo(f"{PROGRAM}: {line}", err=True)
    return code


@click.group(
    cls=Root,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@with_globals
@click.pass_context
def cli(context: click.Context) -> None:
    """See, change and mend a NovaCore installation.

    \b
    Start here:
      kubectl novacore status                  how is it, what next
      kubectl novacore plan -f cr.yaml         what would applying this do
      kubectl apply -f cr.yaml && kubectl novacore wait
      kubectl novacore doctor                  it does not work: why

    \b
    Options may stand before or behind the verb. Without -n and --name: the context's namespace, and the only
    NovaCoreDeployment in it.
    Exit codes: 0 done or no change, 1 error, 2 changes (plan, diff), 3 blocked, 64 bad input.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def main() -> NoReturn:
    """Entry point of `kubectl-novacore`."""
    cli.main()
