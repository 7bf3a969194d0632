"""Every state that an API server has stored of an installation's objects, in order, seen past the operator.

All objects share one etcd, hence one count of resource versions: what each object looked like when another one was
written can be said exactly.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import httpx

from tests.kit.api import Api, Manifest, RefusedError

KINDS = ("NovaCoreDeployment", "Deployment", "StatefulSet", "Job", "Secret")
WATCH_S = 5


@dataclass(frozen=True, slots=True)
class State:
    """One stored state. `gone`: the object was deleted."""

    at: float  # when it was seen, monotonic
    version: int
    kind: str
    body: Manifest
    gone: bool = False

    @property
    def namespace(self) -> str:
        """Its object's namespace."""
        return str(self.body["metadata"]["namespace"])

    @property
    def name(self) -> str:
        """Its object's name."""
        return str(self.body["metadata"]["name"])


class Witness:
    """Watches for all namespaces. Use as a context manager."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._states: dict[tuple[str, str], list[State]] = defaultdict(list)  # by kind and namespace
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self.errors: list[str] = []

    def __enter__(self) -> Witness:
        for kind in KINDS:
            items, version = self._api.version_of(kind)
            for item in items:
                self.take(kind, item)
            threading.Thread(target=self._follow, args=(kind, version), name=f"witness {kind}", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()

    def states(self, *kinds: str, namespace: str) -> list[State]:
        """Return the states of a namespace's objects of some kinds, in the order in which they were stored."""
        with self._lock:
            found = [state for kind in kinds for state in self._states.get((kind, namespace), ())]
        return sorted(found, key=lambda state: state.version)

    def forget(self) -> None:
        """Drop all but the last state of each object."""
        with self._lock:
            for key, states in self._states.items():
                last = {state.name: state for state in sorted(states, key=lambda state: state.version)}
                self._states[key] = [state for state in last.values() if not state.gone]

    def take(self, kind: str, body: Manifest, *, gone: bool = False) -> None:
        """Take in a stored state."""
        body["metadata"].pop("managedFields", None)
        if kind == "Secret":  # what matters is whether a value changes
            body["data"] = {key: _digest(value) for key, value in (body.get("data") or {}).items()}
        state = State(time.monotonic(), int(body["metadata"]["resourceVersion"]), kind, body, gone)
        with self._lock:
            self._states[kind, state.namespace].append(state)

    # --- inside -------------------------------------------------------------------------------------------------------

    def _follow(self, kind: str, version: str) -> None:
        while not self._stop.is_set():
            try:
                for event, item in self._api.watch(kind, since=version, timeout_s=WATCH_S):
                    version = item["metadata"]["resourceVersion"]
                    if event != "BOOKMARK":
                        self.take(kind, item, gone=event == "DELETED")
                    if self._stop.is_set():
                        return
            except (httpx.HTTPError, RefusedError, RuntimeError) as error:
                if self._stop.is_set():
                    return
                self.errors.append(f"{kind}: {error}")  # a witness that was away is no witness: the test fails
                self._stop.wait(1)


def _digest(value: Any) -> str:
    return hashlib.sha256(str(value).encode()).hexdigest()[:12]
