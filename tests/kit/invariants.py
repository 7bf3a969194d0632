"""What must hold of an installation at every moment, whatever happens to the operator; judged from a witness's states."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from novacore_contracts.services import SERVICES
from tests.kit.api import Manifest
from tests.kit.nova import condition
from tests.kit.operator_process import SYSTEM
from tests.kit.witness import State, Witness

STORES = 2


def broken(witness: Witness, namespace: str) -> list[str]:
    """Return a sentence for each promise that was broken in a namespace."""
    workloads = witness.states("Deployment", "StatefulSet", namespace=namespace)
    novas = witness.states("NovaCoreDeployment", namespace=namespace)
    found = [*_keys(witness, namespace), *_jobs(witness, namespace), *_capacity(workloads), *_lies(novas, workloads)]
    return [f"{namespace}: {sentence}" for sentence in found]


def key_ids(witness: Witness, namespace: str) -> dict[tuple[str, str], str]:
    """Return the digest of every entry of every Secret of an installation, as it is now."""
    return {
        (state.name, entry): digest
        for state in _secrets(witness, namespace)
        for entry, digest in state.body["data"].items()
    }


def generations(witness: Witness, namespace: str) -> dict[str, int]:
    """Return the generation of each Deployment and StatefulSet as it is now: how often its spec was changed."""
    states = witness.states("Deployment", "StatefulSet", namespace=namespace)
    return {f"{state.kind} {state.name}": int(state.body["metadata"]["generation"]) for state in states}


def jobs(witness: Witness, namespace: str) -> list[str]:
    """Return the name of each Job that ever was, once for each time that it was made."""
    states = witness.states("Job", namespace=namespace)
    return sorted({state.body["metadata"]["uid"]: state.name for state in states}.values())


def settled(body: Manifest) -> bool:
    """Whether a workload runs at its spec, by its status."""
    status, wanted = body.get("status") or {}, int(body["spec"].get("replicas", 1))
    same = status.get("observedGeneration") == body["metadata"]["generation"]
    counts = (status.get(count, 0) for count in ("replicas", "updatedReplicas", "availableReplicas"))
    return same and all(count == wanted for count in counts)


def _secrets(witness: Witness, namespace: str) -> list[State]:
    root = [state for state in witness.states("Secret", namespace=SYSTEM) if state.name == f"novacore-root-{namespace}"]
    return [*witness.states("Secret", namespace=namespace), *root]


def _keys(witness: Witness, namespace: str) -> Iterator[str]:
    """One value per entry, for ever: a second key, or a second Secret in the place of the first, is a broken promise."""
    first: dict[str, State] = {}
    before: dict[str, dict[str, Any]] = {}
    for state in _secrets(witness, namespace):
        if state.gone or state.body["metadata"]["uid"] != first.setdefault(state.name, state).body["metadata"]["uid"]:
            yield f"Secret {state.name} was deleted or made a second time"
        known, now = before.get(state.name, {}), state.body["data"]
        changed = sorted(entry for entry in known if now.get(entry) != known[entry])
        if changed:
            yield f"Secret {state.name}: {', '.join(changed)} changed after it was written"
        before[state.name] = {**known, **now}


def _jobs(witness: Witness, namespace: str) -> Iterator[str]:
    made = jobs(witness, namespace)
    for name in sorted({name for name in made if made.count(name) > 1}):
        yield f"Job {name} was made {made.count(name)} times"


def _capacity(workloads: list[State]) -> Iterator[str]:
    served: set[str] = set()
    for state in workloads:
        available = (state.body.get("status") or {}).get("availableReplicas", 0)
        if state.name in served and (state.gone or not available or not state.body["spec"].get("replicas", 1)):
            yield f"{state.kind} {state.name} had no pod at {state.version}"
        if available:
            served.add(state.name)


def _lies(novas: list[State], workloads: list[State]) -> Iterator[str]:
    """Ready=True of a generation says that all eleven run at that generation's spec, at that moment."""
    specs: dict[int, Manifest] = {}
    status: Manifest = {}
    for nova in novas:
        specs[int(nova.body["metadata"]["generation"])] = nova.body["spec"]
        before, status = status, nova.body.get("status") or {}
        ready = condition(nova.body, "Ready")
        if status == before or ready.get("status") != "True":
            continue
        of = int(ready["observedGeneration"])
        if status["observedGeneration"] != of:
            yield f"Ready=True of generation {of} beside observedGeneration {status['observedGeneration']}"
        if status == {**before, "conditions": status["conditions"]} and of < max(specs):
            yield f"Ready=True was repeated for generation {of} under {max(specs)}"
        unready = [part["name"] for part in status["components"] if not part["ready"]]
        then = {state.name: state for state in workloads if state.version <= nova.version and not state.gone}
        unsettled = [name for name, state in then.items() if not settled(state.body)]
        if unready or unsettled or len(then) < len(SERVICES) + STORES:
            yield f"Ready=True at {nova.version} with {unready or unsettled or f'only {len(then)} workloads'}"
        image = _image(specs[of])
        other = [
            name
            for name, state in then.items()
            if state.kind == "Deployment" and state.body["spec"]["template"]["spec"]["containers"][0]["image"] != image
        ]
        if other:
            yield f"Ready=True of generation {of} at {nova.version} while {other} are not of {image}"


def _image(spec: Manifest) -> str:
    image = spec.get("image") or {}
    return f"{image.get('repository', 'novacore/workloads')}:{image.get('tag') or spec['version']}"
