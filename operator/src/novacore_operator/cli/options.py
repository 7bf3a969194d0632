"""The options every verb has, before or behind its name: where to look, how to answer."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, ParamSpec, TypeVar

import click

from novacore_operator.cli.errors import BadInput

P = ParamSpec("P")
R = TypeVar("R")

META = "novacore_operator.cli.options"
DNS_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")

Format = Literal["text", "json", "yaml"]


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked for. None: kubectl's own default."""

    namespace: str | None = None
    context: str | None = None
    kubeconfig: str | None = None
    name: str | None = None  # None: the only NovaCoreDeployment of the namespace
    output: Format = "text"
    colour: bool = True


def dns_name(_: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Return an object's name. BadInput for anything else, so that no option of kubectl can be smuggled in."""
    if value is not None and not DNS_NAME.fullmatch(value):
        raise BadInput(f"--{parameter.name}: {value!r} is not a Kubernetes name: lower case letters, digits and dashes")
    return value


def _context_name(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    if value is not None and (not value or value.startswith("-")):
        raise BadInput(f"--context: {value!r} is not a context: see `kubectl config get-contexts`")
    return value


def _kept(check: Callable[..., Any] | None) -> Callable[[click.Context, click.Parameter, Any], None]:
    """Return a callback that keeps a given value for the whole command, wherever on the line it stood."""

    def keep(context: click.Context, parameter: click.Parameter, value: Any) -> None:
        value = check(context, parameter, value) if check else value
        if value is not None and value is not False:
            context.meta.setdefault(META, {})[parameter.name] = value

    return keep


def _declared() -> tuple[Callable[[Any], Any], ...]:
    """Return the options, in the order of `--help`."""
    file = click.Path(exists=True, dir_okay=False, readable=True)
    same: dict[str, Any] = {"expose_value": False}
    return (
        click.option("-n", "--namespace", callback=_kept(dns_name), help="Namespace of the installation.", **same),
        click.option("--name", callback=_kept(dns_name), help="NovaCoreDeployment, if there are several.", **same),
        click.option("--context", callback=_kept(_context_name), help="Context of the kubeconfig.", **same),
        click.option("--kubeconfig", type=file, callback=_kept(None), help="Kubeconfig file.", **same),
        click.option(
            "-o", "--output", type=click.Choice(["text", "json", "yaml"]), callback=_kept(None), help="Format.", **same
        ),
        click.option("--no-color", is_flag=True, callback=_kept(None), help="No colours.", **same),
    )


def with_globals(command: Callable[P, R]) -> Callable[P, R]:
    """Give a command the global options without handing it their values."""
    for option in reversed(_declared()):
        command = option(command)
    return command


def pass_options(command: Callable[..., R]) -> Callable[..., R]:
    """Give a command the global options, and their values as its first argument."""

    @functools.wraps(command)
    def called(*args: Any, **kwargs: Any) -> R:
        return command(current(), *args, **kwargs)

    return with_globals(called)


def current() -> Options:
    """Return the options of the running command."""
    given = dict(click.get_current_context().meta.get(META, {}))
    return Options(
        namespace=given.get("namespace"),
        context=given.get("context"),
        kubeconfig=given.get("kubeconfig"),
        name=given.get("name"),
        output=given.get("output", "text"),
        colour=not given.get("no_color", False),
    )
