"""The canary of a service: a Deployment of its own with one pod of the new template, behind the service's Service.

Its selector has a label more than the service's Deployment, so it never counts that one's pods. The other way round the
selector of the service's Deployment, which can never change, matches the canary's pods too: what keeps them apart there
is ownership. A Deployment takes over ReplicaSets without an owner only, and a ReplicaSet's own selector has the hash of
its template, which differs by that label.
"""

from __future__ import annotations

from novacore_contracts.services import Service
from novacore_operator.state import Manifest, names
from novacore_operator.state.names import ANNOTATION_DESIRED, ANNOTATION_TEMPLATE, LABEL_TRACK
from novacore_operator.state.ownership import desired_hash, digest

TRACK = "canary"


def build_canary(service: Service, deployment: Manifest) -> Manifest:
    """Return the canary of a service, made from what its Deployment is to become."""
    spec, metadata = deployment["spec"], deployment["metadata"]
    label = {LABEL_TRACK: TRACK}
    template = _labelled(spec["template"], label)
    mark = digest(template)
    # Named in the pod of any release: there is no older canary whose pods this would restart.
    annotations = {**template["metadata"].get("annotations", {}), ANNOTATION_TEMPLATE: mark}
    template = {**template, "metadata": {**template["metadata"], "annotations": annotations}}
    body: Manifest = {
        **deployment,
        "metadata": {
            **metadata,
            "name": names.canary(service.name),
            "labels": {**metadata["labels"], **label},
            "annotations": {ANNOTATION_TEMPLATE: mark},
        },
        "spec": {
            **spec,
            "replicas": 1,
            "revisionHistoryLimit": 0,
            # The other way than the service's: a canary that is changed begins anew, and there is never a second pod.
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": {**spec["selector"]["matchLabels"], **label}},
            "template": template,
        },
    }
    body["metadata"]["annotations"][ANNOTATION_DESIRED] = desired_hash(body)
    return body


def _labelled(template: Manifest, label: dict[str, str]) -> Manifest:
    metadata = template["metadata"]
    return {**template, "metadata": {**metadata, "labels": {**metadata["labels"], **label}}}
