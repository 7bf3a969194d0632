"""`novacore`: the one command of the workloads image."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import importlib.util
import json
import sys
from collections.abc import Coroutine, Sequence
from typing import Any, NoReturn

from novacore_contracts.paths import ROOT_VARIABLE, paths
from novacore_contracts.releases import CURRENT
from novacore_contracts.services import SERVICES

EX_USAGE = 64
EX_CONFIG = 78
EX_FAILED = 1

NAMES = [service.name for service in SERVICES]

EPILOG = f"""\
what runs where:
  serve         nine Deployments, one per service; ports: service port and 9090 (probes, /metrics, /internal/*)
  migrate       the migration Job, before each roll-out; a second run changes nothing
  openapi       a developer's shell; `make gen` writes tests/contract/openapi/ with it
  the rest      by hand in a pod: kubectl exec deploy/novacore-<service> -- novacore <command>

services: {", ".join(NAMES)}
files are mounted below / (novacore_contracts.paths); {ROOT_VARIABLE}=<dir> moves the tree for a hand-made process.
exit codes: 0 done, 1 failed, 64 wrong arguments, 78 settings this service must not start with, or an
image of another release.
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, exit 64: the usage is in --help."""
        sys.stderr.write(f"{self.prog}: {message} (see {self.prog} --help)\n")
        raise SystemExit(EX_USAGE)


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    root = _Parser(
        prog="novacore",
        description="The nine NovaCore services and the tools beside them.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = root.add_subparsers(dest="command", metavar="command", required=True, parser_class=_Parser)

    serve = commands.add_parser("serve", help="run one service until SIGTERM", description="Run one service.")
    serve.add_argument("service", choices=NAMES, metavar="service", help=", ".join(NAMES))

    migrate = commands.add_parser(
        "migrate", help="bring the database to this release's level (roles, schemas, tables, seeds)"
    )
    for command in (serve, migrate):
        command.add_argument("--release", help=f"refuse to run as another release than this (the image is {CURRENT})")

    openapi = commands.add_parser("openapi", help="print a service's OpenAPI document as JSON")
    openapi.add_argument("service", choices=[service.name for service in SERVICES if service.port], metavar="service")

    admin = commands.add_parser("admin", help="accounts: make an admin, give a tier")
    admin_commands = admin.add_subparsers(dest="action", required=True, parser_class=_Parser, metavar="action")
    create = admin_commands.add_parser("create", help="make an admin account; prints its one-time password")
    create.add_argument("--email", required=True)
    tier = admin_commands.add_parser("tier", help="give an account a tier (free_trial, basic, pro)")
    tier.add_argument("--email", required=True)
    tier.add_argument("--tier", required=True, choices=("free_trial", "basic", "pro"))

    stripe = commands.add_parser("stripe", help="ask Stripe at once what is missing here")
    stripe_commands = stripe.add_subparsers(dest="action", required=True, parser_class=_Parser, metavar="action")
    reconcile = stripe_commands.add_parser("reconcile", help="list its events and compare subscriptions and invoices")
    reconcile.add_argument("--days", type=int, default=30, choices=range(1, 31), metavar="1..30")

    distill = commands.add_parser("distill", help="distil reflections at once instead of at the scheduled hour")
    distill.add_argument("--now", action="store_true", required=True)

    letters = commands.add_parser("dead-letters", help="messages given up: list, show, replay, drop")
    letter_commands = letters.add_subparsers(dest="action", required=True, parser_class=_Parser, metavar="action")
    letter_commands.add_parser("list", help="one JSON line each")
    for action, what in (("show", "one letter"), ("replay", "put it back into its stream"), ("drop", "delete it")):
        one = letter_commands.add_parser(action, help=what)
        one.add_argument("stream", help="for instance stream:reflection")
        one.add_argument("letter", help="its id in the list")
    return root


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command and end the process with its exit code."""
    arguments = parser().parse_args(argv)
    _be_release(getattr(arguments, "release", None))
    match arguments.command:
        case "serve":
            from novacore.common.openapi import definition_of
            from novacore.common.server import serve

            serve(definition_of(arguments.service))
        case "migrate":
            _migrate()
        case "openapi":
            from novacore.common.openapi import document

            print(json.dumps(document(arguments.service), indent=2, ensure_ascii=False))
        case "admin":
            rest = (arguments.tier,) if arguments.action == "tier" else ()
            _run(_hook("novacore.auth_billing.admin", arguments.action)(arguments.email, *rest))
        case "stripe":
            _run(_hook("novacore.auth_billing.stripe_command", arguments.action)(arguments.days))
        case "distill":
            _run(_hook("novacore.distillation_worker.now", "distill_now")())
        case "dead-letters":
            _dead_letters(arguments)


def _be_release(wanted: str | None) -> None:
    """End with 78 when the image under the wanted release's name is another one: the pod must not serve or migrate."""
    if wanted in (None, CURRENT):
        return
    line = f"the image is release {CURRENT}, not {wanted}: push the right image under that tag"
    sys.stderr.write(f"novacore: {line}\n")
    raise SystemExit(EX_CONFIG)


def _migrate() -> None:
    from novacore.migrations.runner import MigrationError, migrate

    try:
        asyncio.run(migrate(paths(), say=_say))
    except MigrationError as error:
        _fail(str(error))
    except (OSError, ValueError, KeyError) as error:
        _fail(f"migrate: admin.json or roles.json cannot be used: {type(error).__name__}: {error}")


def _dead_letters(arguments: argparse.Namespace) -> None:
    from novacore.common import deadletters
    from novacore.common.redis import RedisError
    from novacore.common.settings import SettingsError

    rest = [arguments.stream, arguments.letter] if arguments.action != "list" else []
    if rest and rest[0] not in deadletters.STREAMS:
        sys.stderr.write(f"novacore: {rest[0]} is no stream; there are {', '.join(deadletters.STREAMS)}\n")
        raise SystemExit(EX_USAGE)
    try:
        asyncio.run(deadletters.run(paths(), arguments.action, rest, print))
    except (deadletters.NoSuchLetterError, RedisError, SettingsError) as error:
        _fail(f"dead-letters: {error}")


def _hook(module: str, name: str) -> Any:
    """Return a command's function from the service that owns it."""
    if importlib.util.find_spec(module) is None:
        _fail(f"this build has no {module}")
    return getattr(importlib.import_module(module), name)


def _run(coroutine: Coroutine[Any, Any, Any]) -> None:
    outcome = asyncio.run(coroutine)
    if outcome is not None:
        print(outcome)


def _say(line: str) -> None:
    print(line, flush=True)


def _fail(line: str) -> NoReturn:
    sys.stderr.write(line.rstrip() + "\n")
    raise SystemExit(EX_FAILED)


if __name__ == "__main__":
    main()
