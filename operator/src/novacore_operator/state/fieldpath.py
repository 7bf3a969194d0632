"""Fields as the API server names them in a conflict: `.spec.template.spec.containers[name="memory"].image`.

Source of the form: structured-merge-diff, `fieldpath.Path.String`. Keys with dots in them (labels) are not quoted
there, so a path can only be read against the object it belongs to. Pure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from novacore_operator.state import Manifest

ITEM = re.compile(r'\[((?:[^\]"]|"(?:[^"\\]|\\.)*")*)\]')


def without(manifest: Manifest, paths: Iterable[str]) -> Manifest:
    """Return a manifest that does not name these fields. A path that it does not have changes nothing."""
    result: Any = manifest
    for path in paths:
        result = _without(result, path)
    return dict(result)


def _without(value: Any, path: str) -> Any:
    if isinstance(value, dict):
        for key in value:
            rest = path[len(key) + 1 :]
            if path.startswith(f".{key}") and (not rest or rest[0] in ".["):
                if not rest:
                    return {name: item for name, item in value.items() if name != key}
                return {**value, key: _without(value[key], rest)}
    if isinstance(value, list) and (found := ITEM.match(path)):
        rest = path[found.end() :]
        kept = []
        for n, item in enumerate(value):
            if not _is_item(item, n, found.group(1)):
                kept.append(item)
            elif rest:
                kept.append(_without(item, rest))
        return kept
    return value


def _is_item(item: Any, index: int, selector: str) -> bool:
    """Return whether a selector (`name="x"`, `containerPort=80,protocol="TCP"`, `="x"` or an index) means this item."""
    if selector.startswith("="):
        return bool(item == _value(selector[1:]))
    if selector.isdigit():
        return index == int(selector)
    pairs = re.findall(r'([A-Za-z]+)=("(?:[^"\\]|\\.)*"|[^,]+)', selector)
    return isinstance(item, dict) and bool(pairs) and all(item.get(key) == _value(text) for key, text in pairs)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
