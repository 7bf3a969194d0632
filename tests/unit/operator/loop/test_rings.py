"""The edge of the rotation over an API server in memory: what it reads, asks and writes, and what it survives.

The pods are played: each holds a document, and says of a canary what a verifier would. What decides is the product's.
"""

from __future__ import annotations

import base64
import json
import time
from dataclasses import replace
from typing import Any

import pytest

from novacore_contracts.keyset import RingDocument
from novacore_operator.errors import NovaError, Retry
from novacore_operator.kube import Conflict
from novacore_operator.loop.rings import PRIVATE, Rings, Step
from novacore_operator.observe.pods import Address, Answer
from novacore_operator.reasons import Reason
from novacore_operator.rotation import forms, history, told
from novacore_operator.rotation.seen import PASSED
from novacore_operator.rotation.timing import TEST
from novacore_operator.state import Manifest, Nova, Observed, PodFacts, Ref, names
from novacore_operator.telemetry import Metrics
from tests.unit.operator.make import make_material, make_nova

RING = "serviceJwt"
SERVICES = ("auth-billing", "memory", "gateway")
QUICK = replace(TEST, hold_s=0.0, relist_s=0.0, retire_slack_s=0.0, clock_margin_s=0.0)


class Api:
    """Secrets and pods. `refuse`: an error for the next reads; `race`: somebody writes each Secret before us, once."""

    def __init__(self) -> None:
        self.material = {name: dict(data) for name, data in make_material().items()}
        self.versions = dict.fromkeys(self.material, 1)
        self.writes: list[str] = []
        self.refuse: NovaError | None = None
        self.race = False
        self.known: dict[str, dict[str, bytes]] = {}  # what the observer was told
        self.deleted: list[str] = []
        self.labels: dict[str, dict[str, str]] = {}

    async def get(self, ref: Ref) -> Manifest | None:
        if self.refuse is not None:
            raise self.refuse
        data = self.material.get(ref.name)
        if data is None:
            return None
        encoded = {key: base64.b64encode(value).decode() for key, value in data.items()}
        fields = {"f:data": {f"f:{key}": {} for key in data}}
        entry = {"manager": "novacore-operator", "operation": "Apply", "fieldsV1": fields}
        metadata = {"name": ref.name, "resourceVersion": str(self.versions[ref.name]), "managedFields": [entry]}
        return {"metadata": metadata, "data": encoded}

    async def list(self, _: str, **__: Any) -> tuple[list[Manifest], str]:
        return [
            {
                "metadata": {
                    "name": service,
                    "uid": service,
                    "creationTimestamp": "2026-03-01T11:00:00Z",
                    "labels": {"app.kubernetes.io/component": service, **self.labels.get(service, {})},
                },
                "status": {
                    "phase": "Running",
                    "podIP": service,
                    "conditions": [{"type": "Ready", "status": "True"}],
                },
            }
            for service in SERVICES
            if service not in self.deleted
        ], "1"

    async def apply(self, body: Manifest, **_: Any) -> Manifest:
        name = body["metadata"]["name"]
        if body["kind"] == "Pod":
            self.labels[name] = body["metadata"].get("labels", {})
            return body
        if self.race:
            self.race = False
            self.versions[name] = self.versions.get(name, 1) + 1
        sent = body["metadata"].get("resourceVersion")
        if sent is not None and sent != str(self.versions.get(name, "")):
            raise Conflict(Reason.APPLY_REFUSED, "the object has been modified")
        self.versions[name] = self.versions.get(name, 1) + 1
        self.material[name] = {key: base64.b64decode(value) for key, value in body["data"].items()}
        self.writes.append(name)
        return body

    async def delete(self, ref: Ref, **_: Any) -> bool:
        self.deleted.append(ref.name)
        return True

    def amend(self, _: str, name: str, data: dict[str, bytes]) -> None:
        self.known[name] = dict(data)

    def saw(self, *_: Any, **__: Any) -> None:
        """The caches."""


class Verifiers:
    """The pods. `silent`: gives no answer."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self.held: dict[tuple[str, str], bytes] = {}
        self.silent: set[str] = set()
        for pod in SERVICES:
            for ring in PRIVATE:
                self.held[pod, ring] = api.material[names.KEYSET][f"{ring}.jws"]

    def document(self, pod: str, ring: str) -> RingDocument:
        found = forms.payload_unverified(self.held[pod, ring])
        assert found is not None
        return found

    def halves(self, ring: str) -> list[str]:
        return [json.loads(data)["kid"] for data in self.api.material.get(PRIVATE[ring], {}).values()]

    async def claims(self, pods: Any) -> dict[str, Answer]:
        found = {}
        for pod in pods:
            if pod.name in self.silent:
                continue
            documents = {ring: self.document(pod.name, ring) for ring in PRIVATE}
            now = time.time()
            body = {
                "rings": {
                    ring: {
                        "generation": document.generation,
                        "active_kid": document.active_kid,
                        "kids": [key.kid for key in document.keys],
                        "last_ok": {},
                    }
                    for ring, document in documents.items()
                },
                "token_kid": documents[RING].active_kid,
                "clock": int(now),
            }
            if pod.service == "auth-billing":
                body["signer"] = {
                    ring: {"kids": self.halves(ring), "active_since": documents[ring].active.since} for ring in PRIVATE
                }
            found[pod.uid] = Answer(body, now, now)
        return found

    async def push(self, pods: Any, ring: str, compact: bytes) -> None:
        for pod in pods:
            if pod.name not in self.silent:
                self.held[pod.name, ring] = compact

    async def documents(self, pods: Any, ring: str) -> list[bytes]:
        return [self.held[pod.name, ring] for pod in pods if pod.name not in self.silent]

    async def canary(self, _: Address, request: str) -> str | None:
        asked = json.loads(forms.unb64(request.split(".", 2)[1]))
        return f"{asked['kid']}" if asked["kid"] in self.halves(asked["ring"]) else None

    async def try_canary(self, pods: Any, ring: str, token: str) -> dict[str, str]:
        if token.count(".") == 2:
            token = json.loads(forms.unb64(token.split(".", 1)[0]))["kid"]
        answers = {}
        for pod in pods:
            document = self.document(pod.name, ring)
            gone = {stone.kid: f"kid_{stone.why}" for stone in document.tombstones}
            trusted = {key.kid for key in document.keys}
            answers[pod.uid] = PASSED if token in trusted else gone.get(token, "kid_unknown")
        return answers


class Ground:
    """Rings with all of that around them."""

    def __init__(self) -> None:
        self.api = Api()
        self.pods = Verifiers(self.api)
        self.told: list[tuple[Reason, str]] = []
        rings = {ring: {"pause": True} for ring in PRIVATE}  # the material is older than any schedule
        self.nova = replace(
            make_nova(version="0.2.0", secrets={"rings": rings}), status={"release": {"current": "0.2.0"}}
        )
        self.restart()

    def restart(self) -> None:
        fake: Any = self.api
        pods: Any = self.pods
        self.rings = Rings(fake, fake, Metrics(), pods=pods, timing=QUICK)

    async def look(self, nova: Nova | None = None) -> Step:
        """Look at once, whatever the pause."""
        for kept in self.rings._kept.values():
            kept.marks = None
        seen = Observed({}, pods=(PodFacts("memory", ready=True, trouble="", message="", address="memory"),))
        found = {**self.api.material, **self.api.known}
        nova = nova if nova is not None else self.nova
        return await self.rings.step(nova, nova, seen, found, lambda why, note, _: self.told.append((why, note)))

    async def settle(self, nova: Nova | None = None) -> None:
        for _ in range(12):
            if not (await self.look(nova)).wrote:
                return

    @property
    def document(self) -> RingDocument:
        found = forms.payload_unverified(self.api.material[names.KEYSET][f"{RING}.jws"])
        assert found is not None
        return found

    def asking(self, **annotations: str) -> Nova:
        return replace(
            self.nova, asked={f"novacore.ai/{key.replace('_', '-')}": word for key, word in annotations.items()}
        )


@pytest.fixture
async def ground() -> Ground:
    """A ring whose standby is proven and whose first key is recorded."""
    made = Ground()
    await made.settle()
    return made


async def test_a_rotation_goes_from_the_annotation_to_the_history(ground: Ground) -> None:
    before = ground.document
    await ground.settle(ground.asking(rotate=f"{RING}/n1"))
    after = ground.document
    assert after.active_kid == next(key.kid for key in before.keys if key.state == "pending")
    assert [key.state for key in after.keys] == ["retiring", "active", "pending"]
    view = ground.rings.view(ground.nova)
    assert view is not None
    last = view.rings[RING]["history"][-1]
    assert (last["outcome"], last["trigger"], last["acked"]) == ("activated", "rotate/n1", "3/3")
    assert history.faults(told.read_history({"rings": view.rings}, RING)) == ()
    assert {Reason.KEY_ACTIVATED, Reason.STANDBY_PUBLISHED} <= {why for why, _ in ground.told}


async def test_an_old_key_is_changed_by_the_schedule(ground: Ground) -> None:
    nova = replace(make_nova(version="0.2.0"), status=ground.nova.status)
    before = ground.document.active_kid
    await ground.settle(nova)
    assert ground.document.active_kid != before
    assert ground.document.last_trigger.startswith("schedule/")


async def test_a_nonce_is_carried_out_once_also_by_a_restarted_operator(ground: Ground) -> None:
    asked = ground.asking(rotate=f"{RING}/n1")
    await ground.settle(asked)
    active = ground.document.active_kid
    ground.restart()
    await ground.settle(asked)
    assert ground.document.active_kid == active


async def test_a_silent_pod_keeps_the_old_key_signing(ground: Ground) -> None:
    ground.pods.silent.add("gateway")
    active = ground.document.active_kid
    await ground.settle(ground.asking(rotate=f"{RING}/n1"))
    assert ground.document.active_kid == active


async def test_between_two_looks_nothing_is_read(ground: Ground) -> None:
    seen = Observed({}, pods=(PodFacts("memory", ready=True, trouble="", message="", address="memory"),))
    await ground.look()
    ground.api.refuse = Retry(Reason.API_UNAVAILABLE, "nobody may ask")
    step = await ground.rings.step(ground.nova, ground.nova, seen, ground.api.material, lambda *_: None)
    assert not step.wrote
    assert step.again_s is not None


@pytest.mark.invariant("EDGE-1")
async def test_a_write_of_somebody_else_in_between_ends_the_look_and_the_next_one_reads_anew(ground: Ground) -> None:
    asked = ground.asking(rotate=f"{RING}/n1")
    ground.api.race = True
    before = ground.document
    await ground.look(asked)
    assert ground.document == before
    await ground.settle(asked)
    assert ground.document.active_kid != before.active_kid


@pytest.mark.invariant("EDGE-2")
async def test_what_was_written_is_remembered_so_that_a_deleted_secret_comes_back(ground: Ground) -> None:
    await ground.settle(ground.asking(rotate=f"{RING}/n1"))
    before = ground.document
    assert ground.api.known[names.KEYSET] == ground.api.material[names.KEYSET]
    for name in (names.KEYSET, PRIVATE[RING]):
        del ground.api.material[name], ground.api.versions[name]
    await ground.settle()
    after = ground.document
    assert after.generation > before.generation
    assert (after.active_kid, after.keys) == (before.active_kid, before.keys)
    assert ground.api.material[PRIVATE[RING]] == ground.api.known[PRIVATE[RING]]
    assert Reason.SECRET_REPAIRED in {why for why, _ in ground.told}


async def test_a_document_that_only_the_pods_have_comes_back_from_them(ground: Ground) -> None:
    before = ground.document
    del ground.api.material[names.KEYSET], ground.api.versions[names.KEYSET]
    ground.api.known.clear()
    ground.restart()
    await ground.settle()
    assert ground.document.generation > before.generation
    assert ground.document.active_kid == before.active_kid


@pytest.mark.invariant("EDGE-3")
async def test_an_api_server_that_does_not_answer_fails_no_turn(ground: Ground) -> None:
    ground.api.refuse = Retry(Reason.API_UNAVAILABLE, "503")
    step = await ground.look()
    assert step.again_s == QUICK.patient_look_s


@pytest.mark.invariant("EDGE-3")
async def test_a_defect_of_ours_fails_no_turn_and_is_told_without_its_words(ground: Ground) -> None:
    async def claims(_: Any) -> dict[str, Answer]:
        raise ValueError("a password, perhaps")

    ground.pods.claims = claims  # type: ignore[method-assign]
    step = await ground.look()
    assert step.again_s == QUICK.patient_look_s
    (note,) = (note for why, note in ground.told if why is Reason.INTERNAL_ERROR)
    assert "ValueError" in note
    assert "password" not in note


async def test_a_revoked_key_is_refused_by_all_before_it_is_told(ground: Ground) -> None:
    leaked = ground.document.active_kid
    await ground.settle(ground.asking(revoke=f"{leaked}/n1", revoke_reason="a test"))
    after = ground.document
    assert leaked not in {key.kid for key in after.keys}
    assert leaked not in ground.pods.halves(RING)
    entries = told.read_history({"rings": ground.rings.view(ground.nova).rings}, RING)  # type: ignore[union-attr]
    revoked = next(entry for entry in entries if entry.outcome == "revoked")
    assert (revoked.acked, revoked.reason) == ("3/3", "a test")
    assert Reason.EMERGENCY_COMPLETE in {why for why, _ in ground.told}


async def test_an_annotation_that_makes_no_sense_is_told(ground: Ground) -> None:
    await ground.look(ground.asking(rotate="nothing/n1"))
    assert any(why is Reason.TRIGGER_REFUSED and "serviceJwt" in note for why, note in ground.told)


@pytest.mark.parametrize(
    "nova",
    [
        {"paused": True},
        {"version": "0.1.0"},
    ],
)
async def test_a_paused_installation_and_one_of_an_old_release_are_left_alone(nova: dict[str, Any]) -> None:
    ground = Ground()
    made = replace(make_nova(**{"version": "0.2.0", **nova}), status={"release": {"current": "0.2.0"}})
    assert await ground.look(made) == Step()
    assert ground.api.writes == []


async def test_a_key_planted_by_somebody_else_is_no_standby(ground: Ground) -> None:
    """He can write the Secret, and knows the private half that he wrote."""
    planted = forms.es256_jwk(forms.new_p256(lambda n: b"\x07" * n), prefix="svc-", n=9)
    ground.api.material[PRIVATE[RING]][f"{RING}-9.jwk"] = forms.dumps(planted)
    plain = ground.api.get

    async def get(ref: Ref) -> Manifest | None:
        body = await plain(ref)
        if body is not None and ref.name == PRIVATE[RING]:
            body["metadata"]["managedFields"][0]["fieldsV1"]["f:data"].pop(f"f:{RING}-9.jwk", None)
        return body

    ground.api.get = get  # type: ignore[method-assign]
    await ground.settle(ground.asking(rotate=f"{RING}/n1"))
    assert planted["kid"] not in {key.kid for key in ground.document.keys}
