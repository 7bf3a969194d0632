"""`kubectl_complete-novacore`: kubectl calls it to complete `kubectl novacore …`.

The protocol is cobra's: a candidate per line, a tab before its description, and a last line `:4` (no file names; `:0`
lets the shell offer files).
"""

from __future__ import annotations

import sys

import click
from click.shell_completion import CompletionItem, ShellComplete

from novacore_operator.cli.app import cli
from novacore_operator.cli.errors import COMPLETE_VARIABLE, SCRIPT

FILES, NO_FILES = ":0", ":4"


def candidates(words: list[str]) -> list[str]:
    """Return the lines to print for the words typed so far, the last of which may be unfinished."""
    *done, unfinished = words or [""]
    found = ShellComplete(cli, {}, SCRIPT, COMPLETE_VARIABLE).get_completions(done, unfinished)
    files = any(item.type in ("file", "dir") for item in found)
    return [*(_line(item) for item in found if item.type == "plain"), FILES if files else NO_FILES]


def _line(item: CompletionItem) -> str:
    return f"{item.value}\t{item.help}" if item.help else str(item.value)


def main() -> None:
    """Entry point."""
    for line in candidates(sys.argv[1:]):
        click.echo(line)
