"""The constitution in force: loaded, verified, compiled, applied; versions proposed and activated by two people.

Invariants: NOBLE-1 a policy whose signature or hash does not hold is never used: the last good one stays. NOBLE-2 every
decision names the version it was made by. NOBLE-3 each refusal is in the audit log before it is answered, while
Postgres is there.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from pydantic import ValidationError

from novacore.common import context
from novacore.common.clock import Clock
from novacore.common.errors import ServiceError, conflict, forbidden, not_found, unavailable
from novacore.common.log import get_logger, user_hash
from novacore.common.metrics import Metrics
from novacore.noble_spirit import audit, repository, scoring
from novacore.noble_spirit.audit import Entry
from novacore.noble_spirit.document import ZERO_HASH, PolicyDocument, canonical, content_hash, first_policy
from novacore.noble_spirit.matcher import Matcher
from novacore.noble_spirit.repository import StoredPolicy
from novacore.noble_spirit.scoring import Alignment, Decision, Reading
from novacore.noble_spirit.settings import PolicySettings
from novacore.noble_spirit.signing import NoPolicyKeyError, PolicyKeys

if TYPE_CHECKING:
    from novacore.common.database import Connection, Database

log = get_logger()

INLINE_CHARACTERS = 8_000
"""Longer texts are matched in a thread: 4 kB take about a millisecond."""
BACKLOG_MAX = 10_000
FIRST_NAME = "constitution"
FIRST_DESCRIPTION = "The constitution every installation starts with."


@dataclass(frozen=True, slots=True)
class Policy:
    """A verified policy, ready to apply. Replaced as a whole."""

    stored: StoredPolicy
    document: PolicyDocument = field(repr=False)
    matcher: Matcher = field(repr=False)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was decided about a text, and by which version."""

    reading: Reading
    decision: Decision
    version: int


class NobleSpirit:
    """The service."""

    def __init__(
        self,
        *,
        db: Database,
        keys: PolicyKeys,
        settings: PolicySettings,
        clock: Clock,
        metrics: Metrics,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._db = db
        self._keys = keys
        self._settings = settings
        self._clock = clock
        self._chance = chance
        self._policy: Policy | None = None
        self._refused: tuple[int, bytes] | None = None  # the version last refused: counted once, not at every poll
        self._backlog: deque[Entry] = deque(maxlen=BACKLOG_MAX)
        self._verified: tuple[int, bytes] = (0, ZERO_HASH)
        self._seconds = metrics.histogram("novacore_policy_evaluation_seconds")
        self._decisions = metrics.counter("novacore_policy_decisions_total")
        self._scores = metrics.histogram("novacore_alignment_score")
        self._version = metrics.gauge("novacore_policy_version")
        self._bad_signatures = metrics.counter("novacore_policy_signature_failures_total")
        self._chain_broken = metrics.gauge("novacore_policy_audit_chain_broken")

    @property
    def ready(self) -> bool:
        """Whether a verified policy is in force."""
        return self._policy is not None

    @property
    def policy(self) -> Policy:
        """The policy in force. ServiceError 503 before the first: nothing is decided without one."""
        if self._policy is None:
            raise unavailable("not_ready", "No policy is in force yet.")
        return self._policy

    async def validate(self, content: str, *, direction: str, user_id: UUID | None) -> Verdict:
        """Return the decision on a text; a refusal is written down first."""
        policy = self.policy
        reading = await self._read(policy, content)
        verdict = Verdict(reading, reading.decision(strict=self._settings.strict), policy.stored.version)
        self._decisions.labels(direction, verdict.decision).inc()
        failed = verdict.decision == "block"
        if failed or self._chance() < self._settings.audit_sample:
            details = {
                "direction": direction,
                "decision": verdict.decision,
                "rules": [rule.id for rule in (*reading.violations, *reading.warnings)],
                "characters": len(content),
            }
            entry = self._entry(
                "validation_failed" if failed else "validation_passed", details, policy=policy, user_id=user_id
            )
            await self._write(entry, at_once=failed)
        return verdict

    async def align(self, given: str, answered: str, assessed: str | None) -> tuple[Alignment, int]:
        """Return how far an exchange keeps the principles, and the version that says so."""
        policy = self.policy
        thresholds = policy.document.thresholds
        readings = [await self._read(policy, text) for text in (given, answered, assessed or "")]
        alignment = scoring.align(readings[0], readings[1], readings[2], thresholds)
        self._scores.observe(alignment.score)
        return alignment, policy.stored.version

    async def propose(self, document: PolicyDocument, *, name: str, description: str, by: UUID) -> StoredPolicy:
        """Store and sign a new version that is not in force."""
        await asyncio.to_thread(Matcher, document)  # a policy that cannot be compiled is not stored
        async with self._db.transaction() as conn:
            stored = await self._store(conn, document, name=name, description=description, by=by)
            await repository.append(
                conn, [self._entry("policy_created", {"version": stored.version}, policy_id=stored.id, user_id=by)]
            )
        return stored

    async def activate(self, version: int, *, by: UUID) -> StoredPolicy:
        """Put a version in force. 404; 403 for the one who proposed it; 409 when its signature does not hold."""
        async with self._db.transaction() as conn:
            await repository.lock(conn, "versions")
            stored = await repository.policy_of(conn, version)
            if stored is None:
                raise not_found()
            own = stored.proposed_by == by
            sound = self._signature_holds(stored)
            if own:
                await repository.append(
                    conn, [self._entry("override_attempted", {"version": version}, policy_id=stored.id, user_id=by)]
                )
            elif sound:
                await repository.activate(conn, version, by=by, now=self._clock.now())
                await repository.append(
                    conn, [self._entry("policy_updated", {"version": version}, policy_id=stored.id, user_id=by)]
                )
        if own:
            raise forbidden("role_required", "The administrator who proposed a version may not activate it.")
        if not sound:
            self._bad_signatures.inc()
            raise conflict("conflict", "The signature of this version does not hold.")
        await self.refresh()
        return stored

    async def roll_back(self, to: int, *, by: UUID) -> StoredPolicy:
        """Propose and activate a new version with the content of an old one that was in force before. 404, 409."""
        async with self._db.transaction() as conn:
            old = await repository.policy_of(conn, to)
            if old is None:
                raise not_found()
            if old.activated_at is None or not self._signature_holds(old):
                raise conflict("conflict", "Only a version that was in force, with a sound signature, can come back.")
            document = PolicyDocument.model_validate(old.content)
            stored = await self._store(conn, document, name=old.policy_name, description=f"rollback to {to}", by=by)
            await repository.activate(conn, stored.version, by=by, now=self._clock.now())
            details = {"version": stored.version, "rollback_to": to}
            await repository.append(conn, [self._entry("policy_updated", details, policy_id=stored.id, user_id=by)])
        await self.refresh()
        return stored

    async def versions(self, *, limit: int, offset: int) -> tuple[list[StoredPolicy], int]:
        """Return versions, newest first, and how many there are."""
        async with self._db.connection() as conn:
            return await repository.versions(conn, limit=limit, offset=offset)

    async def audit_page(self, *, limit: int, offset: int) -> tuple[list[Any], int]:
        """Return audit rows, newest first, and how many there are."""
        async with self._db.connection() as conn:
            return await repository.audit_page(conn, limit=limit, offset=offset)

    async def ensure_first(self) -> None:
        """Store, sign and activate policy 1 when there is no policy at all. Any replica; only one does it."""
        async with self._db.transaction() as conn:
            await repository.lock(conn, "versions")
            if (await repository.last_version(conn))[0] > 0:
                return
            stored = await self._store(conn, first_policy(), name=FIRST_NAME, description=FIRST_DESCRIPTION, by=None)
            await repository.activate(conn, stored.version, by=None, now=self._clock.now())
            await repository.append(
                conn, [self._entry("policy_created", {"version": stored.version}, policy_id=stored.id)]
            )
        log.info("first_policy_stored", version=stored.version, kid=stored.kid)

    async def refresh(self) -> bool:
        """Take up the active version if it is another than the one in use; return whether a sound one is in use."""
        async with self._db.connection() as conn:
            active = await repository.active_version(conn)
            held = self._policy.stored if self._policy else None
            if active is None or (held is not None and (held.version, held.content_hash) == active):
                return self.ready
            stored = await repository.active_policy(conn)
        if stored is None or not self._acceptable(stored):
            return self.ready
        try:
            document = PolicyDocument.model_validate(stored.content)
        except ValidationError:
            self._refuse(stored, "the content is no policy")
            return self.ready
        matcher = await asyncio.to_thread(Matcher, document)
        self._policy = Policy(stored, document, matcher)
        self._refused = None
        self._version.set(stored.version)
        log.info("policy_in_force", version=stored.version, kid=stored.kid)
        return True

    async def flush(self) -> int:
        """Write the audit rows that are waiting; return how many."""
        waiting = list(self._backlog)
        if waiting:
            async with self._db.transaction() as conn:
                await repository.append(conn, waiting)
            for _ in waiting:
                self._backlog.popleft()
        return len(waiting)

    async def verify_audit(self, *, page: int = 1000) -> int | None:
        """Verify the chain from where the last look ended; return the first broken row's number, or None."""
        while True:
            async with self._db.connection() as conn:
                rows = await repository.audit_after(conn, self._verified[0], limit=page)
            broken = audit.first_break(rows, after_seq=self._verified[0], after_hash=self._verified[1])
            if broken is not None:
                self._chain_broken.set(1)
                log.error("audit_chain_broken", seq=broken)
                return broken
            if rows:
                self._verified = (rows[-1].seq, rows[-1].hash)
            if len(rows) < page:
                return None

    def forget_verified(self) -> None:
        """Let the next look begin at the first row."""
        self._verified = (0, ZERO_HASH)

    async def _read(self, policy: Policy, content: str) -> Reading:
        with self._seconds.time():
            if len(content) > INLINE_CHARACTERS:
                broken = await asyncio.to_thread(policy.matcher.find, content)
            else:
                broken = policy.matcher.find(content) if content else []
        return scoring.read(broken, policy.document.thresholds)

    async def _store(
        self, conn: Connection, document: PolicyDocument, *, name: str, description: str, by: UUID | None
    ) -> StoredPolicy:
        await repository.lock(conn, "versions")
        last, prev_hash = await repository.last_version(conn)
        version, content = last + 1, document.content()
        message = canonical(version=version, content=content, prev_hash=prev_hash)
        try:
            kid, signature = self._keys.sign(message)
        except NoPolicyKeyError:
            raise unavailable("not_ready", "The policy key is not here yet.") from None
        await repository.add_policy(
            conn,
            version=version,
            policy_name=name,
            description=description,
            content=content,
            content_hash=content_hash(version=version, content=content, prev_hash=prev_hash),
            prev_hash=prev_hash,
            kid=kid,
            signature=signature,
            proposed_by=by,
        )
        stored = await repository.policy_of(conn, version)
        assert stored is not None
        return stored

    def _signature_holds(self, stored: StoredPolicy) -> bool:
        message = canonical(version=stored.version, content=stored.content, prev_hash=stored.prev_hash)
        digest = content_hash(version=stored.version, content=stored.content, prev_hash=stored.prev_hash)
        return digest == stored.content_hash and self._keys.verifies(
            kid=stored.kid, signature=stored.signature, message=message
        )

    def _acceptable(self, stored: StoredPolicy) -> bool:
        if self._signature_holds(stored):
            return True
        self._refuse(stored, "the signature does not hold")
        return False

    def _refuse(self, stored: StoredPolicy, why: str) -> None:
        if self._refused != (stored.version, stored.signature):
            self._refused = (stored.version, stored.signature)
            self._bad_signatures.inc()
        log.error("policy_refused", version=stored.version, kid=stored.kid, reason=why)

    def _entry(
        self,
        action: audit.Action,
        details: dict[str, Any],
        *,
        policy: Policy | None = None,
        policy_id: UUID | None = None,
        user_id: UUID | None = None,
    ) -> Entry:
        person = {"user": user_hash(user_id)} if user_id else {}
        trail = context.current()
        caller = {"caller": trail.caller} if trail and trail.caller else {}
        return Entry(
            action=action,
            context={**details, **person, **caller, "request_id": context.request_id()},
            at=self._now(),
            policy_id=policy.stored.id if policy else policy_id,
            user_id=user_id,
        )

    def _now(self) -> datetime:
        return self._clock.now()

    async def _write(self, entry: Entry, *, at_once: bool) -> None:
        """A refusal stands whether or not it can be written down now; then it waits in memory for Postgres."""
        if not at_once:
            self._backlog.append(entry)
            return
        try:
            async with self._db.transaction() as conn:
                await repository.append(conn, [entry])
        except ServiceError as error:
            log.error("audit_postponed", reason=error.code)
            self._backlog.append(entry)
