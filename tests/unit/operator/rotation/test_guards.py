"""Guards, proofs and what is told, one situation each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import pytest

from novacore_contracts.keyset import RingDocument
from novacore_operator.rotation import guards, history, machine, proof, report, rings
from novacore_operator.rotation.actions import FencePod, Prove, Push, ReadLive, RemovePod, Rescue, Step, WriteDocument
from novacore_operator.rotation.guards import GUARDS, Why
from novacore_operator.rotation.history import Entry, Outcome
from novacore_operator.rotation.report import Phase
from novacore_operator.rotation.schedule import OnStraggler, RingPolicy
from novacore_operator.rotation.seen import KID_REVOKED, OPERATOR, PASSED, Canaries, Memory, Pod, Report, Seen
from novacore_operator.rotation.timing import PRODUCTION, TEST
from novacore_operator.rotation.triggers import Mode, Trigger, Verb
from tests.unit.operator.rotation.test_rings import NOW, make_document, make_half

ROTATE = Trigger(Verb.ROTATE, "serviceJwt", "now")
LATER = float(NOW + 1000)


def make_pod(name: str, document: RingDocument | None, **changes: Any) -> Pod:
    """Return a pod that holds a document and, if it signs, all its private halves."""
    service = name.rpartition("-")[0]
    kids = frozenset(key.kid for key in document.keys) if document is not None else frozenset()
    made = Pod(name, f"uid-{name}", service, created_at=NOW - 1000.0)
    if document is not None:
        signs = made.signs
        said = Report(
            document.generation,
            document.active_kid,
            kids,
            token_kid=document.active_kid,
            signer_kids=kids if signs else frozenset(),
            active_since=float(NOW) if signs else None,
        )
        made = replace(made, report=replace(said, **changes.pop("report", {})))
    return replace(made, **changes)


def canaries(pods: tuple[Pod, ...], answers: Mapping[str, str] | None = None) -> Canaries:
    """Return the answers of all pods to a canary of each signer; `answers`: name -> another one than `ok`."""
    signers = [pod for pod in pods if pod.signs]
    return {(signer.uid, pod.uid): (answers or {}).get(pod.name, PASSED) for signer in signers for pod in pods}


def make_seen(**changes: Any) -> Seen:
    """Return a ring with a proven standby, a recorded switch, and a rotation that was asked for."""
    document = changes.pop("document", make_document("active", "pending"))
    pods = changes.pop("pods", None) or tuple(
        make_pod(name, document) for name in ("auth-billing-1", "auth-billing-2", "memory-1", "gateway-1")
    )
    switch = Entry("serviceJwt-1", Outcome.ACTIVATED, "install", NOW, 1, (document.active_kid,))
    whole: dict[str, Any] = {
        "ring": "serviceJwt",
        "uid": "u",
        "policy": RingPolicy(ttl_max_s=86_400),
        "timing": PRODUCTION,
        "document": document,
        "document_version": "5",
        "halves": tuple(make_half(key.n) for key in document.keys),
        "private_version": "6",
        "pods": pods,
        "canaries": {"svc-2": canaries(pods)},
        "triggers": (ROTATE,),
        "history": history.append((), switch),
        "memory": Memory(peak=document.generation, proven=("svc-2", LATER - 60)),
    }
    return Seen(**(whole | changes))


def objection(seen: Seen) -> Why | None:
    found = GUARDS.before_switch(seen, LATER, ROTATE)
    return found.why if found is not None else None


def test_with_every_pod_proven_for_long_enough_the_standby_signs() -> None:
    seen = make_seen()
    assert objection(seen) is None
    [action] = machine.plan(seen, LATER)
    assert isinstance(action, WriteDocument)
    assert (action.step, action.version, action.document.active_kid) == (Step.SWITCH, "5", "svc-2")


@pytest.mark.invariant("PROOF-1")
@pytest.mark.parametrize(
    ("pod", "cause"),
    [
        ({"phase": "Pending", "report": None}, "memory-1 is Pending"),
        ({"phase": "Unknown", "report": None}, "memory-1 is Unknown"),
        ({"report": None}, "memory-1 does not answer"),
        ({"report": {"generation": 6}}, "memory-1 holds generation 6, expected 7"),
        ({"report": {"kids": frozenset({"svc-1"})}}, "memory-1 holds generation 7, expected 7"),
    ],
)
def test_one_pod_that_lacks_something_holds_the_switch_and_is_named(pod: dict[str, Any], cause: str) -> None:
    document = make_document("active", "pending")
    silent = pod.get("report", 1) is None
    wrong = make_pod("memory-1", document, **{key: value for key, value in pod.items() if value is not None})
    wrong = replace(wrong, report=None) if silent else wrong
    pods = (make_pod("auth-billing-1", document), wrong)
    seen = make_seen(pods=pods, canaries={"svc-2": canaries(pods)})
    assert objection(seen) is Why.UNPROVEN
    assert [str(item) for item in proof.of(seen, "svc-2").stragglers] == [cause]


@pytest.mark.invariant("PROOF-2")
def test_an_acknowledgement_without_a_canary_proves_nothing() -> None:
    seen = make_seen()
    assert objection(replace(seen, canaries={})) is Why.UNPROVEN
    refused = {"svc-2": canaries(seen.pods, {"gateway-1": "kid_unknown"})}
    [straggler] = proof.of(replace(seen, canaries=refused), "svc-2").stragglers
    assert str(straggler) == "gateway-1 answered kid_unknown to a canary of auth-billing-1"


@pytest.mark.invariant("PROOF-1")
def test_each_signer_must_have_made_one() -> None:
    document = make_document("active", "pending")
    pods = (
        make_pod("auth-billing-1", document),
        make_pod("auth-billing-2", document, report={"signer_kids": frozenset({"svc-1"})}),
    )
    seen = make_seen(pods=pods, canaries={"svc-2": canaries(pods)})
    assert "auth-billing-2 has not got the private half yet" in str(guards.unproven(seen, LATER, ROTATE))
    without = make_seen(pods=(make_pod("memory-1", document),))
    assert objection(without) is Why.UNPROVEN


def test_a_missing_pod_holds_the_switch() -> None:
    assert objection(make_seen(expected_pods=5)) is Why.UNPROVEN


def test_terminating_fenced_and_finished_pods_do_not_count_once_they_take_no_requests() -> None:
    document = make_document("active", "pending")
    for gone in (
        {"terminating": True, "endpoint": False},
        {"fenced": True, "endpoint": False},
        {"phase": "Failed"},
        {"phase": "Succeeded"},
    ):
        pods = (make_pod("auth-billing-1", document), make_pod("memory-1", None, **gone))
        assert objection(make_seen(pods=pods, canaries={"svc-2": canaries(pods)})) is None, gone
    pods = (make_pod("auth-billing-1", document), make_pod("memory-1", None, terminating=True))
    assert objection(make_seen(pods=pods, canaries={"svc-2": canaries(pods)})) is Why.UNPROVEN


@pytest.mark.invariant("PROOF-3")
def test_a_proof_is_counted_anew_after_one_look_that_lacks_it() -> None:
    seen = make_seen(memory=Memory(peak=7))
    once = proof.remember(seen, LATER)
    assert once.proven == ("svc-2", LATER)
    assert objection(replace(seen, memory=once)) is Why.NOT_HELD
    kept = proof.remember(replace(seen, memory=once), LATER + 3)
    assert kept.proven == ("svc-2", LATER)
    broken = {"svc-2": canaries(seen.pods, {"memory-1": "kid_unknown"})}
    lost = proof.remember(replace(seen, memory=kept, canaries=broken), LATER + 4)
    assert lost.proven is None
    assert lost.missing == {"uid-memory-1": LATER + 4}
    again = proof.remember(replace(seen, memory=lost), LATER + 6)
    assert again.proven == ("svc-2", LATER + 6)
    assert again.missing == {}


def test_nothing_is_learnt_from_a_look_in_which_nobody_was_asked() -> None:
    seen = make_seen(canaries={})
    assert proof.remember(seen, LATER).proven == seen.memory.proven


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"busy_ring": "userJwt"}, Why.BUSY),
        ({"history": ()}, Why.UNRECORDED),
        ({"document": make_document("retiring", "retiring", "active", "pending")}, Why.RETIRING),
    ],
)
def test_what_else_holds_a_switch(changes: dict[str, Any], why: Why) -> None:
    assert objection(make_seen(**changes)) is why


def test_without_a_standby_nothing_switches() -> None:
    assert objection(make_seen(document=make_document("active"))) is Why.UNPROVEN


def test_a_person_may_pass_over_a_straggler_after_the_timeout_and_a_schedule_may_not() -> None:
    seen = make_seen()
    refused = {"svc-2": canaries(seen.pods, {"memory-1": "kid_unknown"})}
    missing = Memory(peak=7, missing={"uid-memory-1": LATER - PRODUCTION.ack_timeout_s})
    forced = replace(
        seen, canaries=refused, memory=missing, policy=replace(seen.policy, on_straggler=OnStraggler.FORCE)
    )
    assert objection(forced) is None
    assert GUARDS.before_switch(forced, LATER, replace(ROTATE, verb=Verb.SCHEDULE)) is not None
    early = replace(forced, memory=replace(missing, missing={"uid-memory-1": LATER - 1}))
    assert objection(early) is Why.UNPROVEN
    assert objection(replace(forced, policy=seen.policy)) is Why.UNPROVEN


def test_a_straggler_is_evicted_one_at_a_time_when_the_resource_says_so() -> None:
    document = make_document("active", "pending")
    pods = (make_pod("auth-billing-1", document), make_pod("memory-1", None), make_pod("memory-2", None))
    late = {"uid-memory-1": 0.0, "uid-memory-2": 0.0}
    seen = make_seen(
        pods=pods,
        canaries={"svc-2": canaries(pods[:1])},
        memory=Memory(peak=7, missing=late),
        policy=RingPolicy(ttl_max_s=86_400, on_straggler=OnStraggler.REPLACE_POD),
    )
    found = [action for action in machine.plan(seen, LATER) if isinstance(action, RemovePod)]
    assert found == [RemovePod(Step.DELETE_POD, "memory-1", "uid-memory-1", evict=True)]
    made = replace(seen, pods=(*pods, make_pod("gateway-1", None, phase="Pending")))
    assert not [action for action in machine.plan(made, LATER) if isinstance(action, RemovePod)]


# --- retiring ---------------------------------------------------------------------------------------------------------


def retired(seen: Seen, now: float) -> bool:
    return any(isinstance(item, WriteDocument) and item.step is Step.RETIRE for item in machine.plan(seen, now))


@pytest.mark.invariant("GUARD-2")
def test_a_key_retires_when_its_last_token_has_ended_and_nobody_uses_it() -> None:
    document = make_document("retiring", "active", "pending")
    seen = make_seen(document=document, triggers=(), halves=tuple(make_half(n) for n in (2, 3)))
    end = NOW + 2 + 86_400 + 360
    assert not retired(seen, end - 1)
    assert retired(seen, end)

    def but(**said: Any) -> Seen:
        return replace(seen, pods=(*seen.pods[:3], make_pod("gateway-1", document, report=said)))

    assert not retired(but(token_kid="svc-1"), end)
    assert not retired(but(last_ok={"svc-1": end - 599.0}), end)
    assert retired(but(last_ok={"svc-1": end - 601.0}), end)
    assert not retired(replace(seen, pods=(*seen.pods[:3], make_pod("gateway-1", None))), end)
    lagging = replace(seen, pods=(make_pod("auth-billing-1", document, report={"active_kid": "svc-1"}), *seen.pods[1:]))
    assert not retired(lagging, end + 86_400)


def test_a_recorded_switch_keeps_its_time_although_signers_restart() -> None:
    document = make_document("retiring", "active", "pending")
    restarted = tuple(
        make_pod(name, document, report={"active_since": NOW + 80_000.0}) for name in ("auth-billing-1", "memory-1")
    )
    seen = make_seen(document=document, triggers=(), pods=restarted, halves=tuple(make_half(n) for n in (2, 3)))
    end = NOW + 2 + 86_400 + 360.0
    assert not retired(seen, end + 10)
    recorded = Entry("serviceJwt-2", Outcome.ACTIVATED, "", NOW, 6, ("svc-2", "svc-1"), times=(("t0", NOW + 2),))
    assert retired(replace(seen, history=history.append((), recorded)), end + 10)


# --- what is told -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "phase"),
    [
        ({"triggers": (), "memory": Memory(peak=7, evidence={"svc-2": proof.Proof("svc-2", 1, ("a",), ()).evidence(0)})}, Phase.IDLE),
        ({"triggers": ()}, Phase.PROVE),
        ({"history": (), "memory": Memory(peak=7, evidence={"svc-2": proof.Proof("svc-2", 1, ("a",), ()).evidence(0)})}, Phase.ACTIVATE),
        ({"history": ()}, Phase.PROVE),
        ({"document": make_document("active")}, Phase.PUBLISH),
        ({"triggers": (Trigger(Verb.REVOKE, "serviceJwt", "x", ("svc-1",)),)}, Phase.REVOKE),
    ],
)  # fmt: skip
def test_the_phase_follows_from_what_is_there(changes: dict[str, Any], phase: Phase) -> None:
    assert report.report(make_seen(**changes), LATER).phase is phase


def test_what_cannot_be_done_is_told() -> None:
    unknown = Trigger(Verb.REVOKE, "serviceJwt", "x", ("svc-9",), reason="r")
    found = report.report(make_seen(triggers=(unknown,)), LATER)
    assert found.phase is not Phase.REVOKE
    assert any("svc-9 is not a trusted key" in text for _, text in found.warnings)


def test_a_ring_at_rest_is_looked_at_again_when_something_is_due() -> None:
    proven = Memory(peak=7, evidence={"svc-2": proof.Proof("svc-2", 1, ("a",), ()).evidence(0)})
    resting = make_seen(triggers=(), memory=proven)
    assert report.report(resting, LATER).look_again_s == PRODUCTION.idle_look_s
    soon = replace(resting, policy=RingPolicy(ttl_max_s=86_400, interval_s=1100.0, jitter=0.0))
    assert report.report(soon, LATER).look_again_s == pytest.approx(NOW + 1 + 1100 - LATER)


def test_the_longer_a_pod_is_in_the_way_the_less_often_all_are_asked_but_not_in_an_emergency() -> None:
    blocked = make_seen(canaries={}, memory=Memory(peak=7, asked={ROTATE.mark: LATER}))
    pauses = [report.report(blocked, LATER + age).look_again_s for age in (0, 119, 120, 599, 600)]
    assert pauses == [0.5, 0.5, 5, 5, 30]
    revoke = Trigger(Verb.REVOKE, "serviceJwt", "x", ("svc-1",), reason="r")
    assert report.report(replace(blocked, triggers=(revoke,)), LATER + 600).look_again_s == 0.5


def test_one_ring_at_a_time_and_emergencies_first() -> None:
    proven = Memory(peak=7, evidence={"svc-2": proof.Proof("svc-2", 1, ("a",), ()).evidence(0)})
    resting, underway = make_seen(memory=proven, triggers=()), make_seen(memory=Memory(peak=7), triggers=())
    urgent = make_seen(triggers=(Trigger(Verb.REVOKE, "userJwt", "x", ("svc-1",)),))
    found = machine.in_turn({"serviceJwt": underway, "userJwt": resting})
    assert (found["serviceJwt"].busy_ring, found["userJwt"].busy_ring) == ("", "serviceJwt")
    found = machine.in_turn({"serviceJwt": underway, "userJwt": urgent})
    assert (found["serviceJwt"].busy_ring, found["userJwt"].busy_ring) == ("userJwt", "")
    found = machine.in_turn({"serviceJwt": resting, "userJwt": resting})
    assert (found["serviceJwt"].busy_ring, found["userJwt"].busy_ring) == ("", "")


# --- asking before writing --------------------------------------------------------------------------------------------


def test_a_document_below_what_pods_have_shown_is_read_live_before_it_is_repaired() -> None:
    ahead = make_document("active", "pending")
    pods = (make_pod("auth-billing-1", ahead, report={"generation": 9}),)
    seen = make_seen(document=ahead, pods=pods)
    assert machine.plan(seen, LATER) == [ReadLive()]
    assert machine.plan(replace(seen, live=True), LATER) == [Rescue()]
    live = replace(seen, live=True, rescued=(replace(ahead, generation=9), ahead))
    [action] = machine.plan(live, LATER)
    assert isinstance(action, WriteDocument)
    assert (action.step, action.document.generation) == (Step.REPAIR, 10)


@pytest.mark.invariant("ROT-4")
def test_a_generation_that_a_pod_claims_without_a_signature_moves_nothing() -> None:
    document = make_document("active", "pending")
    liar = make_pod("memory-1", document, report={"generation": 1_000_000})
    pods = (make_pod("auth-billing-1", document), liar)
    seen = make_seen(document=document, pods=pods, canaries={"svc-2": canaries(pods)}, live=True, rescued=(document,))
    assert proof.remember(seen, LATER).peak == document.generation
    [action] = machine.plan(seen, LATER)
    assert isinstance(action, WriteDocument)
    assert (action.step, action.document.generation) == (Step.SWITCH, document.generation + 1)


def test_nothing_is_minted_on_what_a_cache_says() -> None:
    seen = make_seen(document=make_document("active"), triggers=())
    assert machine.plan(seen, LATER)[-1] == ReadLive()
    assert machine.plan(replace(seen, live=True), LATER)[-1].step is Step.MINT  # type: ignore[union-attr]


def test_pods_that_are_behind_are_told_signers_first() -> None:
    document = make_document("active", "pending")
    pods = (
        make_pod("memory-1", document, report={"generation": 6}),
        make_pod("auth-billing-1", document, report={"generation": 6}),
        make_pod("gateway-1", document),
    )
    found = machine.plan(make_seen(pods=pods, triggers=()), LATER)
    assert found[0] == Push(("uid-auth-billing-1",), ("uid-memory-1",))
    assert Prove("svc-2") in found


@pytest.mark.invariant("EMERG-3")
@pytest.mark.parametrize("answer", [PASSED, "kid_unknown", "kid_retired", "token_invalid"])
def test_only_a_refusal_by_its_name_proves_that_a_key_is_revoked(answer: str) -> None:
    document = make_document("active", "pending")
    seen = make_seen(document=document)
    answers = {(OPERATOR, pod.uid): KID_REVOKED for pod in seen.pods}
    gone = tuple(
        replace(pod, report=replace(pod.report, kids=frozenset())) for pod in seen.pods if pod.report is not None
    )
    seen = replace(seen, pods=gone, canaries={"svc-1": answers})
    assert proof.refusal(seen, "svc-1", LATER).complete
    answers = answers | {(OPERATOR, "uid-memory-1"): answer}
    refusal = proof.refusal(replace(seen, canaries={"svc-1": answers}), "svc-1", LATER)
    assert [str(item) for item in refusal.stragglers] == [
        f"memory-1 answered {answer} to a canary, expected kid_revoked"
    ]


def test_a_pod_that_is_starting_is_not_fenced_and_one_that_may_come_back_is() -> None:
    before = make_document("active", "pending")
    document = rings.revoke(before, ["svc-1"], now=NOW, until=NOW + 86_460, trigger="revoke/x")
    at = float(NOW + 60)
    pods = (
        make_pod("auth-billing-1", document),
        make_pod("memory-1", None, created_at=at - 50, endpoint=False),  # made after the revocation, not Ready yet
        make_pod("memory-2", None, created_at=NOW - 50.0, endpoint=False),  # stopped: it may go on as it was
        make_pod("memory-3", None, created_at=at - 5),
    )
    seen = make_seen(document=document, pods=pods, triggers=(), halves=())
    assert [item for item in machine.plan(seen, at) if isinstance(item, FencePod)] == [
        FencePod(Step.UNLABEL, "memory-2", "uid-memory-2", "does not answer")
    ]


@pytest.mark.invariant("EMERG-2")
def test_a_standby_that_was_not_proven_does_not_take_over() -> None:
    revoke = Trigger(Verb.REVOKE, "serviceJwt", "x", ("svc-1",), reason="r")
    seen = make_seen(triggers=(revoke,), canaries={}, memory=Memory(peak=7))
    assert machine.plan(seen, LATER)[-1] == Prove("svc-2")
    asked = replace(seen, live=True, canaries={"svc-2": canaries(seen.pods, {"memory-1": "kid_unknown"})})
    mint = machine.plan(asked, LATER)[-1]
    assert mint.step is Step.MINT  # type: ignore[union-attr]
    fresh = replace(asked, halves=(*asked.halves, make_half(3, why="revoke/x")))
    write = machine.plan(fresh, LATER)[-1]
    assert isinstance(write, WriteDocument)
    assert [(key.kid, key.state) for key in write.document.keys] == [("svc-3", "active")]
    stray = replace(asked, halves=(*asked.halves, make_half(3)))  # not minted for this trigger: exposed too
    assert machine.plan(stray, LATER)[-1].n == 4  # type: ignore[union-attr]


def test_users_are_given_the_life_of_a_token_to_renew_before_their_key_is_revoked() -> None:
    document = replace(make_document("retiring", "active", "pending"), ring="userJwt", ttl_max=900)
    drain = Trigger(Verb.REVOKE, "userJwt", "x", ("svc-1",), Mode.DRAIN, "r")
    begin = float(NOW + 2)
    memory = Memory(peak=7, asked={drain.mark: begin})
    seen = make_seen(ring="userJwt", document=document, triggers=(drain,), memory=memory)

    def revokes(at: float, ring: str) -> bool:
        found = machine.plan(replace(seen, ring=ring), at)
        return any(isinstance(item, WriteDocument) and item.step is Step.REVOKE for item in found)

    assert not revokes(begin + 959, "userJwt")
    assert revokes(begin + 960, "userJwt")
    assert revokes(begin + 10, "serviceJwt")  # services are told, and are given ten seconds


def test_a_drain_does_not_take_over_a_standby_that_a_silent_pod_lacks() -> None:
    document = make_document("active", "pending")
    pods = (make_pod("auth-billing-1", document), make_pod("memory-1", None))
    drain = Trigger(Verb.REVOKE, "serviceJwt", "x", ("svc-1",), Mode.DRAIN, "r")
    asked = Memory(peak=7, asked={drain.mark: LATER})
    seen = make_seen(pods=pods, triggers=(drain,), canaries={"svc-2": canaries(pods[:1])}, memory=asked)

    def step(at: float, trigger: Trigger) -> Step | None:
        found = machine.plan(replace(seen, triggers=(trigger,)), at)
        return next((item.step for item in found if isinstance(item, WriteDocument)), None)

    assert step(LATER + 9, drain) is None
    assert step(LATER + 10, drain) is Step.REVOKE  # its patience is over: one generation, as if immediate
    assert step(LATER, replace(drain, mode=Mode.IMMEDIATE)) is Step.REVOKE


# --- times ------------------------------------------------------------------------------------------------------------


def test_every_time_is_shorter_in_the_test_profile_and_scales() -> None:
    for item in fields(PRODUCTION):
        assert 0 < getattr(TEST, item.name) < getattr(PRODUCTION, item.name), item.name
        assert getattr(PRODUCTION.scaled(0.5), item.name) == getattr(PRODUCTION, item.name) / 2, item.name
    assert (TEST.service_ttl_s, TEST.hold_s, TEST.clock_margin_s) == (10, 0.5, 1)
    assert PRODUCTION.overlap_margin_s == 360
