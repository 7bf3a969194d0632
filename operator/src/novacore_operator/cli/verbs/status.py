"""`status` and `wait`: how it is, and when it is as wanted."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator

import click
import yaml
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from novacore_operator.cli.errors import BLOCKED, DONE, FAILED, Unreachable
from novacore_operator.cli.kubectl import Kubectl
from novacore_operator.cli.options import Options, pass_options
from novacore_operator.cli.output import console, document
from novacore_operator.cli.resource import find
from novacore_operator.cli.status_view import Summary, line, screen, summary
from novacore_operator.cli.waiting import Duration, Verdict, judge, told


@click.command()
@click.option("-w", "--watch", is_flag=True, help="Go on until Ctrl-C; in a pipe, a line per change.")
@click.option("--interval", type=click.IntRange(1, 3600), default=2, show_default=True, help="Seconds between looks.")
@pass_options
def status(options: Options, *, watch: bool, interval: int) -> None:
    """One screen: conditions, components, release, and what to do next.

    \b
    Examples:
      kubectl novacore status
      kubectl novacore status -n shop --watch
      kubectl novacore status -o json | jq .next
    """
    kubectl = Kubectl(options)
    if watch:
        with contextlib.suppress(KeyboardInterrupt):  # the way to end it, not a failure
            _watch(kubectl, options, interval)
        return
    shown = summary(find(kubectl, options))
    if options.output == "text":
        console(options).print(screen(shown))
    else:
        document(shown, options)


def _watch(kubectl: Kubectl, options: Options, interval: int) -> None:
    out = console(options)
    looks = _looks(kubectl, options, interval)
    if options.output == "text" and out.is_terminal:
        with Live(console=out, auto_refresh=False, screen=True) as live:
            for shown in looks:
                live.update(screen(shown), refresh=True)
    last: Summary | None = None
    for shown in looks:
        if shown != last:
            click.echo(_changed(shown, options), nl=options.output != "yaml")
        last = shown


def _changed(shown: Summary, options: Options) -> str:
    """Return one record of a watched pipe: a line of text or JSON, or a YAML document."""
    if options.output == "json":
        return json.dumps(shown, ensure_ascii=False)
    if options.output == "yaml":
        return "---\n" + yaml.safe_dump(shown, sort_keys=False, allow_unicode=True)
    return line(shown)


def _looks(kubectl: Kubectl, options: Options, interval: float) -> Iterator[Summary]:
    """Look again and again. Once it has answered, an API server that is away for a while is waited for."""
    pause = threading.Event()  # nothing sets it: it is a wait that Ctrl-C ends at once
    shown = summary(find(kubectl, options))
    while True:
        yield shown
        pause.wait(interval)
        with contextlib.suppress(Unreachable):
            shown = summary(find(kubectl, options))


@click.command()
@click.option("--for", "what", type=click.Choice(["ready"]), default="ready", show_default=True, help="State.")
@click.option("--timeout", type=Duration(), default="10m", show_default=True, help="Such as 90s, 10m or 1h30m.")
@pass_options
def wait(options: Options, *, what: str, timeout: float) -> int:  # noqa: ARG001 - one state so far
    """Wait until this generation is wholly Ready.

    Exit 0 when it is, 1 when the time is over (the reason is printed), 3 when waiting cannot help: the change was
    rolled back, or the resource is in mode Plan.

    \b
    Examples:
      kubectl novacore wait
      kubectl novacore wait --for=ready --timeout=15m -n shop
    """
    started = time.monotonic()
    kubectl = Kubectl(options)
    out = console(options, stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[state]}"), TimeElapsedColumn())
    with Progress(*columns, console=out, disable=not out.is_terminal, transient=True) as progress:
        task = progress.add_task("waiting", total=None, state="")
        said = ""
        for shown in _looks(kubectl, options, min(2.0, timeout)):
            verdict = judge(shown, waited_s=time.monotonic() - started, timeout_s=timeout)
            ready = sum(bool(part.get("ready")) for part in shown["components"])
            progress.update(task, total=len(shown["components"]) or None, completed=ready, state=line(shown)[:80])
            if not out.is_terminal and said != line(shown):
                said = line(shown)
                click.echo(said, err=True)
            if verdict is not Verdict.WAIT:
                break
    answer = told(shown, verdict, waited_s=time.monotonic() - started)
    if options.output == "text":
        click.echo(answer["text"], err=verdict is not Verdict.READY)
    else:
        document({key: value for key, value in answer.items() if key != "text"}, options)
    return {Verdict.READY: DONE, Verdict.BLOCKED: BLOCKED}.get(verdict, FAILED)
