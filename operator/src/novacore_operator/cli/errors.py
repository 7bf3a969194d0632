"""What the command is called, and how a verb ends: exit codes, and the failures that are told in one line."""

from __future__ import annotations

import re
from importlib.metadata import version

import click

DONE = 0
FAILED = 1
CHANGES = 2
BLOCKED = 3
BAD_INPUT = 64

PROGRAM = "kubectl novacore"
SCRIPT = "kubectl-novacore"
COMPLETE_VARIABLE = "_KUBECTL_NOVACORE_COMPLETE"
VERSION = version("novacore-operator")
LINE_CHARS = 1000


class Failed(click.ClickException):
    """Something did not work: what, and what to do."""

    exit_code = FAILED


class NotFound(Failed):
    """The object, or its kind, does not exist."""


class Forbidden(Failed):
    """The user may not do that."""


class Unreachable(Failed):
    """The API server does not answer; it may do so again."""


class BadInput(click.ClickException):
    """The command was given something it cannot use. Several mistakes are several lines."""

    exit_code = BAD_INPUT


def printable(text: str) -> str:
    """Return text without control characters, line ends and tabs apart: a cluster's text may not drive a terminal."""
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", "", text)


def one_line(text: str) -> str:
    """Return text as one line of bounded length."""
    flat = " ".join(printable(text).split())
    return flat if len(flat) <= LINE_CHARS else f"{flat[: LINE_CHARS - 1]}…"
