"""`doctor`: what is wrong with the cluster, the operator or the installation, and what mends it."""

from __future__ import annotations

import click
from rich.text import Text

from novacore_operator.cli.doctor import Judged
from novacore_operator.cli.doctor.checks import Check, examine
from novacore_operator.cli.doctor.reading import gather
from novacore_operator.cli.errors import DONE, FAILED, printable
from novacore_operator.cli.kubectl import Kubectl
from novacore_operator.cli.options import Options, pass_options
from novacore_operator.cli.output import busy, console, document

API = "novacore.ai/doctor/v1"
SIGNS = {
    "ok": ("✓", "green"),
    "info": ("i", "cyan"),
    "warn": ("!", "yellow"),
    "fail": ("✗", "bold red"),
    "unknown": ("?", "dim"),
}


@click.command()
@pass_options
def doctor(options: Options) -> int:
    """Check cluster, operator and installation; each finding comes with what mends it. Changes nothing.

    Exit 1 when a check fails; warnings do not count.

    \b
    Examples:
      kubectl novacore doctor -n shop
      kubectl novacore doctor -o json | jq '.checks[] | select(.result == "fail")'
    """
    with busy("examining the cluster", options):
        facts = gather(Kubectl(options), options)
    found = examine(facts)
    failed = [judged for _, judged in found if judged.result == "fail"]
    if options.output != "text":
        document(report(facts.namespace, found), options)
        return FAILED if failed else DONE
    out = console(options)
    for check, judged in found:
        for line in _lines(check, judged):
            out.print(line, soft_wrap=True)
    warned = sum(judged.result == "warn" for _, judged in found)
    out.print(Text(f"checks: {len(found)}, failed: {len(failed)}, warnings: {warned}", style="bold"))
    return FAILED if failed else DONE


def report(namespace: str, found: list[tuple[Check, Judged]]) -> dict[str, object]:
    """Return the stable document."""
    return {
        "apiVersion": API,
        "namespace": namespace,
        "ok": all(judged.result != "fail" for _, judged in found),
        "checks": [
            {
                "id": check.id,
                "title": check.title,
                "result": judged.result,
                "message": judged.message,
                "remedy": judged.remedy,
            }
            for check, judged in found
        ],
    }


def _lines(check: Check, judged: Judged) -> list[Text]:
    sign, colour = SIGNS[judged.result]
    lines = [Text.assemble((f"{sign} ", colour), (f"{check.title:20} ", "bold"), printable(judged.message))]
    if judged.remedy:
        lines.append(Text(f"  {'':20} → {printable(judged.remedy)}"))
    return lines
