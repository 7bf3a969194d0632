"""A Preview as text: `plan` grouped by component, `diff` as a unified diff. Pure.

What stands here are names and settings; the values of Secrets are `<hidden>` already (PREVIEW-1).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

import yaml
from rich.text import Text

from novacore_contracts.services import SERVICES
from novacore_operator.cli.errors import BLOCKED, CHANGES, DONE, printable
from novacore_operator.preview import Change, FieldChange, Preview
from novacore_operator.state import Ref
from novacore_operator.state.stores import STORES

PREFIX = "novacore-"
INSTALLATION = "installation"
COMPONENTS = (*STORES, "migrate", *(service.name for service in SERVICES))
ORDER = {name: n for n, name in enumerate((INSTALLATION, *COMPONENTS))}
SIGNS = {"create": ("+", "green"), "update": ("~", "yellow"), "delete": ("-", "red")}
WHY = {"missing": "", "changed": "", "drift": "somebody changed it: put back", "unwanted": "no longer wanted"}
VALUE_CHARS = 120


def exit_code(preview: Preview) -> int:
    """Return 0 for no change, 2 for changes, 3 when nothing would be written because something blocks."""
    if preview.blocked is not None:
        return BLOCKED
    return CHANGES if preview.changes else DONE


def component_of(ref: Ref) -> str:
    """Return the component an object belongs to, by its fixed name."""
    rest = ref.name.removeprefix(PREFIX)
    fitting = [name for name in COMPONENTS if rest == name or rest.startswith(f"{name}-")]
    return max(fitting, key=len, default=INSTALLATION)


def grouped(changes: Iterable[Change]) -> Iterator[tuple[str, list[Change]]]:
    """Yield components in the order of a roll-out, with their changes in the plan's order."""
    groups: dict[str, list[Change]] = {}
    for change in changes:
        groups.setdefault(component_of(change.ref), []).append(change)
    yield from sorted(groups.items(), key=lambda item: ORDER[item[0]])


def render(preview: Preview) -> Text:
    """Return the whole plan."""
    lines: list[Text] = []
    for component, changes in grouped(preview.changes):
        lines.append(Text(component, style="bold"))
        for change in changes:
            lines += _object(change)
        lines.append(Text())
    if preview.blocked is not None:
        reason = preview.blocked.reason
        lines.append(Text(f"Blocked ({reason.value}): {printable(preview.blocked.message)}", style="bold red"))
        lines.append(Text(f"What to do: {reason.remedy}"))
    lines.append(Text(summary_line(preview), style="bold"))
    return Text("\n").join(lines)


def summary_line(preview: Preview) -> str:
    """Return the last line: how many, and that nothing was done."""
    if not preview.changes:
        return "Nothing would be written." if preview.blocked else "No changes: the cluster is as the resource says."
    count = {verb: sum(change.verb == verb for change in preview.changes) for verb in SIGNS}
    numbers = ", ".join(f"{n} to {verb}" for verb, n in count.items())
    return f"Plan {preview.hash}: {numbers}. Nothing has been written."


def _object(change: Change) -> Iterator[Text]:
    sign, colour = SIGNS.get(change.verb, ("?", "white"))
    text = Text.assemble(("  ", ""), (f"{sign} {change.verb} {change.ref}", colour))
    why = WHY.get(change.why, change.why)
    if why:
        text.append(f"  ({why})", "dim")
    if change.consequence:
        text.append(f"  {printable(change.consequence)}", "bold")
    yield text
    for field in change.fields:
        yield field_line(field, indent=6)
    if change.waits_for:
        yield Text(f"      waits for: {printable(change.waits_for)}", style="dim")


def field_line(field: FieldChange, *, indent: int) -> Text:
    """Return one field, old → new."""
    text = Text(" " * indent + field.path + "  ")
    if field.old is not None:
        text.append(short(field.old), "red")
    text.append(" → " if field.old is not None and field.new is not None else "")
    if field.new is not None:
        text.append(short(field.new), "green")
    else:
        text.append(" (removed)", "red")
    return text


def short(value: Any) -> str:
    """Return a value on one line of bounded length."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    text = printable(text).replace("\n", "⏎").replace("\t", " ")
    return text if len(text) <= VALUE_CHARS else f"{text[: VALUE_CHARS - 1]}…"


# --- diff -------------------------------------------------------------------------------------------------------------


def unified(preview: Preview) -> str:
    """Return a unified diff: an object per file, a field per hunk."""
    return "".join(f"{line}\n" for change in preview.changes for line in _diff_of(change))


def _diff_of(change: Change) -> Iterator[str]:
    path = f"{change.ref.kind}/{change.ref.namespace}/{change.ref.name}"
    yield f"--- {'/dev/null' if change.verb == 'create' else f'live/{path}'}"
    yield f"+++ {'/dev/null' if change.verb == 'delete' else f'planned/{path}'}"
    for field in change.fields:
        old, new = _block(field.old), _block(field.new)
        yield f"@@ -1,{len(old)} +1,{len(new)} @@ {printable(field.path)}"
        yield from (f"-{line}" for line in old)
        yield from (f"+{line}" for line in new)


def _block(value: Any) -> list[str]:
    """Return a value as lines of YAML, none for an absent one."""
    if value is None:
        return []
    if isinstance(value, str):
        return printable(value).split("\n")
    return (
        printable(yaml.safe_dump(value, sort_keys=True, allow_unicode=True, width=200))
        .removesuffix("\n...\n")
        .splitlines()
    )


def coloured(diff: str) -> Text:
    """Return a unified diff in the usual colours."""
    styles = {"---": "bold", "+++": "bold", "@@": "cyan", "-": "red", "+": "green"}
    text = Text()
    for line in diff.splitlines(keepends=True):
        text.append(line, next((style for start, style in styles.items() if line.startswith(start)), ""))
    return text
