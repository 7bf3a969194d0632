"""The forms material takes: JWKs, signed ring documents, SCRAM verifiers, certificates. One function per form."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from novacore_contracts.keyset import JWS_TYPE, RingDocument, thumbprint

Entropy = Callable[[int], bytes]
"""n -> n random bytes (`secrets.token_bytes`)."""

P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551  # SEC 2, 2.4.2
SIGNATURE_HALF_BYTES = 32
SCRAM_ITERATIONS = 4096  # Postgres' own default; the password has 256 random bits, so more would only cost time

Jwk = dict[str, Any]


def b64(data: bytes) -> str:
    """Return base64url without padding (RFC 7515)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64(text: str) -> bytes:
    """Undo `b64`. ValueError on anything else."""
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def password(entropy: Entropy) -> str:
    """Return a password of 256 random bits in characters that no file format minds."""
    return entropy(32).hex()


# --- keys -------------------------------------------------------------------------------------------------------------


def new_p256(entropy: Entropy) -> ec.EllipticCurvePrivateKey:
    """Return a P-256 key from 48 random bytes (FIPS 186-5 A.2.1: 128 bits more than needed, reduced)."""
    scalar = int.from_bytes(entropy(48), "big") % (P256_ORDER - 1) + 1
    return ec.derive_private_key(scalar, ec.SECP256R1())


def es256_jwk(key: ec.EllipticCurvePrivateKey, *, prefix: str, n: int) -> Jwk:
    """Return the private JWK: kid = prefix + RFC 7638 thumbprint, and the number under which it was minted."""
    numbers = key.private_numbers()
    jwk: Jwk = {
        "kty": "EC",
        "crv": "P-256",
        "x": b64(numbers.public_numbers.x.to_bytes(32, "big")),
        "y": b64(numbers.public_numbers.y.to_bytes(32, "big")),
        "d": b64(numbers.private_value.to_bytes(32, "big")),
        "alg": "ES256",
        "use": "sig",
        "n": n,
    }
    return jwk | {"kid": prefix + thumbprint(jwk)}


def ed25519_jwk(entropy: Entropy, *, prefix: str, n: int) -> Jwk:
    """Return a private Ed25519 JWK (RFC 8037)."""
    seed = entropy(32)
    key = ed25519.Ed25519PrivateKey.from_private_bytes(seed)
    public = key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    jwk: Jwk = {"kty": "OKP", "crv": "Ed25519", "x": b64(public), "d": b64(seed), "alg": "EdDSA", "use": "sig", "n": n}
    return jwk | {"kid": prefix + thumbprint(jwk)}


def public_material(jwk: Jwk) -> Jwk:
    """Return the fields of a ring document's public entry."""
    return {name: jwk[name] for name in ("kty", "crv", "x", "y", "alg", "use") if name in jwk}


def p256_of(jwk: Jwk) -> ec.EllipticCurvePrivateKey:
    """Return the key of a private JWK. ValueError if it is not one, or its public half does not belong to it."""
    key = ec.derive_private_key(int.from_bytes(unb64(str(jwk["d"])), "big"), ec.SECP256R1())
    if b64(key.public_key().public_numbers().x.to_bytes(32, "big")) != jwk["x"]:
        raise ValueError("the public half does not belong to the private half")
    return key


def dumps(value: Any) -> bytes:
    """Return canonical JSON."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


# --- ring documents ---------------------------------------------------------------------------------------------------


def sign(payload: bytes, jwk: Jwk, *, typ: str) -> bytes:
    """Return a compact JWS, ES256 by a private JWK."""
    header = b64(dumps({"alg": "ES256", "kid": jwk["kid"], "typ": typ}))
    signed = f"{header}.{b64(payload)}".encode()
    signature = p256_of(jwk).sign(signed, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))
    r, s = decode_dss_signature(signature)
    raw = r.to_bytes(SIGNATURE_HALF_BYTES, "big") + s.to_bytes(SIGNATURE_HALF_BYTES, "big")
    return signed + b"." + b64(raw).encode()


def sign_document(document: RingDocument, root: Jwk) -> bytes:
    """Return the compact JWS of a ring document, ES256 by the root key."""
    return sign(document.to_bytes(), root, typ=JWS_TYPE)


@lru_cache(maxsize=4096)
def _verified(compact: bytes, x: str, y: str, kid: str) -> RingDocument | None:
    try:
        header, payload, signature = compact.decode("ascii").split(".")
        if json.loads(unb64(header)) != {"alg": "ES256", "kid": kid, "typ": JWS_TYPE}:
            return None
        raw = unb64(signature)
        numbers = ec.EllipticCurvePublicNumbers(
            int.from_bytes(unb64(x), "big"), int.from_bytes(unb64(y), "big"), ec.SECP256R1()
        )
        der = encode_dss_signature(
            int.from_bytes(raw[:SIGNATURE_HALF_BYTES], "big"), int.from_bytes(raw[SIGNATURE_HALF_BYTES:], "big")
        )
        numbers.public_key().verify(der, f"{header}.{payload}".encode(), ec.ECDSA(hashes.SHA256()))
        return RingDocument.from_bytes(unb64(payload))
    except (ValueError, InvalidSignature):
        return None


def read_document(compact: bytes | None, root: Jwk, ring: str) -> RingDocument | None:
    """Return the document if the root key signed it and it is of this ring, else None."""
    if compact is None:
        return None
    document = _verified(compact, root["x"], root["y"], root["kid"])
    return document if document is not None and document.ring == ring else None


def payload_unverified(compact: bytes | None) -> RingDocument | None:
    """Return a document whoever signed it. Only for re-signing credentials that our own Secret holds."""
    try:
        return RingDocument.from_bytes(unb64((compact or b"").decode("ascii").split(".")[1]))
    except (ValueError, IndexError):
        return None


# --- Postgres ---------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1024)
def scram_verifier(secret: str, salt: bytes) -> str:
    """Return what Postgres stores for a password (RFC 5803 as Postgres writes it). `salt`: 16 bytes."""
    salted = hashlib.pbkdf2_hmac("sha256", secret.encode(), salt, SCRAM_ITERATIONS)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    parts = [base64.b64encode(part).decode() for part in (salt, stored, server)]
    return f"SCRAM-SHA-256${SCRAM_ITERATIONS}:{parts[0]}${parts[1]}:{parts[2]}"


def scram_matches(verifier: str, secret: str) -> bool:
    """Return whether a verifier belongs to a password."""
    try:
        salt = base64.b64decode(verifier.split("$")[1].split(":")[1], validate=True)
    except (IndexError, ValueError):
        return False
    return hmac.compare_digest(scram_verifier(secret, salt), verifier)


# --- certificates -----------------------------------------------------------------------------------------------------

CA_LIFE = timedelta(days=3650)
SERVER_LIFE = timedelta(days=365)
RENEW_BEFORE = timedelta(days=30)


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a private key as PKCS#8 PEM."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _usage(**yes: bool) -> x509.KeyUsage:
    fields = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    )
    return x509.KeyUsage(**{name: yes.get(name, False) for name in fields})


def new_ca(entropy: Entropy, *, name: str, now: datetime) -> tuple[bytes, bytes]:
    """Return certificate and key (PEM) of a new CA. Python 3.13 verifies strictly: key usage and key ids are needed."""
    key = new_p256(entropy)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(_serial(entropy))
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256(), ecdsa_deterministic=True)
    )
    return certificate.public_bytes(serialization.Encoding.PEM), key_pem(key)


def new_server(
    entropy: Entropy, ca: tuple[bytes, bytes], *, host: str, namespace: str, now: datetime
) -> tuple[bytes, bytes]:
    """Return certificate and key (PEM) for a Service `host`, under each of its names in the cluster."""
    ca_certificate = x509.load_pem_x509_certificate(ca[0])
    ca_key = load_key(ca[1])
    key = new_p256(entropy)
    hosts = (
        host,
        f"{host}.{namespace}",
        f"{host}.{namespace}.svc",
        f"{host}.{namespace}.svc.cluster.local",
        "localhost",
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)]))
        .issuer_name(ca_certificate.subject)
        .public_key(key.public_key())
        .serial_number(_serial(entropy))
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(min(now + SERVER_LIFE, ca_certificate.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in hosts]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256(), ecdsa_deterministic=True)
    )
    return certificate.public_bytes(serialization.Encoding.PEM), key_pem(key)


def _serial(entropy: Entropy) -> int:
    return int.from_bytes(entropy(19), "big") | 1  # RFC 5280: positive, at most 20 bytes


def load_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    """Return a P-256 key from PEM. ValueError if it is another kind."""
    key = serialization.load_pem_private_key(pem, password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("not an EC key")
    return key


@lru_cache(maxsize=256)
def is_for(certificate: bytes, host: str) -> bool:
    """Return whether a server's certificate names a host."""
    try:
        parsed = x509.load_pem_x509_certificate(certificate)
        names = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, x509.ExtensionNotFound):
        return False
    return host in names.get_values_for_type(x509.DNSName)


@lru_cache(maxsize=256)
def certificate_end(certificate: bytes, key: bytes, issuer: bytes) -> datetime | None:
    """Return when a certificate ends; None if it is broken, not of this key, or not of this issuer."""
    try:
        parsed = x509.load_pem_x509_certificate(certificate)
        if parsed.public_key() != load_key(key).public_key():
            return None
        parsed.verify_directly_issued_by(x509.load_pem_x509_certificate(issuer))
    except (ValueError, TypeError, InvalidSignature):
        return None
    return parsed.not_valid_after_utc
