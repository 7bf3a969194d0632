"""May the operator act on this resource at all?"""

from __future__ import annotations

from novacore_contracts.releases import RELEASES
from novacore_operator.policies import Finding, Policy, maintenance
from novacore_operator.reasons import Reason
from novacore_operator.state import Nova, Observed, Referenced

POSTGRES_KEYS = ("host", "port", "user", "password", "database", "ca")


def namespace_taken(nova: Nova, seen: Observed) -> Finding | None:
    """Find an older resource in the same namespace; equal age is settled by name."""
    older = [name for created, name in seen.siblings if (created, name) < (nova.created, nova.name)]
    if not older:
        return None
    return Finding(
        Reason.NAMESPACE_TAKEN,
        f"NovaCoreDeployment {min(older)} already owns namespace {nova.namespace}: "
        "delete one of the two, or apply this one to another namespace",
    )


def version_unknown(nova: Nova, seen: Observed) -> Finding | None:  # noqa: ARG001 - the signature is Policy's
    """Find a release that this operator does not know how to run."""
    if nova.spec.version in RELEASES:
        return None
    return Finding(
        Reason.VERSION_UNKNOWN,
        f"spec.version {nova.spec.version} is not a release this operator knows: "
        f"set it to one of {', '.join(RELEASES)}, or upgrade the operator's chart first",
    )


def window_invalid(nova: Nova, seen: Observed) -> Finding | None:  # noqa: ARG001 - the signature is Policy's
    """Find a maintenance window that no calendar knows."""
    return maintenance.window_invalid(nova.spec.maintenance.windows)


def postgres_secret_missing(nova: Nova, seen: Observed) -> Finding | None:
    """Find an external Postgres whose Secret is absent, not granted or incomplete."""
    external = nova.spec.postgres.external
    if nova.spec.postgres.mode != "External" or external is None:
        return None
    return _lacking(
        seen.referenced.get(external.admin_secret_ref.name),
        external.admin_secret_ref.name,
        POSTGRES_KEYS,
        field="spec.postgres.external.adminSecretRef",
    ) or _bad_port(seen.referenced[external.admin_secret_ref.name])


def _bad_port(found: Referenced) -> Finding | None:
    text = found.data.reveal()["port"].decode(errors="replace").strip() if found.data is not None else ""
    if text.isdigit() and 0 < int(text) < 65536:
        return None
    return Finding(Reason.SECRET_MISSING, f"Secret {found.name}: key port is not a port number: set it to 1 to 65535")


def provider_secret_missing(nova: Nova, seen: Observed) -> Finding | None:
    """Find a model provider whose key is absent or not granted."""
    ref = nova.spec.models.llm.api_key_secret_ref
    if ref is None:
        return None
    return _lacking(seen.referenced.get(ref.name), ref.name, (ref.key,), field="spec.models.llm.apiKeySecretRef")


def _lacking(found: Referenced | None, name: str, keys: tuple[str, ...], *, field: str) -> Finding | None:
    if found is not None and found.forbidden:
        return Finding(
            Reason.SECRET_NOT_GRANTED,
            f"{field} names Secret {name}, which the operator may not read: "
            "add it to the operator chart's value referencedSecrets",
        )
    if found is None or found.data is None:
        return Finding(
            Reason.SECRET_MISSING,
            f"{field} names Secret {name}, which does not exist: create it with the keys {', '.join(keys)}",
        )
    data = found.data.reveal()
    missing = [key for key in keys if not data.get(key)]
    if missing:
        return Finding(Reason.SECRET_MISSING, f"Secret {name} lacks {', '.join(missing)}: add what {field} needs")
    return None


MAY_ACT: tuple[Policy, ...] = (
    namespace_taken,  # first: nothing below matters for a resource that owns nothing
    window_invalid,
    version_unknown,  # before secrets: another release may need others
    postgres_secret_missing,
    provider_secret_missing,
)
