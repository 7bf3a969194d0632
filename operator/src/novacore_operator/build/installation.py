"""All objects of one installation, as one list.

A kind is a file that says how it is addressed, when it is written, and which of it must exist; `OBJECTS` has a line for
each. Watches, order of writes, the operator's rights and the tests' tables follow from it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from novacore_operator.build.cluster import CLUSTER, clusters
from novacore_operator.build.common import CONFIG_MAP
from novacore_operator.build.config_map import config_maps
from novacore_operator.build.deployment import DEPLOYMENT, deployments
from novacore_operator.build.horizontal_pod_autoscaler import HORIZONTAL_POD_AUTOSCALER, horizontal_pod_autoscalers
from novacore_operator.build.job import JOB, jobs
from novacore_operator.build.network_policy import NETWORK_POLICY, network_policies
from novacore_operator.build.persistent_volume_claim import PERSISTENT_VOLUME_CLAIM, persistent_volume_claims
from novacore_operator.build.pod_disruption_budget import POD_DISRUPTION_BUDGET, pod_disruption_budgets
from novacore_operator.build.release import CONTROLLER_REVISION
from novacore_operator.build.secret import SECRET, secrets
from novacore_operator.build.service import SERVICE, services
from novacore_operator.build.service_account import SERVICE_ACCOUNT, service_accounts
from novacore_operator.build.site import Site
from novacore_operator.build.stateful_set import STATEFUL_SET, stateful_sets
from novacore_operator.state import Kind, Manifest
from novacore_operator.state.names import ANNOTATION_DESIRED
from novacore_operator.state.ownership import desired_hash

Builder = Callable[[Site], Iterable[Manifest | None]]

OBJECTS: tuple[tuple[Kind, Builder], ...] = (
    (SECRET, secrets),
    (CONFIG_MAP, config_maps),
    (SERVICE_ACCOUNT, service_accounts),
    (NETWORK_POLICY, network_policies),
    (SERVICE, services),
    (PERSISTENT_VOLUME_CLAIM, persistent_volume_claims),
    (STATEFUL_SET, stateful_sets),
    (CLUSTER, clusters),
    (JOB, jobs),
    (DEPLOYMENT, deployments),
    (POD_DISRUPTION_BUDGET, pod_disruption_budgets),
    (HORIZONTAL_POD_AUTOSCALER, horizontal_pod_autoscalers),
)
POD = Kind("Pod", "v1", "pods", wave=None, verbs=("list", "watch", "patch", "delete"))
"""Looked at; in an emergency taken out of its Service by label, and deleted (`loop.rings`)."""
KINDS: dict[str, Kind] = {kind.name: kind for kind in (*(kind for kind, _ in OBJECTS), CONTROLLER_REVISION, POD)}
"""Every kind that belongs to an installation, by name. ControllerRevisions are stored by `releases`."""


def build_installation(site: Site) -> tuple[Manifest, ...]:
    """Return every object that must exist, each with its hash in the annotation."""
    return tuple(stamped(item) for _, build in OBJECTS for item in build(site) if item is not None)


def stamped(manifest: Manifest) -> Manifest:
    """Return a manifest with its hash in the annotation."""
    annotations = {**manifest["metadata"].get("annotations", {}), ANNOTATION_DESIRED: desired_hash(manifest)}
    return {**manifest, "metadata": {**manifest["metadata"], "annotations": annotations}}
