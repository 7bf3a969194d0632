"""Which entries of our Secrets that somebody else owns now are taken as they are, instead of being minted anew.

They were edited, or restored from a backup, while no operator ran: memory cannot put them back, and what the data
directories hold may be just this. Invariants: ADOPT-1 an entry that is ours is never replaced. ADOPT-2 nothing is taken
that does not verify: documents by the root key, keys by their form. ADOPT-3 material of the data that is there but
unusable stops everything (`SecretMalformed`); other material is then minted (ADR 0004).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from novacore_contracts.identity import KID_PREFIX
from novacore_contracts.services import SERVICES
from novacore_operator.errors import Blocked
from novacore_operator.reasons import Reason
from novacore_operator.rotation import forms, mint
from novacore_operator.rotation.forms import Jwk
from novacore_operator.state import Material, Sealed, names

PASSWORD = re.compile(rb"[!-~]{32,}")
LOG_KEY = re.compile(rb"[0-9a-f]{64}")
GIVEN = ("providers", "stripeKey", "stripeWebhook")
"""Rings whose values a user gives."""
CERTIFICATES = (names.CA_PRIVATE, names.POSTGRES_TLS, names.REDIS_TLS, names.REDIS_CACHE_TLS)


def adopt(have: Material, foreign: Mapping[str, Sealed], setting: mint.Setting) -> Material:
    """Return `have` with what may be taken of `foreign`. Blocked when material of the data is unusable."""
    result = {name: dict(data) for name, data in have.items()}
    rest = {
        name: {key: value for key, value in sealed.reveal().items() if key not in result.get(name, {})}
        for name, sealed in foreign.items()
    }
    root_name = names.root_secret(setting.namespace)
    root = _take_root(result, rest, root_name)
    for name, key, value in [*_documents(result, rest, root), *_keys(result, rest, root), *_plain(rest)]:
        result.setdefault(name, {})[key] = value
    if setting.postgres is None:
        _admin(result, rest.get(names.POSTGRES_ADMIN, {}))
    _policy(result, rest.get(names.POLICY_PRIVATE, {}))
    return result


Rest = Mapping[str, Mapping[str, bytes]]
Taken = Iterator[tuple[str, str, bytes]]


def _refuse(secret: str, key: str, what: str) -> Blocked:
    return Blocked(
        Reason.SECRET_MALFORMED, f"Secret {secret}: key {key} was edited and is not {what}: put the old value back"
    )


def _take_root(result: dict[str, dict[str, bytes]], rest: Rest, name: str) -> Jwk | None:
    own = mint.sound_es256(result.get(name, {}).get(mint.ROOT_KEY), "root-")
    if own is not None:
        return own
    value = rest.get(name, {}).get(mint.ROOT_KEY)
    root = mint.sound_es256(value, "root-")
    if root is not None and value is not None:
        result.setdefault(name, {})[mint.ROOT_KEY] = value
    return root


def _documents(result: Material, rest: Rest, root: Jwk | None) -> Taken:
    """Yield the documents that the root key signed: of the JWT rings, and the credentials of the services."""
    for ring, _ in mint.JWT_RINGS:
        value = rest.get(names.KEYSET, {}).get(f"{ring}.jws")
        if root is not None and value is not None and forms.read_document(value, root, ring) is not None:
            yield names.KEYSET, f"{ring}.jws", value
    owned_log_key = any("log.key" in result.get(names.creds(service.name), {}) for service in SERVICES)
    for service in SERVICES:
        secret = names.creds(service.name)
        data = rest.get(secret, {})
        if not owned_log_key and LOG_KEY.fullmatch(data.get("log.key", b"")):
            yield secret, "log.key", data["log.key"]
        for ring in ("postgres", "redis", *GIVEN):
            value = data.get(f"{ring}.jws")
            if value is None:
                continue
            document = forms.read_document(value, root, ring) if root is not None else None
            if document is not None and (ring in GIVEN or document.active.material.get("password")):
                yield secret, f"{ring}.jws", value
            elif ring == "postgres" and service.role is not None:
                raise _refuse(secret, "postgres.jws", "a credential signed by this installation's root key")


def _keys(result: Material, rest: Rest, root: Jwk | None) -> Taken:
    """Yield sound private halves. Where the ring's document verifies, only of keys that it names."""
    for ring, secret in mint.JWT_RINGS:
        entry = f"{ring}.jws"
        compact = result.get(names.KEYSET, {}).get(entry) or rest.get(names.KEYSET, {}).get(entry)
        document = forms.read_document(compact, root, ring) if root is not None else None
        named = None if document is None else {key.kid for key in document.keys}
        for key, value in rest.get(secret, {}).items():
            jwk = mint.sound_es256(value, KID_PREFIX[ring])
            if jwk is not None and (named is None or jwk["kid"] in named):
                yield secret, key, value


def _plain(rest: Rest) -> Taken:
    """Yield what `mint` checks by itself: certificates, and the verifiers it compares with the passwords."""
    for secret in CERTIFICATES:
        for key in ("tls.crt", "tls.key", "ca.crt"):
            if key in rest.get(secret, {}):
                yield secret, key, rest[secret][key]
    roles = rest.get(names.MIGRATE_CREDS, {}).get("roles.json", b"")
    if roles.isascii() and isinstance((mint.json_object(roles) or {}).get("roles"), list):
        yield names.MIGRATE_CREDS, "roles.json", roles


def _admin(result: dict[str, dict[str, bytes]], data: Mapping[str, bytes]) -> None:
    secret = result.setdefault(names.POSTGRES_ADMIN, {})
    if "password" in data:
        if not PASSWORD.fullmatch(data["password"]):
            raise _refuse(names.POSTGRES_ADMIN, "password", "a password of 32 or more printable characters")
        secret["password"] = data["password"]
    if data.get("scram", b"").isascii() and "scram" in data:
        secret["scram"] = data["scram"]


def _policy(result: dict[str, dict[str, bytes]], data: Mapping[str, bytes]) -> None:
    """Take the policy key, if none is ours: it signed what the database holds."""
    secret = result.setdefault(names.POLICY_PRIVATE, {})
    if secret:
        return
    for key, value in data.items():
        if key.startswith("policy-") and key.endswith(".jwk"):
            if not _is_ed25519(value):
                raise _refuse(names.POLICY_PRIVATE, key, "a private Ed25519 JWK")
            secret[key] = value


def _is_ed25519(value: bytes) -> bool:
    jwk = mint.json_object(value)
    try:
        if jwk is None or jwk["crv"] != "Ed25519" or not isinstance(jwk["n"], int):
            return False
        seed = forms.unb64(str(jwk["d"]))
        made = forms.ed25519_jwk(lambda _: seed, prefix=KID_PREFIX["policy"], n=jwk["n"])
    except (KeyError, ValueError, TypeError):
        return False
    return bool(made["x"] == jwk["x"] and made["kid"] == jwk.get("kid"))
