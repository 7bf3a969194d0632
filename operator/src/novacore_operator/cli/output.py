"""Printing: a document for machines, or text for people. What comes from the cluster is text, never markup."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from typing import Any

import click
import yaml
from rich.console import Console

from novacore_operator.cli.options import Options

PIPE_COLUMNS = 2000
"""Wider than any message: what is searched for by grep stands on one line."""


class _Plain(yaml.SafeDumper):
    """No anchors: the same list twice is written twice."""

    def ignore_aliases(self, _: Any) -> bool:
        return True


def document(value: Any, options: Options) -> None:
    """Print the stable form for machines (CLI-2)."""
    click.echo(as_text(value, options), nl=False)


def as_text(value: Any, options: Options) -> str:
    """Return a value as the JSON or YAML that was asked for."""
    if options.output == "yaml":
        return yaml.dump(value, Dumper=_Plain, sort_keys=False, allow_unicode=True, width=120)
    return json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n"


def console(options: Options, *, stderr: bool = False) -> Console:
    """Return a console: colours only on a terminal; a pipe is never folded, whatever COLUMNS says."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(
        file=stream,
        no_color=not options.colour,
        highlight=False,
        markup=False,
        emoji=False,
        width=None if stream.isatty() else PIPE_COLUMNS,
        soft_wrap=False,
    )


@contextlib.contextmanager
def busy(text: str, options: Options) -> Iterator[None]:
    """Show on stderr that something is under way, on a terminal only."""
    out = console(options, stderr=True)
    if not out.is_terminal:
        yield
        return
    with out.status(text, spinner="dots"):
        yield
