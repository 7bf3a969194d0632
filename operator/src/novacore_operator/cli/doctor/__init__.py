"""`doctor`: `reading` and `rights` ask, `cluster` and `installation` judge what was read, `checks` is the list.

All that judges is pure; the clock is a fact. A check says `ok`, `info` (nothing to do), `warn` (it works, but
look at it), `fail` (it will not work) or `unknown` (what it needs could not be read).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

Object = Mapping[str, Any]
Result = Literal["ok", "info", "warn", "fail", "unknown"]

CHART = "charts/novacore-operator"


@dataclass(frozen=True, slots=True)
class Facts:
    """What was read. A key of `unread` is a field that could not be, with why."""

    namespace: str
    version: str  # of this command
    local_time: datetime
    server_time: datetime | None = None
    crd: Object | None = None
    operators: Sequence[Object] = ()
    lease: Object | None = None
    rights: Mapping[str, Sequence[str]] = field(default_factory=dict)  # what the operator needs: the verbs it lacks
    server: Object = field(default_factory=dict)
    classes: Sequence[Object] = ()
    resources: Sequence[Object] = ()
    pods: Sequence[Object] = ()
    claims: Sequence[Object] = ()
    dns: Sequence[Object] = ()
    policies: Sequence[Object] = ()
    metrics: str = ""  # why the API that autoscaling reads does not answer; empty: it does
    unread: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Judged:
    """What a check found. `remedy` is a sentence for warn and fail."""

    result: Result
    message: str
    remedy: str = ""
