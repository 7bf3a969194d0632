"""A verifier as a process of its own, under attack: bad documents, bad tokens, floods, wrong clocks."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time

import jwt
import pytest

from novacore_contracts.identity import ISSUER, SERVICE_AUDIENCE, USER_AUDIENCE
from novacore_contracts.keyset import Deny, Tombstone
from tests.kit.keys import Keys, SigningKey
from tests.kit.servicepod import ServicePod, service_pod
from tests.kit.until import until

KEYS = Keys()
NOW = int(time.time())
GONE = {why: SigningKey("svc-") for why in ("retired", "revoked")}
LOAD_ERRORS = 'novacore_keyset_load_errors_total{ring="serviceJwt"}'
ADMITTED = 405
"""What the route answers behind its door: it has nothing to give to a GET."""


@pytest.fixture(scope="module")
async def pod(tmp_path_factory):
    document = KEYS.document(
        "serviceJwt",
        tombstones=tuple(Tombstone(key.kid, why, NOW + 86_400) for why, key in GONE.items()),
        deny=(Deny(jti="stolen"), Deny(sub="memory", iat_before=NOW - 5)),
    )
    async with service_pod(
        "mcp-server", folder=tmp_path_factory.mktemp("pod"), keys=KEYS,
        documents={"serviceJwt.jws": KEYS.sign(document)},
    ) as running:  # fmt: skip
        yield running


async def knock(pod: ServicePod, service: str | None = None, user: str | None = None):
    """One request with a service's and a user's token; good ones where none is given."""
    headers = {"X-Service-Token": service if service is not None else KEYS.service_token("gateway")}
    if user != "":
        headers["Authorization"] = f"Bearer {user or KEYS.user_token()}"
    return await pod.public.get("/mcp", headers=headers)


# --- R17: bad documents ------------------------------------------------------------------------------------------------

NEXT = KEYS.document("serviceJwt", generation=9)
GOOD = KEYS.sign(NEXT)


def signed_payload(**changes):
    """A document of any content, signed by the root as if it were one."""
    from jwt.api_jws import PyJWS

    payload = json.dumps(json.loads(NEXT.to_bytes()) | changes).encode()
    headers = {"kid": KEYS.root.kid, "typ": "novacore-ring+jws"}
    return PyJWS().encode(payload, KEYS.root.private, algorithm="ES256", headers=headers).encode()


BAD_DOCUMENTS = {
    "truncated": GOOD[: len(GOOD) // 2],
    "empty": b"",
    "wrong root": KEYS.sign(NEXT, root=SigningKey("root-")),
    "wrong typ": KEYS.sign(NEXT, typ="JWT"),
    "empty keys": signed_payload(keys=[]),
    "one megabyte": signed_payload(last_trigger="x" * 740_000),
}
"""Those of the mount cost a second each, until they are seen."""
MORE_BAD_DOCUMENTS = {
    "other ring": KEYS.sign(KEYS.document("userJwt", generation=9)),
    "two active": signed_payload(keys=[*json.loads(NEXT.to_bytes())["keys"][:1] * 2]),
    "other signature": GOOD[:-8] + b"AAAAAAAA",
}


@pytest.mark.invariant("RING-2")
@pytest.mark.parametrize("way", ["mount", "push"])
async def test_r17_a_bad_document_is_counted_and_the_last_good_ring_kept(pod, way):
    before = (await pod.rings())["serviceJwt"]
    files = {f"{ring}.jws": (pod.paths.keyset / f"{ring}.jws").read_bytes() for ring in ("serviceJwt", "userJwt")}
    assert before["generation"] == 1
    assert (await knock(pod)).status_code == ADMITTED
    documents = BAD_DOCUMENTS | (MORE_BAD_DOCUMENTS if way == "push" else {})
    served = 0
    for name, content in documents.items():
        errors = await pod.value(LOAD_ERRORS)
        if way == "push":
            answer = await pod.internal.post("/internal/keyset", content=content)
            assert (answer.status_code, answer.json()["code"]) in ((422, "keyset_refused"), (413, "too_large")), name
        else:
            pod.keyset.write(files | {"serviceJwt.jws": content})

        async def counted(errors=errors):
            return await pod.value(LOAD_ERRORS) > errors

        await until(counted, within_s=10, what=f"{name}: the error is counted", report=pod.child.tail)
        answers = await asyncio.gather(*(knock(pod) for _ in range(10)))
        assert [answer.status_code for answer in answers] == [ADMITTED] * 10, name
        served += len(answers)
        assert await pod.value(LOAD_ERRORS) == errors + 1, name
        after = (await pod.rings())["serviceJwt"]
        assert (after["generation"], after["sha256"]) == (1, before["sha256"]), name
    assert (await pod.internal.get("/readyz")).status_code == 200
    assert served == {"mount": 60, "push": 90}[way]
    pod.keyset.write(files)


# --- R18: bad tokens ---------------------------------------------------------------------------------------------------


def part(data) -> str:
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def claims(**changes):
    now = int(time.time())
    body = {
        "iss": ISSUER, "aud": SERVICE_AUDIENCE, "sub": "gateway", "permissions": ["*"], "iat": now, "nbf": now - 10,
        "exp": now + 60, "jti": "1",
    } | changes  # fmt: skip
    return {name: value for name, value in body.items() if value is not ...}


def es256(body, *, key=None, **header):
    key = key or KEYS.active["serviceJwt"]
    return jwt.encode(body, key.private, algorithm="ES256", headers={"kid": key.kid, **header})


def hs256(secret: bytes, **header):
    head = f"{part({'alg': 'HS256', 'typ': 'JWT', **header})}.{part(claims())}"
    return f"{head}.{part(hmac.new(secret, head.encode(), hashlib.sha256).digest())}"


def reheaded(**changes):
    """A valid token under another header, with its old signature."""
    head, payload, signature = es256(claims()).split(".")
    return f"{part(json.loads(base64.urlsafe_b64decode(head + '==')) | changes)}.{payload}.{signature}"


KID = KEYS.active["serviceJwt"].kid
PEM = KEYS.active["serviceJwt"].private.public_key()


def _payload_changed():
    head, _, signature = es256(claims(permissions=[])).split(".")
    return f"{head}.{part(claims())}.{signature}"


REFUSALS = {
    "no token": (lambda: "", "token_missing"),
    "alg none": (lambda: f"{part({'alg': 'none', 'kid': KID})}.{part(claims())}.", "token_invalid"),
    "alg nOnE": (lambda: f"{part({'alg': 'nOnE', 'kid': KID})}.{part(claims())}.", "token_invalid"),
    "alg none, signed": (lambda: reheaded(alg="none"), "token_invalid"),
    "hmac by the jwk": (lambda: hs256(json.dumps(KEYS.active["serviceJwt"].jwk).encode(), kid=KID), "token_invalid"),
    "hmac by the coordinate": (lambda: hs256(KEYS.active["serviceJwt"].jwk["x"].encode(), kid=KID), "token_invalid"),
    "hmac, legacy's name": (lambda: hs256(b"x" * 32, kid="legacy"), "kid_unknown"),
    "hmac, no kid": (lambda: hs256(b"x" * 32), "token_invalid"),
    "alg ES384": (lambda: reheaded(alg="ES384"), "token_invalid"),
    "alg RS256": (lambda: reheaded(alg="RS256"), "token_invalid"),
    "no alg": (lambda: reheaded(alg=None), "token_invalid"),
    "no exp": (lambda: es256(claims(exp=...)), "token_invalid"),
    "no iat": (lambda: es256(claims(iat=...)), "token_invalid"),
    "no sub": (lambda: es256(claims(sub=...)), "token_invalid"),
    "no iss": (lambda: es256(claims(iss=...)), "token_invalid"),
    "no aud": (lambda: es256(claims(aud=...)), "token_invalid"),
    "exp a text": (lambda: es256(claims(exp="9999999999")), "token_invalid"),
    "a life over 24 h": (lambda: es256(claims(exp=int(time.time()) + 86_460)), "token_invalid"),
    "expired": (lambda: es256(claims(iat=NOW - 400, exp=NOW - 100)), "token_expired"),
    "not yet": (lambda: es256(claims(nbf=int(time.time()) + 300)), "token_invalid"),
    "from the future": (lambda: es256(claims(iat=int(time.time()) + 50, exp=int(time.time()) + 600)), "token_invalid"),
    "wrong iss": (lambda: es256(claims(iss="somebody")), "token_invalid"),
    "wrong aud": (lambda: es256(claims(aud=USER_AUDIENCE)), "token_invalid"),
    "two aud": (lambda: es256(claims(aud=[SERVICE_AUDIENCE, USER_AUDIENCE])), "token_invalid"),
    "unknown kid": (lambda: es256(claims(), key=SigningKey("svc-")), "kid_unknown"),
    "a user key's kid": (lambda: es256(claims(), key=KEYS.active["userJwt"]), "kid_unknown"),
    "a list for a kid": (lambda: reheaded(kid=["a"]), "token_invalid"),
    "known kid, stranger's key": (lambda: es256(claims(), key=SigningKey("svc-"), kid=KID), "token_invalid"),
    "a key of its own": (lambda: es256(claims(), key=GONE["retired"], kid="me", jwk=GONE["retired"].jwk), "kid_unknown"),
    "crit": (lambda: es256(claims(), crit=["exp"]), "token_invalid"),
    "crit, empty": (lambda: es256(claims(), crit=[]), "token_invalid"),
    "detached payload": (lambda: es256(claims(), b64=False), "token_invalid"),
    "over 8 KiB": (lambda: es256(claims(filler="x" * 8192)), "token_invalid"),
    "a canary": (lambda: KEYS.canary("serviceJwt"), "token_invalid"),
    "a standby's canary": (lambda: KEYS.canary("serviceJwt", key=KEYS.standby["serviceJwt"]), "token_invalid"),
    "retired kid": (lambda: es256(claims(), key=GONE["retired"]), "kid_retired"),
    "revoked kid": (lambda: es256(claims(), key=GONE["revoked"]), "kid_revoked"),
    "denied jti": (lambda: es256(claims(jti="stolen")), "denied"),
    "denied sub": (lambda: es256(claims(sub="memory", iat=NOW - 6, exp=int(time.time()) + 60)), "denied"),
    "permissions a text": (lambda: es256(claims(permissions="*")), "token_invalid"),
    "text": (lambda: "x", "token_invalid"),
    "three dots": (lambda: "....", "token_invalid"),
    "a payload changed": (_payload_changed, "token_invalid"),
    "a signature cut": (lambda: es256(claims())[:-6], "token_invalid"),
    "no signature": (lambda: es256(claims()).rpartition(".")[0] + ".", "token_invalid"),
}  # fmt: skip


@pytest.mark.invariant("RING-3")
@pytest.mark.parametrize("attack", REFUSALS)
async def test_r18_every_forgery_is_refused(pod, attack):
    make, code = REFUSALS[attack]
    total = 'novacore_token_verifications_total{result="ok",ring="serviceJwt"}'
    assert (await knock(pod)).status_code == ADMITTED, "a good token is not admitted: a refusal would prove nothing"
    accepted = await pod.value(total)

    answers = [await knock(pod, service=make()) for _ in range(2)]  # a refusal is not forgotten, and not remembered

    assert len(answers) == 2
    for answer in answers:
        assert (answer.status_code, answer.json()["code"]) == (401, code)
        assert answer.headers["www-authenticate"].startswith('Bearer realm="novacore-services"')
    if attack != "permissions a text":  # our own key signed it: the claim is refused, not the token
        assert await pod.value(total) == accepted


@pytest.mark.parametrize(
    ("user", "code"),
    [
        (lambda: KEYS.canary("userJwt"), "token_invalid"),
        (lambda: KEYS.service_token("gateway"), "kid_unknown"),
        (lambda: KEYS.user_token(key=KEYS.active["serviceJwt"]), "kid_unknown"),
        (lambda: KEYS.user_token(ttl=-40), "token_expired"),
        (lambda: KEYS.user_token(aud=SERVICE_AUDIENCE), "token_invalid"),
        (lambda: "", "token_missing"),
    ],
    ids=["canary", "service token", "service key", "expired", "aud", "none"],
)
async def test_r18_and_so_is_a_forged_user(pod, user, code):
    assert (await knock(pod)).status_code == ADMITTED

    answer = await knock(pod, user=user())

    assert (answer.status_code, answer.json()["code"]) == (401, code)


async def test_a_canary_is_refused_by_every_route_but_its_own(pod):
    canary = KEYS.canary("serviceJwt")
    proof = await pod.internal.post("/internal/keyset/canary", json={"token": canary})
    assert proof.json() == {"kid": KID, "generation": 1}
    refused = 0
    for path, operations in (await pod.public.get("/openapi.json")).json()["paths"].items():
        for method in operations:
            headers = {"X-Service-Token": canary, "Authorization": f"Bearer {KEYS.canary('userJwt')}"}
            answer = await pod.public.request(method, path, headers=headers, json={})
            if answer.status_code == 401:
                refused += 1
            else:
                assert path in ("/health", "/mcp/health") or path.startswith("/.well-known/"), (method, path)

    assert refused >= 6


# --- R19: floods -------------------------------------------------------------------------------------------------------


@pytest.mark.invariant("RING-4")
async def test_r19_a_flood_of_unknown_kids_fetches_nothing_and_leaves_nothing(pod):
    """The counts; what it costs others is measured by `make bench-flood`."""
    forged = [es256(claims(), key=KEYS.active["serviceJwt"], kid=f"svc-{number}") for number in range(2500)]
    good, user = KEYS.service_token("gateway"), KEYS.user_token()

    async def flood(tokens):
        codes = []
        for token in tokens:
            codes.append((await knock(pod, service=token, user=user)).json()["code"])
            if len(codes) % 50 == 0:
                assert (await knock(pod, service=good, user=user)).status_code == ADMITTED
        return codes

    async def round_(tokens):
        lanes = await asyncio.gather(*(flood(tokens[lane::4]) for lane in range(4)))
        return [code for lane in lanes for code in lane]

    await round_(forged[:500])  # pools, buffers and the cache find their size
    await pod.series()  # the first scrape makes series of its own route
    memory, series = pod.resident_bytes(), await pod.series()
    outbound, asked = pod.outbound(), len(pod.auth.asked)

    codes = await round_(forged[500:])

    assert codes == ["kid_unknown"] * 2000
    assert pod.outbound() == outbound
    assert len(pod.auth.asked) == asked, "the issuer was asked"
    assert await pod.series() == series
    assert pod.resident_bytes() - memory < 2 << 20
    assert await pod.value('novacore_token_verifications_total{result="unknown_kid",ring="serviceJwt"}') >= 2500


# --- R20: clocks -------------------------------------------------------------------------------------------------------


async def test_r20_clocks_that_differ_fail_nobody_and_are_told(tmp_path):
    """Whether a pod 45 s ahead blocks an activation, is the operator's to say: it reads `clock`."""
    requests = 0
    async with service_pod("mcp-server", folder=tmp_path, keys=KEYS, clock=True) as one:
        for ahead in (-25, 25, 45):
            one.set_clock(ahead)
            for token in (KEYS.service_token("gateway"), KEYS.service_token("gateway", ttl=60)):
                for _ in range(20):
                    assert (await knock(one, service=token)).status_code == ADMITTED, ahead
                    requests += 1
            canary = await one.internal.post("/internal/keyset/canary", json={"token": KEYS.canary("serviceJwt")})
            assert canary.status_code == 200, (ahead, canary.text)
            before = time.time()
            told = (await one.internal.get("/readyz")).json()["clock"]
            assert before + ahead - 1 <= told <= time.time() + ahead
        one.set_clock(95)
        late = await knock(one, service=KEYS.service_token("gateway", ttl=60))
        assert late.json()["code"] == "token_expired", "its clock was never another one"
    assert requests == 120


@pytest.mark.parametrize("ahead", [-25, 25])
async def test_r20_a_signer_whose_clock_differs_signs_for_all(pod, ahead):
    now = int(time.time()) + ahead
    token = es256(claims(iat=now, nbf=now - 10, exp=now + 3600))

    answers = [await knock(pod, service=token) for _ in range(5)]

    assert [answer.status_code for answer in answers] == [ADMITTED] * 5
