"""`python3 -m hack.demo …`: up, deploy, chat, status, logs, isolation. The Makefile is the door for people."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from hack.cluster.errors import Problem
from hack.demo.chat import chat
from hack.demo.deploy import deploy
from hack.demo.isolation import isolation
from hack.demo.kube import Cluster
from hack.demo.logs import logs
from hack.demo.status import status
from hack.demo.terminal import EXIT_ERROR, EXIT_USAGE, DemoError
from hack.demo.up import up


class Parser(argparse.ArgumentParser):
    """An argument parser that exits 64 on bad input, as every NovaCore command does."""

    def error(self, message: str) -> NoReturn:
        """Print one line and leave."""
        self.exit(EXIT_USAGE, f"{self.prog}: {message}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    options = parser().parse_args(arguments)
    try:
        run(options)
    except DemoError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except Problem as problem:
        print(f"error: {problem}", file=sys.stderr)
        return EXIT_ERROR
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return 130
    except BrokenPipeError:
        return EXIT_ERROR
    return 0


def run(options: argparse.Namespace) -> None:
    """Do what the options say."""
    match options.command:
        case "chat":
            chat(options.url, options.message, verbose=options.verbose, wait_s=options.wait)
        case "up":
            up(options.name, options.port, options.path, options.namespace)
        case "deploy":
            deploy(
                Cluster(options.name),
                options.namespace,
                values=options.values,
                operator_values=options.operator_values,
                ready_within_s=options.wait,
            )
        case "status":
            status(Cluster(options.name), options.namespace, output=options.output)
        case "isolation":
            isolation(Cluster(options.name), options.namespace)
        case "logs":
            logs(Cluster(options.name), options.namespace, options.id, follow=options.follow)


def parser() -> Parser:
    """Return the command line."""
    top = Parser(prog="hack.demo", description=__doc__)
    commands = top.add_subparsers(dest="command", required=True, parser_class=Parser)
    here = Parser(add_help=False)
    here.add_argument("--name", default="novacore", help="cluster name (default: novacore)")
    here.add_argument("--namespace", default="novacore", help="namespace of the installation (default: novacore)")

    up_ = commands.add_parser("up", parents=[here], help="from nothing to a chat reply")
    up_.add_argument("--port", type=int, default=5000, help="loopback port of the gateway")
    up_.add_argument(
        "--path", choices=("auto", "stock", "bare"), default="auto", help="where node and base images come from"
    )

    deploy_ = commands.add_parser("deploy", parents=[here], help="install or upgrade both charts and wait for Ready")
    deploy_.add_argument("--values", type=Path, action="append", default=[], help="values file above the kind defaults")
    deploy_.add_argument(
        "--operator-values", type=Path, action="append", default=[], help="values file for the operator's chart"
    )
    deploy_.add_argument("--wait", type=float, default=600, help="seconds until Ready (default: 600)")

    chat_ = commands.add_parser("chat", help="ask one question and watch the answer arrive")
    chat_.add_argument("--url", default="http://127.0.0.1:5000")
    chat_.add_argument("--message", required=True)
    chat_.add_argument("--wait", type=float, default=120, help="seconds to wait for the gateway (default: 120)")
    chat_.add_argument("-v", "--verbose", action="store_true", help="show user, request id, run and session")

    status_ = commands.add_parser("status", parents=[here], help="conditions, components, memory, times, sizes")
    status_.add_argument("-o", "--output", choices=("text", "json"), default="text")

    commands.add_parser("isolation", parents=[here], help="try for real that only the gateway is open to others")

    logs_ = commands.add_parser("logs", parents=[here], help="the log lines of one request, over all services")
    logs_.add_argument("--id", required=True, help="request id, run id, or any other id in the log lines")
    logs_.add_argument("--follow", action="store_true", help="go on as lines are written")
    return top


if __name__ == "__main__":
    sys.exit(main())
