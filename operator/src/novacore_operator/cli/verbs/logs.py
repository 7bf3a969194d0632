"""`logs`: one service's lines, or one request through all of them."""

from __future__ import annotations

import contextlib
import json
from collections import deque
from collections.abc import Iterable, Iterator

import click
import yaml

from novacore_operator.cli.errors import BadInput, Failed
from novacore_operator.cli.kubectl import Kubectl, failure
from novacore_operator.cli.loglines import (
    OPERATOR,
    REQUEST_ID,
    SERVICE_NAMES,
    SOURCES,
    Line,
    carries,
    in_order,
    parse,
    readable,
    record,
    selector,
)
from novacore_operator.cli.operators import operators
from novacore_operator.cli.options import Options, pass_options
from novacore_operator.cli.output import busy, console
from novacore_operator.cli.waiting import Duration

STREAMS = 200  # containers read at once: kubectl's own limit of 5 is below nine services
SAID = 5  # last lines kept to explain why kubectl ended badly


@click.command()
@click.argument("service", required=False, type=click.Choice(SOURCES))
@click.option("--request-id", metavar="ID", help="One request through all nine services; run and trace ids work too.")
@click.option("-f", "--follow", is_flag=True, help="Go on as lines are written.")
@click.option("--tail", type=click.IntRange(min=0), help="Last lines per pod.  [default: 200; all with --request-id]")
@click.option("--since", type=Duration(), help="How far back, such as 5m or 2h.  [default: 1h with --request-id]")
@click.option("--previous", is_flag=True, help="Of the containers before their last restart.")
@pass_options
def logs(
    options: Options,
    *,
    service: str | None,
    request_id: str | None,
    follow: bool,
    tail: int | None,
    since: float | None,
    previous: bool,
) -> None:
    """Show log lines of SERVICE (the nine, postgres, redis, migrate or operator), or of one request.

    The JSON lines are printed readable, in order of time; with -o json they come as they are, one a line.

    \b
    Examples:
      kubectl novacore logs gateway -f
      kubectl novacore logs memory --since 10m --tail 1000
      kubectl novacore logs --request-id 0198f3c2-5d1e-7c44-9f0a-2b1c3d4e5f60
      kubectl novacore logs memory --previous       why did it crash?
    """
    if (service is None) == (request_id is None):
        raise BadInput(f"give either a SERVICE ({', '.join(SOURCES)}) or --request-id ID")
    if request_id is not None and not REQUEST_ID.fullmatch(request_id):
        raise BadInput(f"--request-id: {request_id!r} is no id: letters, digits and . _ : - are")
    kubectl = Kubectl(options)
    sources = (service,) if service is not None else SERVICE_NAMES
    namespace, labels = _where(kubectl, sources)
    back = since or (3600.0 if request_id else None)
    command = [
        "logs",
        "--prefix",
        "--ignore-errors",
        f"--max-log-requests={STREAMS}",
        f"--tail={tail if tail is not None else -1 if request_id else 200}",
        *([f"--since={round(back)}s"] if back else []),
        *(["--follow"] if follow else []),
        *(["--previous"] if previous else []),
        "--all-containers",
        f"--selector={labels}",
    ]
    printer = _Printer(options, followed=request_id is not None)
    if follow:
        with contextlib.suppress(KeyboardInterrupt):  # the way to end it, not a failure
            printer.print(_matching(kubectl, command, namespace, request_id))
    else:
        with busy("reading logs", options):
            lines = in_order(_matching(kubectl, command, namespace, request_id))
        printer.print(lines)
    if printer.count == 0 and not follow:
        raise Failed(_nothing(service, request_id, options))


def _where(kubectl: Kubectl, sources: tuple[str, ...]) -> tuple[str | None, str]:
    """Return namespace (None: the installation's) and label selector of the pods."""
    if sources != (OPERATOR,):
        return None, selector(sources)
    found = operators(kubectl)
    if not found:
        raise Failed("no operator runs in this cluster: install its chart, charts/novacore-operator")
    labels = found[0]["spec"]["selector"]["matchLabels"]
    return found[0]["metadata"]["namespace"], ",".join(f"{key}={value}" for key, value in labels.items())


def _matching(kubectl: Kubectl, command: list[str], namespace: str | None, wanted: str | None) -> Iterator[Line]:
    """Yield the lines that are asked for as they come; the others are not kept."""
    said: deque[str] = deque(maxlen=SAID)
    with kubectl.stream(*command, namespace=namespace) as stream:
        for raw in stream:
            line = parse(raw)
            if not line.pod:
                said.append(raw)  # kubectl itself speaks: container lines have a prefix
            elif wanted is None or carries(line, wanted):
                yield line
        code = stream.code
    if code:
        raise failure("\n".join(said))


class _Printer:
    """Prints lines in the format that was asked for, and counts them."""

    def __init__(self, options: Options, *, followed: bool) -> None:
        self._options, self._followed = options, followed
        self._console = console(options)
        self.count = 0

    def print(self, lines: Iterable[Line]) -> None:
        """Print each as it comes."""
        for line in lines:
            self.count += 1
            if self._options.output == "json":
                click.echo(json.dumps(record(line), ensure_ascii=False))
            elif self._options.output == "yaml":
                click.echo("---\n" + yaml.safe_dump(record(line), sort_keys=False, allow_unicode=True), nl=False)
            else:
                self._console.print(readable(line, followed=self._followed), soft_wrap=True)


def _nothing(service: str | None, request_id: str | None, options: Options) -> str:
    where = f"namespace {options.namespace}" if options.namespace else "this context's namespace"
    if request_id is not None:
        return f"no line in {where} carries {request_id}: is the id whole? Look further back with --since"
    return f"no line of {service} in {where}: is it running (`kubectl novacore status`), and is -n right?"
