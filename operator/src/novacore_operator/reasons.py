"""Every reason the operator can give, in one list: condition reason, Event reason and metric label are the same word.

Each member carries its meaning, the usual cause and the remedy; `docs/reference/conditions.md` is generated from them
(`python -m novacore_operator.reasons`). A reason without text cannot exist: the constructor asks for it.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path


class Reason(StrEnum):
    """Why a condition has its status. The value is what `kubectl` shows."""

    meaning: str
    cause: str
    remedy: str

    def __new__(cls, value: str, meaning: str = "", cause: str = "", remedy: str = "") -> Reason:
        """Make the member a plain string that carries its three sentences."""
        if not (meaning and cause and remedy):
            raise ValueError(f"reason {value} lacks meaning, cause or remedy")
        member = str.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        member.cause = cause
        member.remedy = remedy
        return member

    READY = (
        "Ready",
        "Everything this generation asks for runs at its desired revision and answers.",
        "Nothing is wrong.",
        "Nothing to do.",
    )
    COMPLETE = (
        "Complete",
        "No roll-out is under way.",
        "The last change has been carried out.",
        "Nothing to do.",
    )
    INSTALLING = (
        "Installing",
        "The objects are being made for the first time.",
        "The resource was applied a short while ago.",
        "Wait: `kubectl wait --for=condition=Ready nova/NAME --timeout=10m`.",
    )
    ROLLING_OUT = (
        "RollingOut",
        "A change is being carried out stage by stage.",
        "The spec, the release or the operator's version changed.",
        "Wait; `kubectl get nova -o yaml` shows under `status.components` which service is being replaced.",
    )
    ROLLED_BACK = (
        "RolledBack",
        "The roll-out of this generation failed; the last good release is in force again.",
        "The new release crashes, cannot be pulled, does not become ready in time, or its migration failed.",
        "Read the condition `RolledBack`: it names the service and its last words. Mend the spec: the next generation "
        "is tried anew, this one is not.",
    )
    ROLLING_BACK = (
        "RollingBack",
        "The last good release is being put back, service by service in reverse order.",
        "The roll-out of this generation failed.",
        "Wait; the condition `RolledBack` says what failed.",
    )
    NOT_ROLLED_BACK = (
        "NotRolledBack",
        "This generation has not been taken back.",
        "Nothing is wrong.",
        "Nothing to do.",
    )
    RELEASE_MISSING = (
        "ReleaseMissing",
        "The roll-out failed, and the stored release to return to is gone.",
        "Somebody deleted the ControllerRevisions `novacore-release-*`.",
        "Mend the spec: the next generation is tried anew.",
    )
    MAINTENANCE_WAIT = (
        "MaintenanceWait",
        "The change would replace pods and waits for a maintenance window; the last good release stays in force.",
        "`spec.maintenance.windows` has no window open now.",
        "Wait for the time in the message, or remove the windows to go on at once.",
    )
    CANARY_RUNNING = (
        "CanaryRunning",
        "One pod of the new revision serves beside the old ones and is compared with them.",
        "`spec.rollout.canary.enabled` is true, and a change replaces pods of the service in the message.",
        "Wait; the message has the time and the figures.",
    )
    CANARY_WORSE = (
        "CanaryWorse",
        "The canary answered more requests with 5xx, or more of them slowly, than the old pods beside it.",
        "A defect of the new release, or a setting it does not bear. No old pod was replaced in that service.",
        "`kubectl novacore logs SERVICE`, of the time that `RolledBack` names; mend the spec.",
    )
    CANARY_UNREAD = (
        "CanaryUnread",
        "The metrics of the canary could not be read, so it was not compared.",
        "A policy or a proxy keeps the operator's pods from port 9090 of the services' pods.",
        "Let the operator reach that port, or set `spec.rollout.canary.enabled: false`.",
    )
    CAPACITY_FULL = (
        "CapacityFull",
        "Every component has as many available pods as it should have.",
        "Nothing is wrong.",
        "Nothing to do.",
    )
    FIELD_CONFLICT = (
        "FieldConflict",
        "Another manager has set a field of ours again and again; the operator leaves it alone until the spec changes.",
        "A second controller, or a person's script, writes the same field.",
        "Find the manager that the message names and take the field out of what it writes, then change the spec.",
    )
    NO_CONFLICT = (
        "NoConflict",
        "No other manager insists on a field the operator owns.",
        "Nothing is wrong.",
        "Nothing to do.",
    )
    PLANNED = (
        "Planned",
        "`spec.mode` is Plan: `status.plan` says what Apply would do, and nothing is written.",
        "Somebody asked for a plan.",
        "Read the plan, then set `spec.mode` to Apply.",
    )
    PROGRESS_DEADLINE_EXCEEDED = (
        "ProgressDeadlineExceeded",
        "A service did not become available within `spec.rollout.progressDeadlineSeconds`.",
        "Its pods cannot be scheduled, cannot pull their image, crash, or never become ready.",
        "Read the component's message, then `kubectl logs deploy/novacore-SERVICE`; mend the cause or the spec.",
    )
    COMPONENT_UNAVAILABLE = (
        "ComponentUnavailable",
        "A component has fewer available pods than it should.",
        "A pod crashed, was evicted, or its readiness check fails.",
        "Read the component's message, then `kubectl describe pod -l app.kubernetes.io/component=SERVICE`.",
    )
    IMAGE_PULL_FAILED = (
        "ImagePullFailed",
        "A node cannot get a component's image.",
        "The image does not exist under that name, or the registry wants credentials.",
        "Check `spec.image` and `spec.image.pullSecrets`; in kind, load the image into the node.",
    )
    CRASH_LOOPING = (
        "CrashLooping",
        "A component's container ends again and again.",
        "Bad settings (exit code 78), a missing file, or too little memory.",
        "`kubectl logs deploy/novacore-SERVICE --previous`; the last line names the setting.",
    )
    UNSCHEDULABLE = (
        "Unschedulable",
        "No node takes a component's pod.",
        "Requests exceed what is free, a volume cannot be provisioned, or a selector matches no node.",
        "`kubectl describe pod -l app.kubernetes.io/component=SERVICE`; lower the requests or add a node.",
    )
    POD_REJECTED = (
        "PodRejected",
        "The API server refuses to create a component's pods.",
        "A quota is used up, or an admission rule forbids the pod.",
        "`kubectl describe replicaset -l app.kubernetes.io/component=SERVICE`; raise the quota or change the rule.",
    )
    DATA_STORES_STARTING = (
        "DataStoresStarting",
        "Postgres or Redis does not answer yet.",
        "Their pods are starting, or wait for a volume.",
        "Wait; if it lasts, `kubectl describe pod novacore-postgres-0 novacore-redis-0`.",
    )
    DATA_STORES_READY = (
        "DataStoresReady",
        "Postgres and Redis answer.",
        "Nothing is wrong.",
        "Nothing to do.",
    )
    STORAGE_CHANGE_REFUSED = (
        "StorageChangeRefused",
        "A volume cannot be made as large as the spec asks; everything else is carried out.",
        "The storage class does not allow expansion.",
        "Set `allowVolumeExpansion: true` on the class of the claim that the message names, if its provisioner can do "
        "it; the operator tries again by itself. Otherwise move to another data store (docs/guides/install.md): a "
        "volume keeps its class, and its size cannot be set back.",
    )
    VOLUME_GROWING = (
        "VolumeGrowing",
        "A volume is being made larger; the store answers meanwhile.",
        "`storage.size` was raised.",
        "Wait. If it lasts, `kubectl describe pvc` says what the provisioner lacks; some need the pod to be restarted.",
    )
    MIGRATION_PENDING = (
        "MigrationPending",
        "The migration Job of this release has not started.",
        "It waits for Postgres.",
        "Wait; if Postgres is ready and this stays, read the operator's log.",
    )
    MIGRATION_RUNNING = (
        "MigrationRunning",
        "The migration Job runs; services are not changed before it has ended.",
        "A release was installed or changed.",
        "Wait; `kubectl logs -l app.kubernetes.io/component=migrate -f` shows it.",
    )
    MIGRATION_FAILED = (
        "MigrationFailed",
        "The migration Job gave up; the services stay as they are.",
        "A statement failed, a lock was never free, or the database does not answer.",
        "`kubectl logs -l app.kubernetes.io/component=migrate`; mend it, then delete the Job: it is run again.",
    )
    MIGRATIONS_APPLIED = (
        "MigrationsApplied",
        "The schemas are at this release's level.",
        "Nothing is wrong.",
        "Nothing to do.",
    )
    SECRETS_PENDING = (
        "SecretsPending",
        "Keys and passwords are not all written yet.",
        "The installation is being made, or a Secret was deleted or edited and is being restored.",
        "Wait a few seconds.",
    )
    SECRETS_READY = (
        "SecretsReady",
        "Every key and password exists, verifies under the root key and is where its reader mounts it.",
        "Nothing is wrong.",
        "Nothing to do.",
    )
    SECRET_MISSING = (
        "SecretMissing",
        "A Secret that the spec names does not exist, or lacks a key.",
        "A wrong name, another namespace, or the Secret has not been created yet.",
        "Create it with the keys the message lists; the operator looks again by itself.",
    )
    SECRET_NOT_GRANTED = (
        "SecretNotGranted",
        "The operator may not read a Secret that the spec names.",
        "Its name is not in the operator chart's value `referencedSecrets`.",
        "`helm upgrade … --set referencedSecrets={NAME}`; the operator looks again by itself.",
    )
    SECRET_MALFORMED = (
        "SecretMalformed",
        "A Secret that belongs to the data was edited and holds something unusable; nothing is written.",
        "It was edited by hand, or restored from elsewhere, while the operator did not run.",
        "Put back what the key in the message held; if that is lost for good, delete the key: a new one is made.",
    )
    NAMESPACE_TAKEN = (
        "NamespaceTaken",
        "Another NovaCoreDeployment of this namespace is older; this one is left alone.",
        "Two resources were applied to one namespace; object names are fixed, so only one can own them.",
        "Delete one of the two, or apply this one to another namespace.",
    )
    VERSION_UNKNOWN = (
        "VersionUnknown",
        "This operator does not know the release in `spec.version`.",
        "A typing mistake, or the operator is older than the release.",
        "Use a version that the message lists, or upgrade the operator's chart first.",
    )
    CNPG_MISSING = (
        "CNPGMissing",
        "`spec.postgres.mode` is CloudNativePG, and the cluster does not have that operator.",
        "CloudNativePG was not installed, or its definitions were removed.",
        "Install it (CloudNativePG's own guide: one manifest or its chart); the operator goes on by itself within "
        "seconds, without a restart.",
    )
    RELEASE_TOO_OLD = (
        "ReleaseTooOld",
        "The spec asks for something that the release in `spec.version` cannot do.",
        "A field of a newer release beside an older `spec.version`.",
        "Set `spec.version` to the release in the message, or take the field out.",
    )
    SPEC_INVALID = (
        "SpecInvalid",
        "The spec does not have the shape this operator reads.",
        "The CRD in the cluster is of another version than the operator.",
        "Upgrade the operator's chart with its CRD, then correct the field that the message names.",
    )
    PAUSED = (
        "Paused",
        "`spec.paused` is true: nothing is changed or repaired.",
        "Somebody paused the installation.",
        "Set `spec.paused: false` when you are done.",
    )
    NOT_PAUSED = (
        "NotPaused",
        "The operator keeps the installation as the spec says.",
        "Nothing is wrong.",
        "Nothing to do.",
    )
    APPLY_REFUSED = (
        "ApplyRefused",
        "The API server refuses an object the operator writes.",
        "An admission rule, a quota, or a spec field whose value Kubernetes does not take.",
        "Correct what the message names; the operator tries again by itself.",
    )
    FORBIDDEN = (
        "Forbidden",
        "The operator's ServiceAccount lacks a right.",
        "The operator's chart was installed with other `watchNamespaces`, or its roles were edited.",
        "`helm upgrade` the operator's chart; the message names verb and object.",
    )
    API_UNAVAILABLE = (
        "ApiUnavailable",
        "The API server did not answer; the operator tries again with growing pauses.",
        "The control plane restarts or is overloaded.",
        "Nothing, unless it lasts: then look at the control plane.",
    )
    INTERNAL_ERROR = (
        "InternalError",
        "The operator met a defect of its own; it tries again with growing pauses.",
        "A bug.",
        "Report the operator's log line with this reconcile id.",
    )
    NOT_BLOCKED = (
        "NotBlocked",
        "No pod holds a rotation of keys up.",
        "Nothing is wrong.",
        "Nothing to do.",
    )
    ROTATION_BLOCKED = (
        "RotationBlocked",
        "A pod has not proven the next key for 15 s; until it does, the old key goes on signing.",
        "The pod is frozen, cannot be reached on port 9090, holds an old keyset, or its node's clock is off.",
        "Look at the pod that the message names; deleting it helps, when it does not recover. Nothing fails meanwhile.",
    )
    ROTATION_FAILED = (
        "RotationFailed",
        "Something went wrong in a rotation, and was counted.",
        "A pod did not prove the key within `ackTimeoutSeconds`, clocks differ, or an old key is still used.",
        "See the condition `RotationBlocked`: it names pod and cause.",
    )
    ROTATION_RECORDED = (
        "RotationRecorded",
        "A change of the signing key is complete and in `status.rings`; the hash is that of its entry.",
        "The schedule, a person or an emergency asked for it.",
        "Nothing to do.",
    )
    STANDBY_PUBLISHED = (
        "StandbyPublished",
        "The next key is trusted by whoever reads the keyset; it signs nothing yet.",
        "A rotation has ended, and the key for the next one is made at once.",
        "Nothing to do.",
    )
    KEY_ACTIVATED = (
        "KeyActivated",
        "Another key signs from now on; every pod had proven it, and the old one is still trusted.",
        "The schedule or a person asked for a rotation.",
        "Nothing to do.",
    )
    KEY_RETIRED = (
        "KeyRetired",
        "A key is trusted no more: its last token has ended, and no pod used it.",
        "A rotation went by, and the overlap is over.",
        "Nothing to do.",
    )
    KEY_REVOKED = (
        "KeyRevoked",
        "A key is refused from now on; the keyset says so, and the pods are being told.",
        "A person set the annotation `novacore.ai/revoke`.",
        "Watch the condition `EmergencyIncomplete` until it is False.",
    )
    ROTATION_ROLLED_BACK = (
        "RotationRolledBack",
        "The key before signs again, or a rotation that had not switched was called off.",
        "A person set the annotation `novacore.ai/rollback`.",
        "Nothing to do.",
    )
    EMERGENCY_STARTED = (
        "EmergencyStarted",
        "Tokens that one service has been given so far are refused, and its pods are replaced.",
        "A person set the annotation `novacore.ai/deny`.",
        "Watch the condition `EmergencyIncomplete`; then find out how the service was broken into.",
    )
    EMERGENCY_COMPLETE = (
        "EmergencyComplete",
        "Every pod that takes requests has refused a canary of the revoked key, or has taken in the denial.",
        "The emergency went as it should.",
        "Nothing to do.",
    )
    EMERGENCY_INCOMPLETE = (
        "EmergencyIncomplete",
        "A pod may still accept a revoked key.",
        "It does not answer, or has not taken in the keyset; after 10 s it is taken out of its Service and deleted.",
        "Wait a minute; if it lasts, delete the pod that the message names by force.",
    )
    NO_EMERGENCY = (
        "NoEmergency",
        "No pod accepts a key that was revoked.",
        "Nothing is wrong.",
        "Nothing to do.",
    )
    POD_FENCED = (
        "PodFenced",
        "A pod was taken out of its Service and is deleted, because it did not follow in an emergency.",
        "It did not answer within 10 s.",
        "Nothing: another one takes its place.",
    )
    RETIRE_OVERDUE = (
        "RetireOverdue",
        "A key should have been retired and something still uses it; it stays trusted.",
        "A client keeps an old token, or a pod does not answer.",
        "Find who uses it: `novacore_token_verifications_total` and the exemplars name the key.",
    )
    CLOCK_SKEW = (
        "ClockSkew",
        "A pod's clock differs from the operator's by more than 10 s.",
        "Time synchronisation is off on its node.",
        "Mend the node's clock: above 30 s no key is activated.",
    )
    SCHEDULE_INVALID = (
        "ScheduleInvalid",
        "A rotation is due, and no window opens in time for it.",
        "`spec.secrets.rings` has windows that are rarer than the interval.",
        "Widen the windows or the interval.",
    )
    TRIGGER_REFUSED = (
        "TriggerRefused",
        "An annotation that asks for a rotation cannot be carried out; nothing was done for it.",
        "A word in it is wrong, or what it names is gone.",
        "Correct the annotation as the message says, with a new nonce.",
    )
    SECRET_REPAIRED = (
        "SecretRepaired",
        "A ring's document or private key was changed or deleted by hand and was put back, one generation higher.",
        "Somebody or something edited the Secret.",
        "Do not edit keys by hand: `kubectl novacore rotate` changes them.",
    )
    DRIFT_REPAIRED = (
        "DriftRepaired",
        "A field the operator owns was changed or an object was deleted; it has been put back.",
        "Somebody or something edited it.",
        "Make the change in the NovaCoreDeployment instead.",
    )
    SECRET_ADOPTED = (
        "SecretAdopted",
        "A Secret was changed while no operator ran; what verifies in it was kept, the rest was made anew.",
        "Somebody edited it, or restored it from a backup.",
        "If you did not do it: find out who may write Secrets in this namespace.",
    )
    SECRET_RESTORED = (
        "SecretRestored",
        "A Secret the operator owns was changed or deleted; it has been restored.",
        "Somebody or something edited it.",
        "Do not edit Secrets by hand: deleting one is not a way to rotate it.",
    )


CONDITIONS = {
    "Ready": "All of it runs as the spec asks, at the desired revision. `kubectl wait` for this one.",
    "SecretsReady": "All keys, passwords and certificates are in place.",
    "DataStoresReady": "Postgres and Redis answer, or, where others run them, a migration has proven it.",
    "MigrationsApplied": "The schemas are those of this release.",
    "Progressing": "Something is under way, and its reason says what.",
    "Degraded": "What once ran has less than it should, also while a roll-out is under way. Alert on this one.",
    "RolledBack": "This generation was taken back, and the last good release is in force or on its way.",
    "FieldConflict": "Another manager insists on a field, and it was left to him.",
    "RotationBlocked": "A pod keeps the next key from signing; the old one goes on. Nothing fails.",
    "EmergencyIncomplete": "A pod may still accept a key that was revoked.",
    "Paused": "`spec.paused` is true: nothing is changed, repaired or taken back.",
}
"""The types of condition, and what it means that one is True."""


def reference_page() -> str:
    """Return `docs/reference/conditions.md`."""
    lines = [
        "<!-- Generated by `python -m novacore_operator.reasons`. Do not edit. -->",
        "",
        "# Conditions and reasons",
        "",
        "`kubectl get nova` shows `Ready` and its reason; `kubectl novacore status` shows all conditions.",
        "",
        "| condition | what True means |",
        "|---|---|",
        *(f"| `{name}` | {text} |" for name, text in CONDITIONS.items()),
        "",
        "Each reason below says what it means, what usually causes it, and what to do. The same words are used in",
        "Events, in logs and as metric labels.",
        "",
    ]
    for reason in Reason:
        lines += [
            f"## {reason.value}",
            "",
            reason.meaning,
            "",
            f"- Usual cause: {reason.cause}",
            f"- What to do: {reason.remedy}",
            "",
        ]
    return "\n".join(lines)


def files(root: Path) -> dict[Path, str]:
    """Return path and text of the generated page, for the drift check."""
    return {root / "docs/reference/conditions.md": reference_page()}


def main() -> None:
    """Write the page below the working directory."""
    for path, text in files(Path()).items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
