"""Who has proven what: from the live list of pods, their claims and the answers to canaries.

Invariants: PROOF-1 a key is proven only if each live pod of each consumer holds the document and accepted a canary that
each signer made with it. PROOF-2 what a pod claims does not stand for what it does: an acknowledgement without a canary
proves nothing. PROOF-3 a proof is of one instant: `remember` begins to count anew as soon as one look lacks it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from novacore_contracts.keyset import RingDocument
from novacore_operator.rotation import rings
from novacore_operator.rotation.seen import (
    KID_REVOKED,
    NOTHING,
    OPERATOR,
    PASSED,
    Evidence,
    Memory,
    Pod,
    Seen,
)


@dataclass(frozen=True, slots=True)
class Straggler:
    """A pod that lacks a proof, and why. `uid` is empty for a pod that does not exist yet."""

    name: str
    uid: str
    cause: str

    def __str__(self) -> str:
        return f"{self.name} {self.cause}"


@dataclass(frozen=True, slots=True)
class Proof:
    """How far one key is."""

    kid: str
    total: int
    passed: tuple[str, ...]  # names of the pods
    stragglers: tuple[Straggler, ...]

    @property
    def complete(self) -> bool:
        """Whether every pod has proven it. No pods at all prove nothing."""
        return not self.stragglers and bool(self.passed)

    @property
    def share(self) -> str:
        """Return `26/27`."""
        return f"{len(self.passed)}/{self.total}"

    def evidence(self, at: float) -> Evidence:
        """Return what the history keeps of a proof."""
        named = "\n".join((self.kid, *sorted(self.passed)))
        return Evidence(self.kid, len(self.passed), self.total, hashlib.sha256(named.encode()).hexdigest(), at)


def of(
    seen: Seen,
    kid: str,
    *,
    answering: bool = False,
    without: frozenset[str] = frozenset(),
    any_generation: bool = False,
) -> Proof:
    """Return the proof of one key at this instant.

    `any_generation`: of a key that signs already; the document may have gone on since, and pods follow it in a moment.

    `answering`: leave out pods that give no answer at all, for emergencies: they are fenced. `without`: uids of
    stragglers that a person wants to be passed over.
    """
    answers = seen.canaries.get(kid, NOTHING)
    pods = [pod for pod in seen.consumers if pod.uid not in without and not (answering and _mute(pod))]
    signers = [pod for pod in pods if pod.signs]
    generation = seen.document.generation if seen.document is not None and not any_generation else 1
    passed, stragglers = [], []
    for pod in pods:
        cause = _cause(pod, kid, generation, signers, answers)
        if cause is None:
            passed.append(pod.name)
        else:
            stragglers.append(Straggler(pod.name, pod.uid, cause))
    if not signers:
        stragglers.append(Straggler("auth-billing", "", "has no pod that could sign"))
    lacking = seen.expected_pods - len(pods)
    if lacking > 0 and not answering and not without:
        stragglers.append(Straggler("pods", "", f"are {len(pods)}, expected {seen.expected_pods}"))
    return Proof(kid, len(pods), tuple(passed), tuple(stragglers))


def refusal(seen: Seen, kid: str, since: float) -> Proof:
    """Return the proof that a key, revoked at `since`, is refused by its name in each pod that takes requests.

    Where its private half is destroyed already no canary can be made, and the claims must do.
    """
    answers = seen.canaries.get(kid, NOTHING)
    canary = seen.half(kid) is not None
    passed, stragglers = [], []
    pods = seen.serving(since)
    for pod in pods:
        answer = answers.get((OPERATOR, pod.uid))
        if pod.report is None:
            cause = "does not answer" if pod.phase == "Running" else f"is {pod.phase}"
        elif kid in pod.report.kids or pod.report.generation < seen.good.generation:
            cause = f"holds generation {pod.report.generation}, expected {seen.good.generation}"
        elif canary and answer != KID_REVOKED:
            cause = f"answered {answer or 'nothing'} to a canary, expected {KID_REVOKED}"
        else:
            passed.append(pod.name)
            continue
        stragglers.append(Straggler(pod.name, pod.uid, cause))
    return Proof(kid, len(pods), tuple(passed), tuple(stragglers))


def skewed(seen: Seen, limit_s: float) -> tuple[Straggler, ...]:
    """Return the pods whose clock is off by more than `limit_s`."""
    return tuple(
        Straggler(
            pod.name, pod.uid, f"has a clock that is {pod.report.skew_s:+.0f} s off, expected within {limit_s:g} s"
        )
        for pod in seen.consumers
        if pod.report is not None and abs(pod.report.skew_s) > limit_s
    )


def watched_kid(seen: Seen) -> str | None:
    """Return the key whose proof is looked for now: the standby's."""
    standby = rings.pending(seen.document) if seen.document is not None else None
    return standby.kid if standby is not None else None


def remember(seen: Seen, now: float) -> Memory:
    """Return what is remembered after this look."""
    memory, document, kid = seen.memory, seen.document, watched_kid(seen)
    signed = [item for item in (memory.kept, document, *(seen.rescued or ())) if item is not None]
    kept = max(signed, key=lambda item: item.generation, default=None)  # what a pod merely claims is not among them
    peak = max(memory.peak, kept.generation if kept is not None else 0)
    evidence = _evidence(memory, seen, document, now) if document is not None else memory.evidence
    proven, missing = memory.proven, memory.missing
    if kid is None:
        proven, missing = None, NOTHING
    elif kid in seen.canaries:  # else nobody was asked, and nothing was learnt
        proof = of(seen, kid)
        if proof.complete:
            proven = proven if proven is not None and proven[0] == kid else (kid, now)
            missing, evidence = NOTHING, {**evidence, kid: proof.evidence(now)}
        else:
            proven = None
            missing = {item.uid: missing.get(item.uid, now) for item in proof.stragglers}
    asked = {trigger.mark: memory.asked.get(trigger.mark, now) for trigger in seen.triggers}
    return Memory(peak, kept, evidence, proven, missing, asked)


def _evidence(memory: Memory, seen: Seen, document: RingDocument, now: float) -> Mapping[str, Evidence]:
    """Forget keys that are gone. A switch that this process did not see is proven afterwards, by the signing key."""
    known = {key.kid for key in document.keys}
    kept = {kid: evidence for kid, evidence in memory.evidence.items() if kid in known}
    kid = document.active_kid
    if kid in seen.canaries and kid not in kept and (proof := of(seen, kid)).complete:
        kept[kid] = proof.evidence(now)
    return kept


def _mute(pod: Pod) -> bool:
    return pod.report is None


def _cause(
    pod: Pod, kid: str, generation: int, signers: list[Pod], answers: Mapping[tuple[str, str], str]
) -> str | None:
    """Return what a pod lacks, the first in the order in which a person would look; None: nothing."""
    report = pod.report
    if pod.phase != "Running":
        return f"is {pod.phase}"
    if report is None:
        return "does not answer"
    if report.generation < generation or kid not in report.kids:
        return f"holds generation {report.generation}, expected {generation}"
    if pod.signs and kid not in report.signer_kids:
        return "has not got the private half yet"
    for signer in signers:
        if signer.report is None or kid not in signer.report.signer_kids:
            continue  # it is the one that lacks something, and is named itself
        answer = answers.get((signer.uid, pod.uid))
        if answer != PASSED:
            return f"answered {answer or 'nothing'} to a canary of {signer.name}"
    return None
