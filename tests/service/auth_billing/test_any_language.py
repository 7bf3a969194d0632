"""The guide's verifiers in three languages, as files, against the live keys of a running auth-billing."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import jwt
import pytest

from hack.cluster import tools
from novacore_contracts.identity import USER_AUDIENCE
from tests.kit.harness import listening
from tests.kit.keys import SigningKey

FOLDER = Path(__file__).resolve().parents[3] / "docs/guides/verify"
WITHIN_S = 60


@pytest.fixture(scope="session")
def commands(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """How each example is started; the Go one is built once."""
    node = shutil.which("node")
    if node is None:
        pytest.fail("node is not installed, expected Node 20 or later: apt-get install nodejs, or nodejs.org")
    binary = tmp_path_factory.mktemp("go") / "verify"
    subprocess.run(
        [tools.go(), "build", "-trimpath", "-o", str(binary), str(FOLDER / "verify.go")],
        check=True, timeout=280, env={**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local"},
    )  # fmt: skip
    return {
        "python": [sys.executable, str(FOLDER / "verify.py")],
        "node": [node, str(FOLDER / "verify.mjs")],
        "go": [str(binary)],
    }


@dataclass
class Example:
    """One example running: a token in, a line out."""

    process: asyncio.subprocess.Process

    async def says(self, *tokens: str) -> list[dict[str, str]]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        answers = []
        for token in tokens:
            self.process.stdin.write(token.encode() + b"\n")
            async with asyncio.timeout(WITHIN_S):
                line = await self.process.stdout.readline()
            assert line, f"the example ended with {await self.process.wait()}"
            answers.append(json.loads(line))
        return answers


@pytest.fixture(params=["python", "node", "go"])
async def start(request, commands, auth):
    """`example = await start(max_age_s)`: the example of one language, at the keys of the service."""
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(listening(auth.apps.public))
        running = []

        async def run(*arguments: str) -> Example:
            process = await asyncio.create_subprocess_exec(
                *commands[request.param], f"{url}/.well-known/jwks.json", *arguments,
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            )  # fmt: skip
            running.append(process)
            return Example(process)

        yield run
        for process in running:
            assert process.stdin is not None
            process.stdin.close()
            async with asyncio.timeout(WITHIN_S):
                assert await process.wait() == 0


def part(data: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(data).encode()).rstrip(b"=").decode()


def forgeries(keys) -> dict[str, str]:
    """Tokens that no verifier in any language may accept."""
    active, now = keys.active["userJwt"], int(time.time())
    good = jwt.decode(keys.user_token(), options={"verify_signature": False})

    def signed(*, key: SigningKey = active, header: dict[str, object] | None = None, **changes: object) -> str:
        claims = {name: value for name, value in (good | changes).items() if value is not None}
        return jwt.encode(claims, key.private, algorithm="ES256", headers={"kid": key.kid, **(header or {})})

    head, payload, signature = signed().split(".")
    mac = jwt.encode(good, active.jwk["x"], algorithm="HS256", headers={"kid": active.kid})
    return {
        "empty": "",
        "text": "text",
        "none": f"{part({'alg': 'none', 'kid': active.kid})}.{payload}.",
        "none, signed": f"{part({'alg': 'none', 'kid': active.kid})}.{payload}.{signature}",
        "hmac by the public key": mac,
        "alg ES384": f"{part({'alg': 'ES384', 'kid': active.kid})}.{payload}.{signature}",
        "no kid": f"{part({'alg': 'ES256'})}.{payload}.{signature}",
        "another payload": f"{head}.{part(good | {'role': 'admin'})}.{signature}",
        "signature cut": f"{head}.{payload}.{signature[:-8]}",
        "no signature": f"{head}.{payload}.",
        "unknown kid": signed(key=SigningKey("usr-")),
        "known kid, another key": signed(key=SigningKey("usr-"), header={"kid": active.kid}),
        "a key of its own": signed(key=SigningKey("usr-"), header={"jwk": SigningKey("usr-").jwk, "kid": "me"}),
        "crit": signed(header={"crit": ["exp"]}),
        "expired": signed(iat=now - 500, exp=now - 60),
        "from the future": signed(iat=now + 120, exp=now + 300),
        "not yet": signed(nbf=now + 120),
        "a life over 15 minutes": signed(exp=now + 3600),
        "no exp": signed(exp=None),
        "no iat": signed(iat=None),
        "no sub": signed(sub=None),
        "no iss": signed(iss=None),
        "no aud": signed(aud=None),
        "wrong iss": signed(iss="somebody"),
        "wrong aud": signed(aud="novacore-services"),
        "two aud": signed(aud=[USER_AUDIENCE, "else"]),
        "exp a text": signed(exp=str(now + 60)),
        "a service token": keys.service_token("gateway"),
        "a canary": keys.canary("userJwt"),
        "too long": signed(filler="x" * 8192),
    }


async def test_it_accepts_what_the_service_signs_and_refuses_every_forgery(start, register, keys):
    session = await register()
    user = jwt.decode(session["access_token"], options={"verify_signature": False})["sub"]
    example, forged = await start(), forgeries(keys)

    good = await example.says(session["access_token"], keys.user_token(), session["access_token"])
    refused = dict(zip(forged, await example.says(*forged.values()), strict=True))
    after = await example.says(session["access_token"])

    assert [answer["sub"] for answer in (good[0], good[2], *after)] == [user] * 3
    assert {name: list(answer) for name, answer in refused.items()} == {name: ["refused"] for name in forged}
    assert len(refused) == 30


async def test_unknown_kids_do_not_make_it_fetch(start, auth, keys):
    def fetches() -> float:
        route = {"method": "GET", "route": "/.well-known/jwks.json", "code": "200"}
        return float(auth.platform.metrics.value("http_requests_total", **route))

    example = await start()
    assert "sub" in (await example.says(keys.user_token()))[0]
    assert fetches() == 1

    unknown = [keys.user_token(key=SigningKey("usr-")) for _ in range(50)]
    answers = await example.says(*unknown)

    assert [list(answer) for answer in answers] == [["refused"]] * 50
    assert fetches() <= 2


async def test_a_rotation_refuses_nobody_and_a_revocation_ends_a_key(start, auth, keys):
    rings, old, new = auth.platform.keyrings, keys.active["userJwt"], keys.standby["userJwt"]
    example = await start("0")  # looks at the keys for each token
    patient = await start()

    async def accepted(one: Example) -> list[bool]:
        return ["sub" in said for said in await one.says(keys.user_token(key=old), keys.user_token(key=new))]

    assert await accepted(example) == await accepted(patient) == [True, True]
    rings.push("userJwt", keys.sign(keys.switched("userJwt", generation=2)))
    assert await accepted(example) == await accepted(patient) == [True, True], "the standby was published long before"

    rings.push("userJwt", keys.sign(keys.switched("userJwt", generation=3, revoke=True)))

    assert await accepted(example) == [False, True]
    assert await accepted(patient) == [True, True], "it looks again after a minute: so long a revocation takes outside"
