"""May the operator act on this resource at all?"""

from __future__ import annotations

from cryptography import x509

from novacore_contracts.releases import RELEASES
from novacore_operator.policies import Finding, Policy, maintenance
from novacore_operator.reasons import Reason
from novacore_operator.state import Nova, Observed, Referenced, stores

VALUE_CHARS_MAX = 16_384
"""Of a key of a store's Secret; a CA bundle is the longest."""
HOST_CHARS_MAX = 253


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
    """Find a window, or a schedule of keys, that no calendar knows."""
    return maintenance.window_invalid(nova.spec.maintenance.windows) or maintenance.rings_invalid(nova.spec)


def release_too_old(nova: Nova, seen: Observed) -> Finding | None:  # noqa: ARG001 - the signature is Policy's
    """Find something that the release asked for cannot use."""
    if nova.spec.since("0.2.0"):
        return None
    postgres, redis = nova.spec.postgres.external, nova.spec.redis
    asked = (
        ("redis.mode External", redis.mode == "External"),
        ("redis.cache Separate", redis.cache == "Separate"),
        ("postgres.external.perServiceSecretRefs", postgres is not None and bool(postgres.per_service_secret_refs)),
        ("stripe.enabled", nova.spec.stripe.enabled),
    )
    found = [words for words, yes in asked if yes]
    if not found:
        return None
    return Finding(
        Reason.RELEASE_TOO_OLD,
        f"{', '.join(found)}: release {nova.spec.version} cannot use it: set spec.version to 0.2.0 or later, "
        "or take it out",
    )


def cloud_native_pg_missing(nova: Nova, seen: Observed) -> Finding | None:
    """Find a database that nobody in this cluster can run."""
    if nova.spec.postgres.mode != "CloudNativePG" or stores.CLUSTER_KIND not in seen.unserved:
        return None
    return Finding(
        Reason.CNPG_MISSING,
        "postgres.mode is CloudNativePG, and the API server does not know clusters.postgresql.cnpg.io: "
        "install CloudNativePG in this cluster; the operator goes on by itself",
    )


def store_secret_missing(nova: Nova, seen: Observed) -> Finding | None:
    """Find a store that is not ours whose Secret is absent, not granted, incomplete or unusable."""
    for login in stores.logins(nova.spec):
        found = seen.referenced.get(login.name)
        lacking = _lacking(found, login.name, login.keys, field=login.field) or _unusable(found, login.keys)
        if lacking is not None:
            return lacking
    return None


def _unusable(found: Referenced | None, keys: tuple[str, ...]) -> Finding | None:
    """Find a value that would only fail later, with a worse message, or stop the clients of our own stores too."""
    if found is None or found.data is None:
        return None
    values = {key: found.data.reveal()[key] for key in keys}
    unreadable = [key for key, value in values.items() if not value.isascii() or len(value) > VALUE_CHARS_MAX]
    if unreadable:
        return _malformed(found, unreadable[0], f"is not plain text of at most {VALUE_CHARS_MAX} characters")
    text = {key: value.decode().strip() for key, value in values.items()}
    if not (text["port"].isdigit() and 0 < int(text["port"]) < 65536):
        return _malformed(found, "port", "is not a port number: set it to 1 to 65535")
    if not 0 < len(text["host"]) <= HOST_CHARS_MAX or any(mark in text["host"] for mark in " /@\t\n"):
        return _malformed(found, "host", "is not a host name: give the name alone, as it stands in the certificate")
    if not _is_certificates(values["ca"]):
        return _malformed(found, "ca", "is not one or more certificates in PEM: give that of the server's authority")
    return None


def _is_certificates(pem: bytes) -> bool:
    try:
        return bool(x509.load_pem_x509_certificates(pem))
    except ValueError:
        return False


def _malformed(found: Referenced, key: str, what: str) -> Finding:
    return Finding(Reason.SECRET_MISSING, f"Secret {found.name}: key {key} {what}")


def provider_secret_missing(nova: Nova, seen: Observed) -> Finding | None:
    """Find a model provider whose key is absent or not granted."""
    ref = nova.spec.models.llm.api_key_secret_ref
    if ref is None:
        return None
    return _lacking(seen.referenced.get(ref.name), ref.name, (ref.key,), field="spec.models.llm.apiKeySecretRef")


def stripe_secret_missing(nova: Nova, seen: Observed) -> Finding | None:
    """Find a payment provider whose key or webhook secret is absent or not granted."""
    for field, ref in nova.spec.stripe.secrets():
        lacking = _lacking(seen.referenced.get(ref.name), ref.name, (ref.key,), field=field)
        if lacking is not None:
            return lacking
    return None


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
    release_too_old,
    cloud_native_pg_missing,
    store_secret_missing,
    provider_secret_missing,
    stripe_secret_missing,
)
