"""The forms of Stripe's API that `stripechaos` reads and writes: nested parameters, lists and their pages."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

Json = dict[str, Any]
_NESTED = re.compile(r"\[([^\]]*)\]")


def page(url: str, rows: list[Json], params: Json) -> Json:
    """One page of a list, newest first; `ending_before` reads it backwards."""
    limit = int(params.get("limit", 10))
    ids = [row["id"] for row in rows]
    if "ending_before" in params:
        end = ids.index(params["ending_before"])
        data, more = rows[max(0, end - limit) : end], end > limit
    else:
        start = ids.index(params["starting_after"]) + 1 if "starting_after" in params else 0
        data, more = rows[start : start + limit], len(rows) > start + limit
    return {"object": "list", "url": url, "data": data, "has_more": more}


def nested(pairs: Mapping[str, Any]) -> Json:
    """Read `metadata[user_id]=…` and `types[0]=…` as nested objects."""
    found: Json = {}
    for name, value in pairs.items():
        head, *path = [name.partition("[")[0], *_NESTED.findall(name)]
        at = found
        for step in (head, *path)[:-1]:
            at = at.setdefault(step, {})
        at[(head, *path)[-1]] = str(value)
    return found


def created_fits(one: Json, params: Json) -> bool:
    bounds = params.get("created", {})
    return one["created"] >= int(bounds.get("gte", 0)) and one["created"] <= int(bounds.get("lte", 1 << 40))
