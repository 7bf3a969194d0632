"""`plan` and `diff`: what would be written, and nothing written."""

from __future__ import annotations

import click

from novacore_operator.cli import engine
from novacore_operator.cli.options import Options, pass_options
from novacore_operator.cli.output import busy, console, document
from novacore_operator.cli.plan_view import coloured, exit_code, render, unified
from novacore_operator.cli.specfile import joined, read
from novacore_operator.preview import Preview

file_option = click.option(
    "-f",
    "--filename",
    metavar="FILE",
    type=click.Path(allow_dash=True),
    help="A NovaCoreDeployment in place of the live one; - is standard input.",
)


@click.command()
@file_option
@pass_options
def plan(options: Options, *, filename: str | None) -> int:
    """Show every write the operator would do, with what it leads to. Writes nothing.

    Exit 0 when there is no change, 2 when there are changes, 3 when something blocks.

    \b
    Examples:
      kubectl novacore plan                      what is still to be done for the live resource
      kubectl novacore plan -f cr.yaml           what applying this file would do
      kubectl novacore plan -f cr.yaml -o json   the same for CI; stable
      helm template novacore charts/novacore | kubectl novacore plan -f -
    """
    preview = _computed(options, filename)
    if options.output == "text":
        console(options).print(render(preview), soft_wrap=True)
    else:
        document(preview.as_dict(), options)
    return exit_code(preview)


@click.command()
@file_option
@pass_options
def diff(options: Options, *, filename: str | None) -> int:
    """Show the same as `plan`, as a unified diff of the changed fields.

    Exit 0 when there is no change, 2 when there are changes, 3 when something blocks.

    \b
    Examples:
      kubectl novacore diff -f cr.yaml
      kubectl novacore diff -f cr.yaml > change.diff
    """
    preview = _computed(options, filename)
    if options.output != "text":
        document(preview.as_dict(), options)
        return exit_code(preview)
    console(options).print(coloured(unified(preview)), end="", soft_wrap=True)
    if preview.blocked is not None:
        click.echo(f"blocked ({preview.blocked.reason.value}): {preview.blocked.message}", err=True)
    return exit_code(preview)


def _computed(options: Options, filename: str | None) -> Preview:
    file = None
    if filename is not None:
        file = read(filename)
        options = joined(options, file, shown=filename)
    with busy("planning", options):
        return engine.compute(options, file)
