"""Deployments of the nine services."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from novacore_contracts.identity import BOOTSTRAP_AUDIENCE, BOOTSTRAP_TOKEN_SECONDS
from novacore_contracts.paths import Paths
from novacore_contracts.services import INTERNAL_PORT, Service
from novacore_operator.api.service import ServiceSpec
from novacore_operator.build.common import labels, manifest, selector
from novacore_operator.build.pod import (
    config_volume,
    container_security,
    empty_dir,
    image_pull_secrets,
    last_words,
    pod_security,
    secret_volume,
    stamped,
)
from novacore_operator.build.release import image_for, image_of, release_arguments, since
from novacore_operator.build.resources import build_resources
from novacore_operator.build.scale import scale_of
from novacore_operator.build.settings import settings_hash
from novacore_operator.build.site import Site
from novacore_operator.state import Kind, Manifest, Nova, names
from novacore_operator.state.names import ANNOTATION_TEMPLATE, LABEL_SERVING

DEPLOYMENT = Kind("Deployment", "apps/v1", "deployments", wave=4)
PATHS = Paths(Path("/"))  # of a pod, whatever NOVA_ROOT says here
FILES_GROUP = 65532
"""User and group of the services; secrets are readable by the group only."""
OF_ONE_REVISION = ["pod-template-hash"]
"""Pods of the old revision do not count for the spread: a roll-out would end lopsided when they go."""


def deployments(site: Site) -> Iterator[Manifest | None]:
    """Return the Deployments of an installation."""
    for service in site.nova.spec.enabled_services():
        yield build_deployment(site.nova, service)


def build_deployment(nova: Nova, service: Service) -> Manifest:
    """Return the Deployment of one service."""
    template, mark = stamped(nova.spec, _template(nova, service))
    least, given = scale_of(nova, service)
    return manifest(
        DEPLOYMENT,
        nova,
        service.full_name,
        component=service.name,
        annotations={ANNOTATION_TEMPLATE: mark, **least},
        spec={
            **given,
            "revisionHistoryLimit": 3,
            "progressDeadlineSeconds": nova.spec.rollout.progress_deadline_seconds,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "selector": {"matchLabels": selector(service.name)},
            "template": template,
        },
    )


def _template(nova: Nova, service: Service) -> dict[str, Any]:
    spec = nova.spec.of(service.name)
    image = image_for(nova.spec, service.name)
    volumes, mounts = _files(nova, service)
    pod: dict[str, Any] = {
        "serviceAccountName": service.full_name,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": spec.termination_grace_period_seconds or 60,
        "securityContext": pod_security(FILES_GROUP),
        "containers": [
            {
                "name": service.name,
                "image": image_of(nova.spec, image),
                "imagePullPolicy": image.pull_policy,
                "args": ["serve", service.name, *release_arguments(nova.spec, service.name)],
                **_env(spec),
                "ports": _ports(service),
                "resources": build_resources(service.name, spec.resources),
                "securityContext": container_security(),
                "startupProbe": _probe("/startupz", period_s=1, failures=180),
                "livenessProbe": _probe("/livez", period_s=10, failures=6),
                "readinessProbe": _probe("/readyz", period_s=3, failures=3),
                "volumeMounts": mounts,
                **last_words(nova.spec),
            }
        ],
        "volumes": volumes,
    }
    pod |= image_pull_secrets(image.pull_secrets)
    pod |= _scheduling(nova, service)
    return {
        "metadata": {
            "labels": {**(spec.pod_labels or {}), **labels(nova, service.name), LABEL_SERVING: "true"},
            "annotations": {
                **(spec.pod_annotations or {}),
                "novacore.ai/settings": settings_hash(nova.spec, service.name),
            },
        },
        "spec": pod,
    }


def _env(spec: ServiceSpec) -> dict[str, Any]:
    """Return `env`, by name; absent when there is none. An empty value is left out, as the API server does."""
    if not spec.env:
        return {}
    return {"env": [{"name": name, **({"value": value} if value else {})} for name, value in sorted(spec.env.items())]}


def _ports(service: Service) -> list[dict[str, Any]]:
    ports = [{"name": "internal", "containerPort": INTERNAL_PORT, "protocol": "TCP"}]
    if service.port is not None:
        ports.insert(0, {"name": "http", "containerPort": service.port, "protocol": "TCP"})
    return ports


def _probe(path: str, *, period_s: int, failures: int) -> dict[str, Any]:
    """Return a probe on the internal listener. The time-out bears a busy machine with two cores."""
    return {
        "httpGet": {"path": path, "port": "internal"},
        "periodSeconds": period_s,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }


def _files(nova: Nova, service: Service) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return volumes and mounts. Directories, never subPath: a subPath is not updated when its source changes."""
    entries: list[tuple[dict[str, Any], str]] = [
        (config_volume("settings", names.settings(service.name)), str(PATHS.settings)),
        (config_volume("keyset-root", names.KEYSET_ROOT), str(PATHS.keyset_root)),
        (config_volume("ca", names.CA), str(PATHS.ca)),
        (secret_volume("creds", names.creds(service.name)), str(PATHS.creds)),
        (secret_volume("keyset", names.KEYSET), str(PATHS.keyset)),
        (_identity(), str(PATHS.identity_token.parent)),
        (empty_dir("state", memory=True, size="4Mi"), str(PATHS.state)),
        (empty_dir("tmp", size="128Mi"), "/tmp"),  # noqa: S108 - a mount of its own, not a shared directory
    ]
    if since(nova.spec, "0.2.0"):
        # Mounted before there is one: a migration from a shared secret, and its end, restart no pod.
        legacy = secret_volume("legacy", names.SERVICE_JWT_LEGACY, optional=True)
        entries.append((legacy, str(PATHS.service_jwt_legacy)))
    if service.name == "auth-billing":
        entries += [
            (secret_volume("service-jwt", names.SERVICE_JWT_PRIVATE), str(PATHS.service_jwt_private)),
            (secret_volume("user-jwt", names.USER_JWT_PRIVATE), str(PATHS.user_jwt_private)),
            (_kube_api(), str(PATHS.kube_api)),
        ]
    if service.name == "noble-spirit":
        entries.append((secret_volume("policy", names.POLICY_PRIVATE), str(PATHS.policy_private)))
    writable = {"state", "tmp"}
    mounts = [
        {"name": volume["name"], "mountPath": path} | ({} if volume["name"] in writable else {"readOnly": True})
        for volume, path in entries
    ]
    return [volume for volume, _ in entries], mounts


def _identity() -> dict[str, Any]:
    """Return the projected token with which the service asks auth-billing for its service token."""
    source = {
        "serviceAccountToken": {
            "audience": BOOTSTRAP_AUDIENCE,
            "expirationSeconds": BOOTSTRAP_TOKEN_SECONDS,
            "path": PATHS.identity_token.name,
        }
    }
    return {"name": "identity", "projected": {"sources": [source], "defaultMode": 0o440}}


def _kube_api() -> dict[str, Any]:
    """Return what a client of the API server needs. auth-billing only: it may create TokenReviews and nothing else."""
    sources: list[dict[str, Any]] = [
        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {
            "downwardAPI": {
                "items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]
            }
        },
    ]
    return {"name": "kube-api", "projected": {"sources": sources, "defaultMode": 0o440}}


def _scheduling(nova: Nova, service: Service) -> dict[str, Any]:
    spec = nova.spec.of(service.name)
    result: dict[str, Any] = {}
    if spec.node_selector:
        result["nodeSelector"] = dict(spec.node_selector)
    if spec.tolerations:
        result["tolerations"] = [
            toleration.model_dump(by_alias=True, exclude_none=True) for toleration in spec.tolerations
        ]
    if spec.affinity:
        result["affinity"] = spec.affinity
    if spec.priority_class_name:
        result["priorityClassName"] = spec.priority_class_name
    spread = [item.model_dump(by_alias=True) for item in spec.topology_spread_constraints or ()]
    if spec.topology_spread_constraints is None:  # also for one pod: a change of replicas must not change the template
        spread = [{"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway"}]
    if spread:
        own: dict[str, Any] = {"labelSelector": {"matchLabels": selector(service.name)}}
        if since(nova.spec, "0.2.0"):
            own["matchLabelKeys"] = OF_ONE_REVISION
        result["topologySpreadConstraints"] = [{**item, **own} for item in spread]
    return result
