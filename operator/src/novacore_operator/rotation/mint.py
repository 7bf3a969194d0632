"""Complete an installation's material: keep what is there and sound, mint what is missing.

Invariants: MINT-1 what exists and is sound is returned byte for byte; a second call with its own result changes
nothing. MINT-2 the first document of a JWT ring has an active and a standby key before any Deployment exists.
MINT-3 a document that is made anew has a generation above the one it replaces, and above any small number that a pod
may still hold when that one is lost (the Unix time). MINT-4 a document that is lost or was tampered with never brings a
key into the ring whose private half we do not hold as active. MINT-5 a document that our root key signed is left to the
rotation as long as there is any private half: it alone changes one.
Not here: when to rotate (`machine`), and proof that the pods hold a key (`proof`).
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from novacore_contracts.identity import KID_PREFIX
from novacore_contracts.keyset import TRUSTED_KEYS_MAX, KeyState, RingDocument, RingKey, thumbprint
from novacore_contracts.services import (
    BY_NAME,
    DATABASE,
    POSTGRES_NAME,
    POSTGRES_PORT,
    REDIS_CACHE_NAME,
    REDIS_NAME,
    REDIS_PORT,
    SERVICES,
    Service,
)
from novacore_operator.rotation import forms
from novacore_operator.rotation.forms import Entropy, Jwk
from novacore_operator.rotation.timing import PRODUCTION, Timing
from novacore_operator.state import Material, PostgresAdmin, RedisLogin, names

JWT_RINGS: tuple[tuple[str, str], ...] = (
    ("serviceJwt", names.SERVICE_JWT_PRIVATE),
    ("userJwt", names.USER_JWT_PRIVATE),
)
ROOT_KEY = "root.jwk"


@dataclass(frozen=True, slots=True)
class Setting:
    """What the material depends on. A store whose access is None here is run by the operator itself."""

    namespace: str
    postgres: PostgresAdmin | None = None
    logins: Mapping[str, PostgresAdmin] = field(default_factory=dict)  # service -> his own, of roles the user made
    redis: RedisLogin | None = None
    redis_cache: RedisLogin | None = None
    own_cache: bool = False  # a second Redis of ours, for what may be lost
    postgres_host: str = POSTGRES_NAME  # of a Postgres whose administrator the operator is
    provider_key: str | None = field(default=None, repr=False)
    stripe: tuple[str, str] | None = field(default=None, repr=False)  # API key, webhook secret


@dataclass(slots=True)
class _Forge:
    """One call of `complete`: the sources of chance and time, and the Secrets as they grow."""

    setting: Setting
    now: datetime
    entropy: Entropy
    secrets: dict[str, dict[str, bytes]]
    timing: Timing = PRODUCTION
    root: Jwk = field(default_factory=dict)

    @property
    def unix(self) -> int:
        return int(self.now.timestamp())


def complete(
    have: Material, setting: Setting, *, now: datetime, entropy: Entropy, timing: Timing = PRODUCTION
) -> Material:
    """Return the whole material of an installation: Secret name -> key -> bytes, the root Secret included."""
    forge = _Forge(setting, now, entropy, {name: dict(data) for name, data in have.items()}, timing)
    _root(forge)
    for ring, secret in JWT_RINGS:
        _jwt_ring(forge, ring, secret)
    _policy(forge)
    _certificates(forge)
    _admin(forge)
    _credentials(forge)
    _roles(forge)
    wanted = {*names.SECRETS, names.root_secret(setting.namespace)}
    return {name: data for name, data in forge.secrets.items() if name in wanted and data}


def root_jwks(material: Material, namespace: str) -> str:
    """Return `root.jwks`: the public root keys."""
    root = json.loads(material[names.root_secret(namespace)][ROOT_KEY])
    public = {name: root[name] for name in ("kty", "crv", "x", "y", "kid", "alg", "use")}
    return forms.dumps({"keys": [public]}).decode()


def ca_bundle(material: Material, setting: Setting) -> str:
    """Return the certificates that clients of the data stores trust: ours, and those of stores that are not ours."""
    own = material[names.CA_PRIVATE]["tls.crt"].decode()
    stores = (setting.postgres, *setting.logins.values(), setting.redis, setting.redis_cache)
    given = (login.ca for login in stores if login is not None)
    foreign = dict.fromkeys(ca.strip() for ca in given if ca)
    return own + "".join(f"{ca}\n" for ca in foreign)


def redis_users(material: Material, *, cache: bool = False) -> dict[str, str]:
    """Return Redis user -> SHA-256 of its password; of the Redis for caches, if asked for that."""
    users = {}
    for service in SERVICES:
        if service.redis and (service.cache or not cache):
            document = forms.payload_unverified(material[names.creds(service.name)]["redis.jws"])
            if document is not None:
                secret = str(document.active.material["password"])
                users[service.name] = hashlib.sha256(secret.encode()).hexdigest()
    return users


def json_object(data: bytes | None) -> dict[str, Any] | None:
    try:
        value = json.loads(data or b"")
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


# --- root and JWT rings -----------------------------------------------------------------------------------------------


def sound_es256(data: bytes | None, prefix: str) -> Jwk | None:
    """Return a stored private JWK if it is sound."""
    jwk = json_object(data)
    try:
        if jwk is None or jwk["kid"] != prefix + thumbprint(jwk) or not isinstance(jwk["n"], int):
            return None
        forms.p256_of(jwk)
    except (KeyError, ValueError, TypeError):
        return None
    return jwk


def _root(forge: _Forge) -> None:
    secret = forge.secrets.setdefault(names.root_secret(forge.setting.namespace), {})
    root = sound_es256(secret.get(ROOT_KEY), "root-")
    if root is None:
        root = forms.es256_jwk(forms.new_p256(forge.entropy), prefix="root-", n=1)
        secret[ROOT_KEY] = forms.dumps(root)
    forge.root = root


def _jwt_ring(forge: _Forge, ring: str, secret_name: str) -> None:
    """Make a ring's first document, with an active and a standby key. One that the root key signed stays (MINT-5).

    Without a document the private halves that are there go on, the oldest as active. Without any private half no new
    signer could start: then the old keys are trusted until their tokens end, and fresh ones sign.
    """
    private = forge.secrets.setdefault(secret_name, {})
    keyset = forge.secrets.setdefault(names.KEYSET, {})
    entry = f"{ring}.jws"
    keys = {name: jwk for name, data in private.items() if (jwk := sound_es256(data, KID_PREFIX[ring])) is not None}
    document = forms.read_document(keyset.get(entry), forge.root, ring)
    if document is not None and keys:
        forge.secrets[secret_name] = {name: private[name] for name in sorted(keys)}
        return
    kept = sorted(keys.values(), key=lambda jwk: jwk["n"])[: len(FIRST_STATES)]
    number = max((document.seq if document is not None else 0, *(jwk["n"] for jwk in keys.values())))
    while len(kept) < len(FIRST_STATES):
        number += 1
        kept.append(forms.es256_jwk(forms.new_p256(forge.entropy), prefix=KID_PREFIX[ring], n=number))
    fresh = tuple(_ring_key(jwk, state, forge.unix) for jwk, state in zip(kept, FIRST_STATES, strict=True))
    old = _retiring(document, forge.unix) if document is not None else ()
    made = RingDocument(
        ring=ring,
        generation=document.generation + 1 if document is not None else (1 if not private else forge.unix),
        seq=number,
        issued_at=forge.unix,
        active_kid=fresh[0].kid,
        keys=(*old, *fresh),
        tombstones=document.tombstones if document is not None else (),
        deny=document.deny if document is not None else (),
        ttl_max=document.ttl_max if document is not None else ttl_max_s(ring, forge.timing),
    )
    keyset[entry] = forms.sign_document(made, forge.root)
    every = {jwk["kid"]: jwk for jwk in (*keys.values(), *kept)}
    forge.secrets[secret_name] = {f"{ring}-{jwk['n']}.jwk": forms.dumps(jwk) for jwk in every.values()}


def _retiring(document: RingDocument, now: int) -> tuple[RingKey, ...]:
    """Return the keys that may still have living tokens: they sign no more."""
    used = [key for key in document.keys if key.state != "pending"]
    return tuple(
        RingKey(kid=key.kid, n=key.n, state="retiring", since=now, material=key.material)
        for key in used[-(TRUSTED_KEYS_MAX - len(FIRST_STATES)) :]
    )


FIRST_STATES: tuple[KeyState, ...] = ("active", "pending")


def ttl_max_s(ring: str, timing: Timing) -> int:
    """Return the longest life of a ring's tokens, in seconds."""
    return int({"serviceJwt": timing.service_ttl_s, "userJwt": timing.user_ttl_s}[ring])


def _ring_key(jwk: Jwk, state: KeyState, since: int) -> RingKey:
    return RingKey(kid=jwk["kid"], n=jwk["n"], state=state, since=since, material=forms.public_material(jwk))


def _policy(forge: _Forge) -> None:
    secret = forge.secrets.setdefault(names.POLICY_PRIVATE, {})
    for data in secret.values():
        jwk = json_object(data)
        if jwk is not None and jwk.get("crv") == "Ed25519" and "d" in jwk:
            return
    jwk = forms.ed25519_jwk(forge.entropy, prefix=KID_PREFIX["policy"], n=1)
    secret["policy-1.jwk"] = forms.dumps(jwk)


# --- certificates -----------------------------------------------------------------------------------------------------


def _certificates(forge: _Forge) -> None:
    authority = forge.secrets.setdefault(names.CA_PRIVATE, {})
    certificate, key = authority.get("tls.crt", b""), authority.get("tls.key", b"")
    end = forms.certificate_end(certificate, key, certificate)
    if end is None or end - forge.now < forms.RENEW_BEFORE:
        certificate, key = forms.new_ca(
            forge.entropy, name=f"NovaCore {forge.setting.namespace} {forge.now:%Y-%m-%d}", now=forge.now
        )
        authority |= {"tls.crt": certificate, "tls.key": key}
    setting = forge.setting
    for secret_name, host, is_ours in (
        (names.POSTGRES_TLS, setting.postgres_host, setting.postgres is None),
        (names.REDIS_TLS, REDIS_NAME, setting.redis is None),
        (names.REDIS_CACHE_TLS, REDIS_CACHE_NAME, setting.own_cache),
    ):
        if not is_ours:
            forge.secrets.pop(secret_name, None)
            continue
        server = forge.secrets.setdefault(secret_name, {})
        end = forms.certificate_end(server.get("tls.crt", b""), server.get("tls.key", b""), certificate)
        fits = forms.is_for(server.get("tls.crt", b""), host)
        if end is None or not fits or end - forge.now < forms.RENEW_BEFORE:
            new = forms.new_server(
                forge.entropy, (certificate, key), host=host, namespace=forge.setting.namespace, now=forge.now
            )
            server |= {"tls.crt": new[0], "tls.key": new[1]}
        server["ca.crt"] = certificate


# --- credentials ------------------------------------------------------------------------------------------------------


def _admin(forge: _Forge) -> None:
    """The administrator of our own Postgres. An external one's comes from the user's Secret and is not copied here."""
    if forge.setting.postgres is not None:
        forge.secrets.pop(names.POSTGRES_ADMIN, None)
        return
    secret = forge.secrets.setdefault(names.POSTGRES_ADMIN, {})
    if len(secret.get("password", b"")) < 32:
        secret["password"] = forms.password(forge.entropy).encode()
    if forge.setting.postgres_host != POSTGRES_NAME:
        secret["username"] = b"postgres"  # whoever runs it reads both
    known = secret["password"].decode()
    if not forms.scram_matches(secret.get("scram", b"").decode(errors="replace"), known):
        secret["scram"] = forms.scram_verifier(known, forge.entropy(16)).encode()


def _credentials(forge: _Forge) -> None:
    log_key = (
        next(
            (
                data["log.key"]
                for service in SERVICES
                if len((data := forge.secrets.get(names.creds(service.name), {})).get("log.key", b"")) == 64
            ),
            None,
        )
        or forge.entropy(32).hex().encode()
    )
    for service in SERVICES:
        secret = forge.secrets.setdefault(names.creds(service.name), {})
        secret["log.key"] = log_key
        if service.role is not None:
            _credential(forge, secret, "postgres", _postgres_login(forge, service))
        if service.redis:
            _credential(forge, secret, "redis", _redis_login(forge, service))
        if service.name == "intelligence":
            _given(forge, secret, "providers", {"api_key": forge.setting.provider_key})
        if service.name == "auth-billing":
            key, webhook = forge.setting.stripe or (None, None)
            _given(forge, secret, "stripeKey", {"api_key": key})
            _given(forge, secret, "stripeWebhook", {"secret": webhook})


def _postgres_login(forge: _Forge, service: Service) -> dict[str, Any]:
    admin = forge.setting.postgres
    own = forge.setting.logins.get(service.name)
    if own is not None:
        return {
            "user": own.user,
            "password": own.password,
            "host": own.host,
            "port": own.port,
            "database": own.database,
            "sslmode": "verify-full",
        }
    return {
        "user": f"{service.role}_a",
        "host": admin.host if admin else forge.setting.postgres_host,
        "port": admin.port if admin else POSTGRES_PORT,
        "database": admin.database if admin else DATABASE,
        "sslmode": "verify-full",
    }


def _redis_login(forge: _Forge, service: Service) -> dict[str, Any]:
    """Return where Redis is, and under `cache`, where what may be lost has one of its own, where that is."""
    setting = forge.setting

    def place(login: RedisLogin | None, host: str) -> dict[str, Any]:
        if login is None:
            return {"user": service.name, "host": host, "port": REDIS_PORT, "tls": True}
        return {"user": login.user, "password": login.password, "host": login.host, "port": login.port, "tls": True}

    found = place(setting.redis, REDIS_NAME)
    if service.cache and (setting.own_cache or setting.redis_cache is not None):
        found["cache"] = place(setting.redis_cache, REDIS_CACHE_NAME)
    return found


def _credential(forge: _Forge, secret: dict[str, bytes], ring: str, place: dict[str, Any]) -> None:
    """Keep a signed credential, or make it: the password stays when only the place or the root key changed.

    A `place` that brings a password is a login that somebody else made.
    """
    entry = f"{ring}.jws"
    known = forms.payload_unverified(secret.get(entry))
    before = known if known is not None and known.ring == ring else None
    material = dict(before.active.material) if before is not None else {}
    word = str(place.get("password", material.get("password", "")))
    if "password" not in place and len(word) < 32:
        before, word = None, forms.password(forge.entropy)
    wanted = _with_password(place, word)
    if material == wanted and forms.read_document(secret[entry], forge.root, ring) is not None:
        return
    secret[entry] = forms.sign_document(_one_key(forge, ring, wanted, before=before), forge.root)


def _with_password(place: dict[str, Any], word: str) -> dict[str, Any]:
    """Return a login with its password: one password for both Redis of ours."""
    whole = {"password": word, **place}
    if "cache" in whole:
        whole["cache"] = {"password": word, **whole["cache"]}
    return whole


def _given(forge: _Forge, secret: dict[str, bytes], ring: str, wanted: dict[str, str | None]) -> None:
    """What somebody else made, copied from the user's Secret into that of the one service that needs it."""
    entry = f"{ring}.jws"
    if None in wanted.values():
        secret.pop(entry, None)
        return
    known = forms.read_document(secret.get(entry), forge.root, ring)
    if known is not None and known.active.material == wanted:
        return
    secret[entry] = forms.sign_document(_one_key(forge, ring, wanted, before=known), forge.root)


def _one_key(forge: _Forge, ring: str, material: dict[str, Any], *, before: RingDocument | None) -> RingDocument:
    n = before.active.n + (before.active.material != material) if before else 1  # another value has another id
    kid = f"{ring}-{n}"
    key = RingKey(kid=kid, n=n, state="active", since=forge.unix, material=material)
    generation = before.generation + 1 if before else 1
    return RingDocument(ring=ring, generation=generation, seq=n, issued_at=forge.unix, active_kid=kid, keys=(key,))


def _roles(forge: _Forge) -> None:
    """What the migration Job needs: the administrator's access, and the login roles with verifiers, not passwords."""
    admin = forge.setting.postgres
    secret = forge.secrets.setdefault(names.MIGRATE_CREDS, {})
    own = forge.secrets.get(names.POSTGRES_ADMIN, {})
    secret["admin.json"] = forms.dumps(
        {
            "host": admin.host if admin else forge.setting.postgres_host,
            "port": admin.port if admin else POSTGRES_PORT,
            "database": admin.database if admin else DATABASE,
            "user": admin.user if admin else "postgres",
            "password": admin.password if admin else own["password"].decode(),
            "sslmode": "verify-full",
        }
    )
    _redis_check(forge, secret)
    known = {
        str(role.get("name")): str(role.get("scram", ""))
        for role in (json_object(secret.get("roles.json")) or {}).get("roles", [])
        if isinstance(role, dict)
    }
    if forge.setting.logins:
        given = {BY_NAME[name].role: login.user for name, login in sorted(forge.setting.logins.items())}
        secret["roles.json"] = forms.dumps({"roles": [], "given": given})
        return
    roles = []
    for service in SERVICES:
        if service.role is None:
            continue
        document = forms.payload_unverified(forge.secrets[names.creds(service.name)]["postgres.jws"])
        if document is None:
            continue
        login, secret_word = f"{service.role}_a", str(document.active.material["password"])
        verifier = known.get(login, "")
        if not forms.scram_matches(verifier, secret_word):
            verifier = forms.scram_verifier(secret_word, forge.entropy(16))
        roles.append({"name": login, "member_of": service.role, "scram": verifier})
    secret["roles.json"] = forms.dumps({"roles": roles})


def _redis_check(forge: _Forge, secret: dict[str, bytes]) -> None:
    """The logins of a Redis that is not ours: the migration Job tries them before any service does."""
    logins = [
        {"name": name, "host": login.host, "port": login.port, "user": login.user, "password": login.password}
        for name, login in (("redis", forge.setting.redis), ("redis-cache", forge.setting.redis_cache))
        if login is not None
    ]
    if logins:
        secret["redis.json"] = forms.dumps({"logins": logins})
    else:
        secret.pop("redis.json", None)


def roles_hash(material: Material) -> str:
    """Return a hash of what the migration Job is given. One way and salted by 256-bit passwords: safe in a name."""
    secret = material[names.MIGRATE_CREDS]
    content = secret["admin.json"] + secret["roles.json"] + secret.get("redis.json", b"")
    return hashlib.sha256(content).hexdigest()[:20]


def store_hash(material: Material, *secrets: str) -> str:
    """Return a hash of Secrets that a data store reads when it starts."""
    parts = [base64.b64encode(value) for name in secrets for _, value in sorted(material.get(name, {}).items())]
    return hashlib.sha256(b"\n".join(parts)).hexdigest()[:20]
