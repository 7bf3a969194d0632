"""The migration Job: one per release and content, it gates the roll-out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from novacore_operator.build.common import labels, manifest
from novacore_operator.build.deployment import FILES_GROUP, PATHS
from novacore_operator.build.pod import (
    config_volume,
    container_security,
    empty_dir,
    image_pull_secrets,
    last_words,
    pod_security,
    secret_volume,
)
from novacore_operator.build.release import image_of, release_arguments, since
from novacore_operator.build.resources import build_resources
from novacore_operator.build.site import Site
from novacore_operator.state import Kind, Manifest, Nova, names
from novacore_operator.state.ownership import digest

JOB = Kind("Job", "batch/v1", "jobs", wave=3)


def jobs(site: Site) -> Iterator[Manifest | None]:
    """Return the one Job of an installation."""
    yield build_migrate_job(site.nova, roles_hash=site.contents.roles_hash)


HOPELESS = [64, 78]
"""Exit codes of a migration that another try does not mend: arguments it does not know, an image of another release."""


def build_migrate_job(nova: Nova, *, roles_hash: str) -> Manifest:
    """Return the Job `novacore migrate`. `roles_hash`: of the roles and the administrator's access it is given.

    Its name ends in a hash of all it would do, because a Job's template cannot be changed: other content, other Job,
    and the same content is never run twice.
    """
    entries: list[tuple[dict[str, Any], str]] = [
        (secret_volume("migrate", names.MIGRATE_CREDS), str(PATHS.migration)),
        (config_volume("ca", names.CA), str(PATHS.ca)),
        (empty_dir("tmp", size="64Mi"), "/tmp"),  # noqa: S108 - a mount of its own
    ]
    pod: dict[str, Any] = {
        "serviceAccountName": names.MIGRATE,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "restartPolicy": "Never",  # a failed pod stays, and so does its log
        "securityContext": pod_security(FILES_GROUP),
        "containers": [
            {
                "name": "migrate",
                "image": image_of(nova.spec),
                "imagePullPolicy": nova.spec.image.pull_policy,
                "args": ["migrate", *release_arguments(nova.spec)],
                "resources": build_resources("migrate"),
                "securityContext": container_security(),
                **last_words(nova.spec),
                "volumeMounts": [
                    {"name": volume["name"], "mountPath": path}
                    | ({} if volume["name"] == "tmp" else {"readOnly": True})
                    for volume, path in entries
                ],
            }
        ],
        "volumes": [volume for volume, _ in entries],
    }
    pod |= image_pull_secrets(nova.spec.image.pull_secrets)
    spec: dict[str, Any] = {
        "backoffLimit": 4,
        "activeDeadlineSeconds": nova.spec.rollout.progress_deadline_seconds,
        **_not_again(nova),
        "template": {
            "metadata": {"labels": labels(nova, "migrate"), "annotations": {"novacore.ai/roles": roles_hash}},
            "spec": pod,
        },
    }
    version = nova.spec.version.replace(".", "-")
    # The time limit is no part of what it would do; 0.1.0 counted it in.
    does = spec["template"] if since(nova.spec, "0.2.0") else spec
    return manifest(JOB, nova, f"{names.MIGRATE}-{version}-{digest(does)[:8]}", component="migrate", spec=spec)


def _not_again(nova: Nova) -> dict[str, Any]:
    """Return what ends the Job at the first pod that cannot succeed: five tries with their pauses take minutes."""
    if not since(nova.spec, "0.2.0"):
        return {}
    codes = {"containerName": "migrate", "operator": "In", "values": HOPELESS}
    return {"podFailurePolicy": {"rules": [{"action": "FailJob", "onExitCodes": codes}]}}
