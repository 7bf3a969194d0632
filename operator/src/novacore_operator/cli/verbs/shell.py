"""`completion` and `version`: about the command itself; neither needs a cluster."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from novacore_contracts.releases import RELEASES
from novacore_operator.api import API_VERSION
from novacore_operator.cli.errors import COMPLETE_VARIABLE, SCRIPT, VERSION
from novacore_operator.cli.options import Options, pass_options
from novacore_operator.cli.output import document


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, *, shell: str) -> None:
    """Print a completion script of `kubectl-novacore` for SHELL.

    `kubectl novacore`, with a space, completes by itself: kubectl asks `kubectl_complete-novacore`.

    \b
    Examples:
      source <(kubectl novacore completion bash)
      kubectl novacore completion fish > ~/.config/fish/completions/kubectl-novacore.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(context.find_root().command, {}, SCRIPT, COMPLETE_VARIABLE).source())


@click.command()
@pass_options
def version(options: Options) -> None:
    """Print this command's version and the releases it knows. Asks no cluster.

    \b
    Example:
      kubectl novacore version -o json
    """
    if options.output == "text":
        click.echo(f"kubectl-novacore {VERSION} (resource {API_VERSION}; releases: {', '.join(RELEASES)})")
    else:
        document({"version": VERSION, "resource": API_VERSION, "releases": list(RELEASES)}, options)
