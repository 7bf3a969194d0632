"""Log lines of pods: parsing, following one id through all services, printing for people. Pure.

The services and the operator write one JSON object per line; Postgres, Redis and crashes write plain text, which is
shown as it is. `kubectl logs --prefix` puts `[pod/NAME/CONTAINER] ` before each.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from rich.text import Text

from novacore_contracts.services import SERVICES
from novacore_operator.cli.errors import printable
from novacore_operator.state.names import LABEL_COMPONENT, LABEL_NAME
from novacore_operator.state.stores import STORES

OPERATOR = "operator"
SERVICE_NAMES = tuple(service.name for service in SERVICES)
SOURCES = (*SERVICE_NAMES, *STORES, "migrate", OPERATOR)
REQUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
PREFIXED = re.compile(r"\[pod/([^/\]]+)/([^\]]+)\] ?(.*)", re.DOTALL)
OWN_PLACE = frozenset({"ts", "level", "service", "version", "pod", "event", "error"})
SAME_ON_EACH = frozenset({"request_id", "trace_id", "span_id"})
LEVELS = {"debug": "dim", "info": "green", "warning": "yellow", "error": "bold red"}
SERVICE_COLUMNS = max(len(name) for name in SOURCES)
VALUE_CHARS = 300


@dataclass(frozen=True, slots=True)
class Line:
    """One line. `fields` is empty for plain text."""

    pod: str
    container: str
    text: str
    fields: dict[str, Any] = field(default_factory=dict)

    @property
    def at(self) -> str:
        """Its time, RFC 3339 in UTC, so that text order is order of time; empty when it says none."""
        return str(self.fields.get("ts", ""))


def parse(raw: str) -> Line:
    """Return a line of `kubectl logs --prefix`, or of anything else."""
    match = PREFIXED.fullmatch(raw)
    pod, container, text = match.groups() if match else ("", "", raw)
    try:
        fields = json.loads(text) if text.startswith("{") else {}
    except (ValueError, RecursionError):
        fields = {}
    return Line(pod, container, text, fields if isinstance(fields, dict) else {})


def selector(sources: Iterable[str]) -> str:
    """Return the label selector of the pods of services or stores."""
    names = ",".join(sources)
    return f"{LABEL_NAME}=novacore,{LABEL_COMPONENT} in ({names})"


def carries(line: Line, wanted: str) -> bool:
    """Return whether a line is about an id: as request id, or as the value of any other field (run, job, trace)."""
    return wanted in line.text and wanted in (value for value in line.fields.values() if isinstance(value, str))


def in_order(lines: Iterable[Line]) -> list[Line]:
    """Return lines in order of time; plain text keeps its place behind the line of its pod it followed."""
    last: dict[tuple[str, str], str] = {}
    keyed = []
    for number, line in enumerate(lines):
        source = (line.pod, line.container)
        at = line.at or last.get(source, "")
        last[source] = at
        keyed.append((at, number, line))
    return [line for _, _, line in sorted(keyed, key=lambda item: item[:2])]


def record(line: Line) -> dict[str, Any]:
    """Return the line for `-o json|yaml`: its own fields, or its text with where it comes from."""
    return line.fields or {"pod": line.pod, "container": line.container, "text": line.text}


def readable(line: Line, *, followed: bool = False) -> Text:
    """Return the line for people. `followed`: one id's lines, so the id need not be repeated."""
    fields = line.fields
    if "event" not in fields:
        return Text.assemble((f"{line.container or '-':{SERVICE_COLUMNS}} ", "cyan"), printable(line.text))
    level = str(fields.get("level", ""))
    text = Text.assemble(
        (f"{_clock(line.at):12} ", "dim"),
        (f"{printable(level).upper():7} ", LEVELS.get(level, "")),
        (f"{printable(str(fields.get('service') or line.container)):{SERVICE_COLUMNS}} ", "cyan"),
        (_value(fields["event"]), "bold"),
    )
    hidden = OWN_PLACE | SAME_ON_EACH if followed else OWN_PLACE | {"trace_id", "span_id"}
    for name, value in fields.items():
        if name not in hidden and value is not None:
            text.append(f" {printable(name)}=", "dim")
            text.append(_value(value))
    _add_error(text, fields.get("error"))
    return text


def _clock(at: str) -> str:
    """Return the time of day with milliseconds, UTC."""
    match = re.search(r"T(\d\d:\d\d:\d\d(?:\.\d{1,3})?)", at)
    return match[1] if match else printable(at)[:12]


def _value(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    text = printable(text).replace("\n", "⏎")
    return text if len(text) <= VALUE_CHARS else f"{text[: VALUE_CHARS - 1]}…"


def _add_error(text: Text, error: Any) -> None:
    if isinstance(error, dict):
        text.append(f" {printable(str(error.get('type', 'error')))}", "bold red")
        for row in printable(str(error.get("stack", ""))).rstrip().splitlines():
            text.append(f"\n    {row}", "red")
    elif error is not None:
        text.append(f" error={_value(error)}", "red")
