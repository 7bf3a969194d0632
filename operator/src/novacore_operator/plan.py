"""What to write: `plan(nova, observed, material) -> Plan`. Pure: no clock, no I/O.

Invariants:
PLAN-1 a plan made from the state that the last plan's writes led to is empty.
PLAN-2 nothing is deleted but what carries the resource's uid as controller (labels lie), and then by uid.
PLAN-3 a wanted object that is gone or changed is written again, whoever changed it.
PLAN-4 no service is created or changed before the migration of this release has ended well; repairs are not held up.
PLAN-5 Secrets come before everything that mounts them.
PLAN-6 on the way back to an older release the stages go in reverse, and no migration is waited for: none is undone.
PLAN-7 with canaries the pods of a service that runs are not touched before its canary has passed.
PLAN-8 a Secret that others follow from is written before them: whoever dies in between finds it, and makes the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from novacore_contracts.services import BY_NAME, SERVICES
from novacore_operator.api.stores import MIGRATE, SecretName
from novacore_operator.build.canary import build_canary
from novacore_operator.build.installation import KINDS, build_installation
from novacore_operator.build.scale import pods_wanted
from novacore_operator.build.site import Contents, Site
from novacore_operator.policies import Finding
from novacore_operator.policies.canary import not_passed
from novacore_operator.policies.rollout import MAY_CHANGE, MAY_CREATE, RolloutState, first_gate, stores_starting
from novacore_operator.rotation import mint
from novacore_operator.state import (
    JobFacts,
    Live,
    Manifest,
    Material,
    Nova,
    Observed,
    PostgresAdmin,
    RedisLogin,
    Ref,
    WorkloadFacts,
    names,
    ref_of,
    stores,
)
from novacore_operator.state.fieldpath import without
from novacore_operator.state.names import ANNOTATION_DESIRED, ANNOTATION_TEMPLATE, LABEL_COMPONENT
from novacore_operator.state.ownership import desired_hash, fingerprint

JOBS_KEPT = 3
UNREAD_S = 120
"""A canary whose metrics cannot be read is given up after this time, or after the roll-out's own deadline."""
NEVER_DELETED = ("Secret", "PersistentVolumeClaim", "StatefulSet", stores.CLUSTER_KIND, "ControllerRevision")
"""Secrets and stores go with their owner or stay with the data; claims are the StatefulSet controller's business;
stored releases are no part of what is wanted (`releases.keep`)."""
STORE_KINDS = ("StatefulSet", stores.CLUSTER_KIND)
CACHE_NAME = stores.FULL_NAME[stores.CACHE]
"""The one StatefulSet that is deleted: it has no volume."""


class Verb(StrEnum):
    """What is done to an object."""

    APPLY = "apply"
    DELETE = "delete"


class Why(StrEnum):
    """Why an object is written."""

    MISSING = "missing"  # it does not exist
    CHANGED = "changed"  # we want something else than the last time
    DRIFT = "drift"  # somebody changed it
    UNWANTED = "unwanted"  # it must not exist any more


@dataclass(frozen=True, slots=True)
class Action:
    """One write."""

    verb: Verb
    ref: Ref
    why: Why
    wave: int
    manifest: Manifest | None = field(default=None, repr=False)
    uid: str | None = None  # of the object to delete


@dataclass(frozen=True, slots=True)
class Plan:
    """The writes, in waves; what is wanted; and what waits for what."""

    actions: tuple[Action, ...]
    wanted: Mapping[Ref, Manifest] = field(repr=False)
    held: Mapping[Ref, Finding] = field(default_factory=dict)
    job: Ref | None = None

    def waves(self) -> list[list[Action]]:
        """Return the actions, grouped in the order in which they are carried out."""
        numbers = sorted({action.wave for action in self.actions})
        return [[action for action in self.actions if action.wave == number] for number in numbers]


LAST_WAVE = 9
DERIVED = (names.KEYSET, names.POSTGRES_TLS, names.REDIS_TLS, names.REDIS_CACHE_TLS, names.MIGRATE_CREDS)
"""Secrets that follow from others (keys, authorities, passwords), and are written after those (PLAN-8)."""
FIRST_GONE = {"HorizontalPodAutoscaler": 0}
"""What goes before anything is written: an autoscaler that is still there sets the number of pods that we set."""


def setting_of(nova: Nova, seen: Observed) -> mint.Setting:
    """Return what the material depends on. The admission policies have passed: the referenced Secrets are whole."""
    external, redis = nova.spec.postgres.external, nova.spec.redis.external
    own = (external.per_service_secret_refs if external is not None else None) or {}
    logins = {who: login for who, given in own.items() if (login := _postgres(seen, given)) is not None}
    migrator = logins.pop(MIGRATE, None)
    ref = nova.spec.models.llm.api_key_secret_ref
    stripe = [_revealed(seen, one.name)[one.key] for _, one in nova.spec.stripe.secrets()]
    return mint.Setting(
        nova.namespace,
        postgres=migrator or (_postgres(seen, external.admin_secret_ref) if external is not None else None),
        logins=logins,
        redis=_redis(seen, redis.secret_ref) if redis is not None else None,
        redis_cache=_redis(seen, redis.cache_secret_ref) if redis is not None else None,
        own_cache=stores.CACHE in stores.run_by_us(nova.spec),
        postgres_host=stores.postgres_host(nova.spec),
        provider_key=_revealed(seen, ref.name)[ref.key] if ref is not None else None,
        stripe=(stripe[0], stripe[1]) if stripe else None,
    )


def _postgres(seen: Observed, ref: SecretName | None) -> PostgresAdmin | None:
    if ref is None:
        return None
    text = _revealed(seen, ref.name)
    return PostgresAdmin(
        host=text["host"],
        port=int(text["port"]),
        user=text["user"],
        password=text["password"],
        database=text["database"],
        ca=text["ca"],
    )


def _redis(seen: Observed, ref: SecretName | None) -> RedisLogin | None:
    if ref is None:
        return None
    text = _revealed(seen, ref.name)
    return RedisLogin(text["host"], int(text["port"]), text["user"], text["password"], text["ca"])


def _revealed(seen: Observed, name: str) -> Mapping[str, str]:
    found = seen.referenced[name].data
    return {key: value.decode().strip() for key, value in found.reveal().items()} if found is not None else {}


def contents_of(nova: Nova, seen: Observed, material: Material) -> Contents:
    """Return what the builders need of the material."""
    setting = setting_of(nova, seen)
    return Contents(
        material=material,
        root_jwks=mint.root_jwks(material, nova.namespace),
        ca_bundle=mint.ca_bundle(material, setting),
        redis_users={
            stores.REDIS: mint.redis_users(material),
            stores.CACHE: mint.redis_users(material, cache=True),
        },
        roles_hash=mint.roles_hash(material),
        store_hash={
            stores.POSTGRES: mint.store_hash(material, names.POSTGRES_ADMIN, names.POSTGRES_TLS),
            stores.REDIS: mint.store_hash(material, names.REDIS_TLS),
            stores.CACHE: mint.store_hash(material, names.REDIS_CACHE_TLS),
        },
    )


def build(nova: Nova, seen: Observed, material: Material) -> Mapping[Ref, Manifest]:
    """Return every object that must exist."""
    manifests = build_installation(Site(nova, seen, contents_of(nova, seen, material)))
    return {ref_of(manifest): manifest for manifest in manifests}


def plan(
    nova: Nova,
    seen: Observed,
    material: Material,
    *,
    returning: bool = False,
    canaries: bool = False,
    left: Mapping[Ref, frozenset[str]] | None = None,
    built: Mapping[Ref, Manifest] | None = None,
) -> Plan:
    """Return what must be written to make the installation as `nova` says.

    `returning`: on the way back (PLAN-6). `canaries`: one pod of a service goes before the others (PLAN-7).
    `left`: fields that are left to other managers, by object. `built`: what `build` returned for the same situation,
    if somebody has it.
    """
    wanted = dict(build(nova, seen, material) if built is None else built)
    for ref, paths in (left or {}).items():
        if ref in wanted:
            wanted[ref] = _leaving(wanted[ref], paths)
    job = next(ref for ref in wanted if ref.kind == "Job")
    differences = {ref: why for ref, manifest in wanted.items() if (why := difference(ref, manifest, seen)) is not None}
    state = rollout_state(nova, seen, wanted, job=job, returning=returning)
    held = _held(state, seen, wanted, differences, job=job)
    if canaries:
        for canary in _canaries(nova, seen, wanted, differences, held, left=left or {}):
            ref = ref_of(canary)
            wanted[ref] = canary
            if (why := difference(ref, canary, seen)) is not None:
                differences[ref] = why
    actions = [
        Action(Verb.APPLY, ref, why, _wave(ref), manifest=wanted[ref])
        for ref, why in differences.items()
        if ref not in held
    ]
    actions += [
        Action(Verb.DELETE, live.ref, Why.UNWANTED, FIRST_GONE.get(live.ref.kind, LAST_WAVE), uid=live.uid)
        for live in _unwanted(nova, seen, wanted)
    ]
    return Plan(tuple(actions), wanted, held, job)


def _wave(ref: Ref) -> int:
    if ref.kind == "Secret" and ref.name not in DERIVED:
        return 0
    wave = KINDS[ref.kind].wave
    return LAST_WAVE if wave is None else wave


def _leaving(manifest: Manifest, paths: Iterable[str]) -> Manifest:
    """Return a manifest without the fields that are left to others, hashed anew."""
    lean = without(manifest, sorted(paths))
    annotations = {**lean["metadata"].get("annotations", {}), ANNOTATION_DESIRED: desired_hash(lean)}
    return {**lean, "metadata": {**lean["metadata"], "annotations": annotations}}


def difference(ref: Ref, manifest: Manifest, seen: Observed) -> Why | None:
    """Return why an object must be written, or None when it is as we left it."""
    live = seen.objects.get(ref)
    if live is None:
        return Why.MISSING
    hashed = manifest["metadata"]["annotations"][ANNOTATION_DESIRED]
    if live.proven == hashed or live.owned == fingerprint(manifest):
        live.prove(hashed)
        return None if live.desired == hashed else Why.CHANGED
    if seen.normal.get(ref) == (hashed, live.owned):
        return None  # the API server keeps these values in another form (OWN-1)
    return Why.DRIFT if live.desired == hashed else Why.CHANGED


def is_settled(ref: Ref, manifest: Manifest, seen: Observed) -> bool:
    """Return whether a workload is as wanted, and all its pods are of that revision and available."""
    live = seen.objects.get(ref)
    if live is None or difference(ref, manifest, seen) is not None or not isinstance(live.facts, WorkloadFacts):
        return False
    facts = live.facts
    replicas = pods_wanted(manifest, facts)
    return (
        facts.observed_generation >= live.generation
        and facts.replicas == replicas
        and facts.updated == facts.total == replicas
        and facts.available >= replicas
    )


def replaces_pods(intended: Plan, seen: Observed) -> bool:
    """Return whether a plan, what it holds back included, replaces a running pod by one of another template."""
    return any(
        ref.kind in ("Deployment", "StatefulSet") and ref in seen.objects and _template_changes(ref, manifest, seen)
        for ref, manifest in intended.wanted.items()
    )


def rollout_state(
    nova: Nova, seen: Observed, wanted: Mapping[Ref, Manifest], *, job: Ref, returning: bool
) -> RolloutState:
    """Gather what the gates look at."""
    names_of_ours = {stores.FULL_NAME[store] for store in stores.STORES}
    ours = [ref for ref in wanted if ref.kind in STORE_KINDS and ref.name in names_of_ours]
    live = seen.objects.get(job)
    facts = live.facts if live is not None and isinstance(live.facts, JobFacts) else JobFacts(False, False)
    settled, rolling = {}, set()
    for service in SERVICES:
        ref = Ref("Deployment", nova.namespace, service.full_name)
        if ref not in wanted:
            settled[service.name] = True  # disabled: nobody waits for it
            continue
        settled[service.name] = is_settled(ref, wanted[ref], seen)
        if not settled[service.name] and ref in seen.objects and not _template_changes(ref, wanted[ref], seen):
            rolling.add(service.name)
    return RolloutState(
        stores_ready=all(is_settled(ref, wanted[ref], seen) for ref in ours),
        migrated=facts.complete,
        migration_failed=facts.failed,
        migration_message=facts.message,
        settled=settled,
        rolling=frozenset(rolling),
        max_parallel=nova.spec.rollout.max_parallel,
        returning=returning,
    )


def _template_changes(ref: Ref, manifest: Manifest, seen: Observed) -> bool:
    live = seen.objects.get(ref)
    return live is None or live.template != manifest["metadata"]["annotations"][ANNOTATION_TEMPLATE]


def _held(
    state: RolloutState,
    seen: Observed,
    wanted: Mapping[Ref, Manifest],
    differences: Mapping[Ref, Why],
    *,
    job: Ref,
) -> dict[Ref, Finding]:
    """Return what may not be written yet, and what it waits for."""
    held: dict[Ref, Finding] = {}
    waiting = stores_starting(state)
    if differences.get(job) is Why.MISSING and waiting is not None:
        held[job] = waiting
    for ref, why in differences.items():
        if ref.kind != "Deployment" or why is Why.DRIFT:
            continue
        exists = ref in seen.objects
        if exists and not _template_changes(ref, wanted[ref], seen):
            continue  # replicas and the like: no pod is replaced
        component = wanted[ref]["metadata"]["labels"][LABEL_COMPONENT]
        finding = first_gate(MAY_CHANGE if exists else MAY_CREATE, state, component)
        if finding is not None:
            held[ref] = finding
        elif exists:
            state = _with_rolling(state, component)
    return held


def _with_rolling(state: RolloutState, component: str) -> RolloutState:
    """Count a service that this very plan begins to change."""
    return replace(state, settled={**state.settled, component: False}, rolling=state.rolling | {component})


def _canaries(
    nova: Nova,
    seen: Observed,
    wanted: Mapping[Ref, Manifest],
    differences: Mapping[Ref, Why],
    held: dict[Ref, Finding],
    *,
    left: Mapping[Ref, frozenset[str]],
) -> list[Manifest]:
    """Return the canaries that must exist now, and hold back the Deployments whose canary has not passed (PLAN-7)."""
    found = []
    for name, component in names.CANARIES.items():
        ref, canary_ref = (Ref("Deployment", nova.namespace, n) for n in (BY_NAME[component].full_name, name))
        live, present = seen.objects.get(ref), seen.objects.get(canary_ref)
        if ref not in wanted or live is None or not isinstance(live.facts, WorkloadFacts):
            continue
        canary = _leaving(build_canary(BY_NAME[component], wanted[ref]), left.get(canary_ref, ()))
        if differences.get(ref) is Why.CHANGED and _template_changes(ref, wanted[ref], seen):
            if live.facts.available < 1 and present is None:
                continue  # nothing runs that a canary could be compared with
            if ref in held:
                held[canary_ref] = held[ref]
                continue
            found.append(canary)
            finding = _not_passed(nova, component, canary_ref, canary, seen)
            if finding is not None:
                held[ref] = finding
        elif (
            present is not None
            and present.template == canary["metadata"]["annotations"][ANNOTATION_TEMPLATE]
            and live.facts.available < pods_wanted(wanted[ref], live.facts)
        ):
            found.append(canary)  # it has passed, and what it serves would be missing now
    return found


def _not_passed(nova: Nova, component: str, ref: Ref, canary: Manifest, seen: Observed) -> Finding | None:
    trial = seen.trials.get(component) if is_settled(ref, canary, seen) else None
    if trial is not None and trial.template != canary["metadata"]["annotations"][ANNOTATION_TEMPLATE]:
        trial = None
    live, rollout = seen.objects.get(ref), nova.spec.rollout
    return not_passed(
        component,
        trial,
        seconds=rollout.canary.seconds,
        unread_s=min(rollout.progress_deadline_seconds, UNREAD_S),
        stalled=live.facts.stalled if live is not None and isinstance(live.facts, WorkloadFacts) else "",
    )


def _unwanted(nova: Nova, seen: Observed, wanted: Mapping[Ref, Manifest]) -> Iterable[Live]:
    """Return what we own and do not want any more. Jobs that have ended stay for their logs, the last few."""
    ours = [
        live for ref, live in seen.objects.items() if live.owner == nova.uid and ref not in wanted and not live.deleting
    ]
    jobs = sorted((live for live in ours if live.ref.kind == "Job"), key=lambda live: live.version, reverse=True)
    ended = [live for live in jobs if isinstance(live.facts, JobFacts) and (live.facts.complete or live.facts.failed)]
    others = [live for live in ours if live.ref.kind not in ("Job", *NEVER_DELETED) or live.ref.name == CACHE_NAME]
    return [*others, *(live for live in jobs if live not in ended), *ended[JOBS_KEPT:]]
