"""The tests' stand-in for kubelets and for the controllers of Deployments, StatefulSets, Jobs and autoscalers.

On a control plane without nodes nobody would ever report a pod: the player watches workloads and writes their `/status`
as those controllers do when all goes well, or as a test tells it (`player.behave("memory", Behaviour.STARTING)`). For a
StatefulSet it makes the claims of its templates, which grow when they are asked to; CloudNativePG's operator is played
too. An autoscaler keeps its target at `minReplicas` or above. This, and nothing else, is played: API server, its
validation, RBAC, storage and the operator are real.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import httpx

from tests.kit import cnpg
from tests.kit.api import Api, Manifest, RefusedError

KINDS = ("Deployment", "StatefulSet", "Job", "HorizontalPodAutoscaler", "PersistentVolumeClaim", "Cluster")
WATCH_S = 5
"""Short, because it is also the time that a stopped player's threads go on."""
PAUSE_S = 0.2
UNSERVED_S = 0.5
COMPONENT = "app.kubernetes.io/component"
MANAGER = "player"
AUTOSCALER = "kube-controller-manager"


class Behaviour(StrEnum):
    """What becomes of a workload's pods."""

    READY = "ready"  # they run and are available; a Job ends well
    STARTING = "starting"  # the new pods never become ready; a Job never ends. Old pods go on
    FAILED = "failed"  # the same, and the controller has given up: the progress deadline is over, the Job has failed
    NOTHING = "nothing"  # the controller does not even look


class Player:
    """Plays for one namespace, or for all. Use as a context manager."""

    def __init__(self, api: Api, namespace: str | None = None) -> None:
        self._api = api
        self._namespace = namespace
        self._told: dict[tuple[str | None, str], Behaviour] = {}
        self._available: dict[str, tuple[str, int]] = {}  # uid -> (template that was available last, its pods)
        self._clusters: dict[str, Manifest] = {}  # namespace -> status of its Cluster
        self._stunted: set[str] = set()  # namespaces whose volumes do not grow
        self._least: dict[tuple[str, str], int] = {}  # (namespace, Deployment) -> its autoscaler's minReplicas
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self.errors: list[str] = []

    def __enter__(self) -> Player:
        for kind in KINDS:
            threading.Thread(target=self._run, args=(kind,), name=f"player {kind}", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()

    def behave(self, component: str, behaviour: Behaviour, *, namespace: str | None = None) -> None:
        """Say what becomes of a component (`memory`, `postgres`, `migrate`), and play what is there anew."""
        self._told[(namespace, component)] = behaviour
        for kind in KINDS:
            for item in self._api.list(kind, namespace or self._namespace, selector=f"{COMPONENT}={component}"):
                self.play(item)

    def cluster(self, namespace: str, status: Manifest) -> None:
        """Say what CloudNativePG's operator makes of a namespace's Cluster."""
        self._clusters[namespace] = status
        for item in self._api.list("Cluster", namespace):
            self.play(item)

    def grow(self, namespace: str, *, yes: bool) -> None:
        """Say whether a namespace's volumes grow when they are asked to."""
        (self._stunted.discard if yes else self._stunted.add)(namespace)
        for item in self._api.list("PersistentVolumeClaim", namespace):
            self.play(item)

    def play(self, item: Manifest) -> None:
        """Write the status that belongs to a workload; nothing where it is there already."""
        component = item["metadata"].get("labels", {}).get(COMPONENT, "")
        namespace = item["metadata"]["namespace"]
        behaviour = self._told.get((namespace, component)) or self._told.get((None, component), Behaviour.READY)
        if behaviour is Behaviour.NOTHING or "deletionTimestamp" in item["metadata"]:
            return
        if item["kind"] == "HorizontalPodAutoscaler":
            self._least[(namespace, item["spec"]["scaleTargetRef"]["name"])] = item["spec"]["minReplicas"]
            item = self._api.get("Deployment", item["spec"]["scaleTargetRef"]["name"], namespace) or {}
        if not item or self._scaled(item):
            return  # a change of scale is an event of its own
        with self._lock:
            made: dict[str, Callable[[Manifest, Behaviour], Manifest | None]] = {
                "Deployment": self._deployment,
                "StatefulSet": self._stateful_set,
                "Job": self._job,
                "Cluster": self._cluster,
                "PersistentVolumeClaim": self._volume,
            }
            status = made[item["kind"]](item, behaviour)
            if status is None or _says(item.get("status") or {}, status):
                return
            self._write(item, status)

    def pod(
        self, namespace: str, component: str, status: Manifest, *, name: str = "", annotations: Manifest | None = None
    ) -> str:
        """Make a pod of a component with this status (a crash, a pull that fails); return its name."""
        name = name or f"novacore-{component}-played"
        labels = {
            COMPONENT: component,
            "app.kubernetes.io/managed-by": "novacore-operator",
            "app.kubernetes.io/part-of": "novacore",
        }
        container = {"name": component, "image": "played", "securityContext": _restricted()}
        account = f"novacore-{component}"  # nobody makes the namespace's own here
        spec = {
            "serviceAccountName": account,
            "automountServiceAccountToken": False,
            "containers": [container],
            "nodeName": "played",
        }
        metadata = {"name": name, "namespace": namespace, "labels": labels, "annotations": annotations or {}}
        if self._api.get("Pod", name, namespace) is None:
            self._api.create({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
        self._api.patch("Pod", name, namespace, {"status": status}, manager=MANAGER, subresource="status")
        return name

    # --- inside -------------------------------------------------------------------------------------------------------

    def _run(self, kind: str) -> None:
        while not self._stop.is_set():
            try:
                items, version = self._api.version_of(kind, self._namespace)
                for item in items:
                    self.play(item)
                while not self._stop.is_set():
                    version = self._follow(kind, version)
            except (httpx.HTTPError, RefusedError, OSError, RuntimeError) as error:
                if isinstance(error, RefusedError) and error.code == 404:
                    self._stop.wait(UNSERVED_S)  # CloudNativePG's kind is not there, or has just gone
                elif not self._stop.is_set():  # the API server is away, or the watch too old: begin anew
                    self.errors.append(f"{kind}: {error}")
                    self._stop.wait(PAUSE_S)

    def _follow(self, kind: str, version: str) -> str:
        for event, item in self._api.watch(kind, self._namespace, since=version, timeout_s=WATCH_S):
            version = str(item["metadata"]["resourceVersion"])
            if self._stop.is_set():
                break
            if event in ("ADDED", "MODIFIED"):
                self.play(item)
            elif event == "DELETED" and kind == "HorizontalPodAutoscaler":
                self._least.pop((item["metadata"]["namespace"], item["spec"]["scaleTargetRef"]["name"]), None)
        return version

    def _write(self, item: Manifest, status: Manifest) -> None:
        metadata = item["metadata"]
        # With the uid: never to a namesake made meanwhile.
        body = {"metadata": {"uid": metadata["uid"]}, "status": status}
        try:
            self._api.patch(
                item["kind"], metadata["name"], metadata["namespace"], body, manager=MANAGER, subresource="status"
            )
        except RefusedError as error:
            if error.code not in (404, 409):
                self.errors.append(f"{item['kind']} {metadata['name']}: {error}")

    def _scaled(self, item: Manifest) -> bool:
        """Bring an autoscaled Deployment up to its least number of pods; return whether it was below."""
        namespace, name = item["metadata"]["namespace"], item["metadata"]["name"]
        least = self._least.get((namespace, name), 0)
        if item["kind"] != "Deployment" or int(item["spec"].get("replicas", 1)) >= least:
            return False
        if self._api.get("HorizontalPodAutoscaler", name, namespace) is None:
            return False  # it went a moment ago: its own watch may be later than this one
        scale = {"spec": {"replicas": least}}
        self._api.patch("Deployment", name, namespace, scale, manager=AUTOSCALER, subresource="scale")
        return True

    def _deployment(self, item: Manifest, behaviour: Behaviour) -> Manifest:
        return _numbers(item, self._pods(item, behaviour)) | {"conditions": _deployment_conditions(item, behaviour)}

    def _stateful_set(self, item: Manifest, behaviour: Behaviour) -> Manifest:
        self._claims(item)
        replicas, updated, available = self._pods(item, behaviour)
        revision = f"{item['metadata']['name']}-{_template(item)}"
        before = (item.get("status") or {}).get("currentRevision", revision)
        return _numbers(item, (replicas, updated, available)) | {
            "currentReplicas": updated if behaviour is Behaviour.READY else 0,
            "currentRevision": revision if behaviour is Behaviour.READY else before,
            "updateRevision": revision,
        }

    def _pods(self, item: Manifest, behaviour: Behaviour) -> tuple[int, int, int]:
        """Return how many pods there are, of the new template, and available. Old ones stay until new ones are ready."""
        uid, template, wanted = item["metadata"]["uid"], _template(item), int(item["spec"].get("replicas", 1))
        before, old = self._available.get(uid, ("", 0))
        if behaviour is Behaviour.READY or wanted == 0:
            self._available[uid] = (template, wanted)
            return wanted, wanted, wanted
        if before == template:  # they ran, and became unready
            return wanted, wanted, 0
        surge = min(1, wanted) if item["kind"] == "Deployment" else 0
        return (old + surge, surge, old) if old else (wanted, wanted, 0)

    def _job(self, item: Manifest, behaviour: Behaviour) -> Manifest | None:
        status = item.get("status") or {}
        ended = {condition["type"] for condition in status.get("conditions") or ()} & {"Complete", "Failed"}
        if ended:
            return None  # an ended Job does not change
        begin = {"startTime": status.get("startTime") or _now()}
        if behaviour is Behaviour.STARTING:
            return {**begin, "active": 1, "ready": 0}
        if behaviour is Behaviour.FAILED:
            why = ("BackoffLimitExceeded", "Job has reached the specified backoff limit")
            conditions = [_condition(kind, "True", *why) for kind in ("FailureTarget", "Failed")]
            return {**begin, "active": 0, "ready": 0, "failed": 5, "conditions": conditions}
        why = ("CompletionsReached", "Reached expected number of succeeded pods")
        conditions = [_condition(kind, "True", *why) for kind in ("SuccessCriteriaMet", "Complete")]
        return {**begin, "completionTime": _now(), "active": 0, "ready": 0, "succeeded": 1, "conditions": conditions}

    def _cluster(self, item: Manifest, behaviour: Behaviour) -> Manifest:
        """Return what CloudNativePG's operator says when all goes well, or what it was told to say."""
        told = self._clusters.get(item["metadata"]["namespace"])
        if told is not None:
            return told
        instances = int(item["spec"].get("instances", 1))
        if behaviour is Behaviour.READY:
            return cnpg.status(instances)
        return cnpg.status(instances, ready=0, phase="Setting up primary")

    def _volume(self, item: Manifest, behaviour: Behaviour) -> Manifest | None:
        asked = item["spec"]["resources"]["requests"]["storage"]
        there = (item.get("status") or {}).get("capacity", {}).get("storage")
        if there in (None, asked) or item["metadata"]["namespace"] in self._stunted:
            return None
        return {"phase": "Bound", "capacity": {"storage": asked}}

    def _claims(self, item: Manifest) -> None:
        """Make the claims that the StatefulSet controller would make, bound and of the size they ask for."""
        namespace, name = item["metadata"]["namespace"], item["metadata"]["name"]
        for template in item["spec"].get("volumeClaimTemplates") or ():
            for number in range(int(item["spec"].get("replicas", 1))):
                claim = f"{template['metadata']['name']}-{name}-{number}"
                if self._api.get("PersistentVolumeClaim", claim, namespace) is not None:
                    continue
                labels = {**item["spec"]["selector"]["matchLabels"], **template["metadata"].get("labels", {})}
                body = {
                    "apiVersion": "v1",
                    "kind": "PersistentVolumeClaim",
                    "metadata": {"name": claim, "namespace": namespace, "labels": labels},
                    "spec": template["spec"],
                }
                self._api.create(body)
                capacity = {"storage": template["spec"]["resources"]["requests"]["storage"]}
                bound = {"status": {"phase": "Bound", "capacity": capacity}}
                self._api.patch("PersistentVolumeClaim", claim, namespace, bound, manager=MANAGER, subresource="status")


def _numbers(item: Manifest, pods: tuple[int, int, int]) -> Manifest:
    total, updated, available = pods
    return {
        "observedGeneration": item["metadata"]["generation"],
        "replicas": total,
        "updatedReplicas": updated,
        "readyReplicas": available,
        "availableReplicas": available,
    }


def _deployment_conditions(item: Manifest, behaviour: Behaviour) -> list[Manifest]:
    name = item["metadata"]["name"]
    if behaviour is Behaviour.READY:
        return [
            _condition("Available", "True", "MinimumReplicasAvailable", "Deployment has minimum availability."),
            _condition("Progressing", "True", "NewReplicaSetAvailable", f'"{name}" has successfully progressed.'),
        ]
    progressing = ("True", "ReplicaSetUpdated", f'"{name}" is progressing.')
    if behaviour is Behaviour.FAILED:
        progressing = ("False", "ProgressDeadlineExceeded", f'"{name}" has timed out progressing.')
    return [
        _condition(
            "Available", "False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability."
        ),
        _condition("Progressing", *progressing),
    ]


def _condition(kind: str, status: str, reason: str, message: str) -> Manifest:
    return {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": _now()}


def _says(live: Any, wanted: Any) -> bool:
    """Whether a status says what is wanted already, times apart: else each write would cause the next."""
    if isinstance(wanted, dict):
        found = live if isinstance(live, dict) else {}
        return all(
            _says(found.get(key, 0 if value == 0 else None), value)
            for key, value in wanted.items()
            if key != "lastTransitionTime"
        )
    if isinstance(wanted, list):
        return isinstance(live, list) and len(live) == len(wanted) and all(map(_says, live, wanted))
    return bool(live == wanted)


def _template(item: Manifest) -> str:
    return hashlib.sha256(json.dumps(item["spec"]["template"], sort_keys=True).encode()).hexdigest()[:10]


def _restricted() -> Manifest:
    return {
        "allowPrivilegeEscalation": False,
        "runAsNonRoot": True,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
