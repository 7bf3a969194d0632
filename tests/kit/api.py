"""The tests' own door to an API server: no code of the product, so that no mistake is shared with it."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import httpx

Manifest = dict[str, Any]
Patch = Literal["application/json-patch+json", "application/merge-patch+json"]
JSON_PATCH: Patch = "application/json-patch+json"
MERGE_PATCH: Patch = "application/merge-patch+json"
TIME_OUT_S = 30


@dataclass(frozen=True, slots=True)
class Resource:
    """How a kind is addressed."""

    api_version: str
    plural: str
    namespaced: bool = True

    @property
    def prefix(self) -> str:
        """Path of the API group and version."""
        return f"/apis/{self.api_version}" if "/" in self.api_version else f"/api/{self.api_version}"


RESOURCES: dict[str, Resource] = {
    "NovaCoreDeployment": Resource("novacore.ai/v1alpha1", "novacoredeployments"),
    "ServiceAccount": Resource("v1", "serviceaccounts"),
    "Service": Resource("v1", "services"),
    "ConfigMap": Resource("v1", "configmaps"),
    "Secret": Resource("v1", "secrets"),
    "PersistentVolumeClaim": Resource("v1", "persistentvolumeclaims"),
    "Pod": Resource("v1", "pods"),
    "ResourceQuota": Resource("v1", "resourcequotas"),
    "Namespace": Resource("v1", "namespaces", namespaced=False),
    "Deployment": Resource("apps/v1", "deployments"),
    "StatefulSet": Resource("apps/v1", "statefulsets"),
    "ControllerRevision": Resource("apps/v1", "controllerrevisions"),
    "Cluster": Resource("postgresql.cnpg.io/v1", "clusters"),
    "Job": Resource("batch/v1", "jobs"),
    "CronJob": Resource("batch/v1", "cronjobs"),
    "PodDisruptionBudget": Resource("policy/v1", "poddisruptionbudgets"),
    "NetworkPolicy": Resource("networking.k8s.io/v1", "networkpolicies"),
    "Ingress": Resource("networking.k8s.io/v1", "ingresses"),
    "HorizontalPodAutoscaler": Resource("autoscaling/v2", "horizontalpodautoscalers"),
    "Lease": Resource("coordination.k8s.io/v1", "leases"),
    "Event": Resource("events.k8s.io/v1", "events"),
    "Role": Resource("rbac.authorization.k8s.io/v1", "roles"),
    "RoleBinding": Resource("rbac.authorization.k8s.io/v1", "rolebindings"),
    "ClusterRole": Resource("rbac.authorization.k8s.io/v1", "clusterroles", namespaced=False),
    "ClusterRoleBinding": Resource("rbac.authorization.k8s.io/v1", "clusterrolebindings", namespaced=False),
    "StorageClass": Resource("storage.k8s.io/v1", "storageclasses", namespaced=False),
    "CustomResourceDefinition": Resource("apiextensions.k8s.io/v1", "customresourcedefinitions", namespaced=False),
}


class RefusedError(Exception):
    """The API server's no."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


class Api:
    """One user of one API server. May be used from several threads."""

    def __init__(self, url: str, *, ca: Path, certificate: Path, key: Path) -> None:
        context = ssl.create_default_context(cafile=str(ca))
        context.load_cert_chain(certificate, key)
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=50, keepalive_expiry=60)
        self._http = httpx.Client(base_url=url, verify=context, timeout=TIME_OUT_S, limits=limits)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def ready(self) -> bool:
        """Whether the API server says that it is ready."""
        try:
            return self._http.get("/readyz").status_code == 200
        except httpx.HTTPError:
            return False

    def get(self, kind: str, name: str, namespace: str | None = None, *, subresource: str = "") -> Manifest | None:
        """Return an object, or None if there is none."""
        try:
            return self._ask("GET", _path(kind, namespace, name, subresource))
        except RefusedError as error:
            if error.code == 404:
                return None
            raise

    def must(self, kind: str, name: str, namespace: str | None = None) -> Manifest:
        """Return an object; a missing one fails the test by name."""
        found = self.get(kind, name, namespace)
        assert found is not None, f"{kind} {name} is missing in {namespace}"
        return found

    def list(self, kind: str, namespace: str | None = None, *, selector: str = "") -> list[Manifest]:
        """Return the objects of a kind, of one namespace or of all."""
        answer = self._ask("GET", _path(kind, namespace), {"labelSelector": selector} if selector else {})
        return [{"apiVersion": RESOURCES[kind].api_version, "kind": kind, **item} for item in answer["items"] or ()]

    def count(self, kind: str) -> int:
        """Return how many objects of a kind there are, in all namespaces."""
        answer = self._ask("GET", _path(kind), {"limit": 1})
        return len(answer["items"]) + int(answer["metadata"].get("remainingItemCount", 0))

    def create(self, manifest: Manifest, *, dry_run: bool = False) -> Manifest:
        """Create an object under strict field validation."""
        metadata = manifest["metadata"]
        path = _path(manifest["kind"], metadata.get("namespace"))
        return self._ask("POST", path, _query("Strict", "test", dry_run=dry_run), body=manifest)

    def replace(self, manifest: Manifest, *, dry_run: bool = False) -> Manifest:
        """Replace an object under strict field validation."""
        metadata = manifest["metadata"]
        path = _path(manifest["kind"], metadata.get("namespace"), metadata["name"])
        return self._ask("PUT", path, _query("Strict", "test", dry_run=dry_run), body=manifest)

    def apply(
        self, manifest: Manifest, *, manager: str = "test", force: bool = True, dry_run: bool = False
    ) -> Manifest:
        """Server-side apply, under strict field validation."""
        metadata = manifest["metadata"]
        query = {**_query("Strict", manager, dry_run=dry_run), "force": str(force).lower()}
        path = _path(manifest["kind"], metadata.get("namespace"), metadata["name"])
        return self._ask("PATCH", path, query, body=manifest, content_type="application/apply-patch+yaml")

    def patch(
        self,
        kind: str,
        name: str,
        namespace: str | None,
        body: Any,
        *,
        how: Patch = MERGE_PATCH,
        manager: str = "test",
        subresource: str = "",
    ) -> Manifest:
        """Patch an object or its subresource in the name of a field manager."""
        path = _path(kind, namespace, name, subresource)
        return self._ask("PATCH", path, {"fieldManager": manager}, body=body, content_type=how)

    def delete(self, kind: str, name: str, namespace: str | None = None) -> None:
        """Delete an object; one that is gone already is fine."""
        try:
            self._ask("DELETE", _path(kind, namespace, name), {"propagationPolicy": "Background"})
        except RefusedError as error:
            if error.code != 404:
                raise

    def watch(
        self, kind: str, namespace: str | None = None, *, since: str, timeout_s: int
    ) -> Iterator[tuple[str, Manifest]]:
        """Yield (type, object), bookmarks included, until the server ends the watch after `timeout_s`."""
        query = {"watch": "true", "resourceVersion": since, "allowWatchBookmarks": "true", "timeoutSeconds": timeout_s}
        with self._http.stream("GET", _path(kind, namespace), params=query, timeout=timeout_s + TIME_OUT_S) as answer:
            if answer.status_code >= 400:
                answer.read()
                raise _refused(answer)
            for line in answer.iter_lines():
                event = json.loads(line)
                if event["type"] == "ERROR":
                    raise RefusedError(event["object"].get("code", 500), event["object"].get("message", ""))
                yield event["type"], event["object"]

    def version_of(self, kind: str, namespace: str | None = None) -> tuple[list[Manifest], str]:
        """Return the objects of a kind and the resource version to watch from."""
        answer = self._ask("GET", _path(kind, namespace))
        known = {"apiVersion": RESOURCES[kind].api_version, "kind": kind}
        return [{**known, **item} for item in answer["items"] or ()], answer["metadata"]["resourceVersion"]

    def _ask(
        self,
        method: str,
        path: str,
        query: Manifest | None = None,
        *,
        body: Any = None,
        content_type: str = "application/json",
    ) -> Manifest:
        content = json.dumps(body) if body is not None else None
        answer = self._http.request(method, path, params=query, content=content, headers={"Content-Type": content_type})
        if answer.status_code >= 400:
            raise _refused(answer)
        found: Manifest = answer.json()
        return found


def _query(validation: str, manager: str, *, dry_run: bool) -> Manifest:
    query = {"fieldValidation": validation, "fieldManager": manager}
    return {**query, "dryRun": "All"} if dry_run else query


def _path(kind: str, namespace: str | None = None, name: str = "", subresource: str = "") -> str:
    resource = RESOURCES[kind]
    where = f"/namespaces/{namespace}" if resource.namespaced and namespace else ""
    return resource.prefix + where + "".join(f"/{part}" for part in (resource.plural, name, subresource) if part)


def _refused(answer: httpx.Response) -> RefusedError:
    try:
        message = str(answer.json().get("message", answer.text))
    except ValueError:
        message = answer.text
    return RefusedError(answer.status_code, message)
