"""What ngs-curriculum does: shows the curriculum with its locks, grades what comes in, pays for it once.

Transactions: one per request; a request that earns holds the learner's progress row (`earning.open_ledger`), so two of
them for one learner follow each other. Nothing leaves the process while a connection is held.
"""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from datetime import timedelta
from typing import Any
from uuid import UUID

from novacore.common.app import Platform
from novacore.common.callers import Caller, User
from novacore.common.database import Connection, Database
from novacore.common.errors import ServiceError, conflict, forbidden, not_found, policy_blocked, rate_limited
from novacore.common.idempotency import Idempotency
from novacore.common.ids import uuid7
from novacore.common.log import get_logger
from novacore.common.peers import PeerError
from novacore.common.redis import Redis
from novacore.ngs_curriculum import checks, gates, quiz, repository, rules
from novacore.ngs_curriculum.earning import SCHEMA, Earned, Ledger, day_start, open_ledger
from novacore.ngs_curriculum.leaderboard import Leaderboard
from novacore.ngs_curriculum.quiz import Question
from novacore.ngs_curriculum.repository import Challenge, HandleTakenError, Lesson, Level, Progress, UnknownUserError
from novacore.ngs_curriculum.schemas import (
    AchievementRead,
    AwardCreate,
    AwardResult,
    ChallengeListed,
    ChallengeRead,
    LeaderRead,
    LessonComplete,
    LessonListed,
    LessonRead,
    LessonResult,
    LevelInfo,
    LevelRead,
    ProgressRead,
    ReflectionCreate,
    ReflectionRead,
    ReflectionResult,
    SubmissionCreate,
    SubmissionRead,
    SubmissionResult,
    VisibilityRead,
    VisibilityUpdate,
)
from novacore.ngs_curriculum.settings import NgsSettings

log = get_logger()

POLICY_TIMEOUT_S = 0.15
EARLIER_REFLECTIONS = 50
"""With how many of one's own earlier texts a reflection is compared."""

Answer = tuple[int, dict[str, Any]]


class NgsService:
    """The use cases. One object per process."""

    def __init__(self, platform: Platform[NgsSettings], *, db: Database, cache: Redis) -> None:
        self._platform = platform
        self._db = db
        self._settings = platform.settings
        self._caps = platform.settings.ngs.daily_caps.as_rules()
        self._leaderboard = Leaderboard(db=db, cache=cache, metrics=platform.metrics)
        self._idempotency = Idempotency(SCHEMA)
        self._lessons = platform.metrics.counter("novacore_lessons_completed_total")
        self._xp = platform.metrics.counter("novacore_xp_awarded_total")
        self._submissions = platform.metrics.counter("novacore_challenge_submissions_total")

    # Reading

    async def progress(self, user: User) -> ProgressRead:
        """Return where the learner stands; the row is made on first use."""
        async with self._db.transaction(user.id) as conn:
            progress = await self._ensure(conn, user.id)
            return _progress_read(progress, await repository.levels(conn))

    async def levels(self, user: User) -> list[LevelRead]:
        """Return the 24 levels with their locks."""
        async with self._db.transaction(user.id) as conn:
            learner = await self._learner(conn, user)
            return [_level_read(level, learner) for level in await repository.levels(conn)]

    async def level(self, user: User, number: int) -> LevelRead:
        """Return one level. 404 outside 1..24."""
        found = [level for level in await self.levels(user) if level.level_number == number]
        if not found:
            raise not_found("There is no such level.")
        return found[0]

    async def lessons(self, user: User, level: int) -> list[LessonListed]:
        """Return the lessons of a level."""
        async with self._db.transaction(user.id) as conn:
            learner = await self._learner(conn, user)
            return [LessonListed(**_lesson(one, learner)) for one in await repository.lessons_of(conn, user.id, level)]

    async def lesson(self, user: User, lesson_id: UUID) -> LessonRead:
        """Return a whole lesson without answers. 404, or 403 when it is locked."""
        async with self._db.transaction(user.id) as conn:
            learner = await self._learner(conn, user)
            lesson = await self._open_lesson(conn, user, learner, lesson_id)
        return LessonRead(
            **_lesson(lesson, learner),
            core_lesson=lesson.core_lesson,
            human_practice=lesson.human_practice,
            reflection_prompt=lesson.reflection_prompt,
            agent_unlock=lesson.agent_unlock,
            content_markdown=lesson.content_markdown,
            quiz=quiz.view(_questions(lesson)),
            prerequisites=lesson.prerequisites,
        )

    async def challenges(self, user: User, level: int) -> list[ChallengeListed]:
        """Return the challenges of a level."""
        async with self._db.transaction(user.id) as conn:
            learner = await self._learner(conn, user)
            found = await repository.challenges_of(conn, user.id, level)
            return [ChallengeListed(**_challenge(one, learner)) for one in found]

    async def challenge(self, user: User, challenge_id: UUID) -> ChallengeRead:
        """Return a whole challenge without solution and hidden checks. 404, or 403 when it is locked."""
        async with self._db.transaction(user.id) as conn:
            learner = await self._learner(conn, user)
            challenge = await self._open_challenge(conn, user, learner, challenge_id)
        return ChallengeRead(
            **_challenge(challenge, learner),
            description=challenge.description,
            starter_code=challenge.starter_code,
            checks=[one.message for one in checks.load(challenge.test_cases) if not one.hidden],
            best_score=challenge.best_score,
        )

    async def submissions(self, user: User, *, limit: int, offset: int) -> list[SubmissionRead]:
        """Return one's own submissions, newest first."""
        async with self._db.transaction(user.id, readonly=True) as conn:
            found = await repository.submissions(conn, user.id, limit=limit, offset=offset)
        return [SubmissionRead(**asdict(one)) for one in found]

    async def reflections(self, user: User, *, limit: int, offset: int) -> list[ReflectionRead]:
        """Return one's own reflections, newest first."""
        async with self._db.transaction(user.id, readonly=True) as conn:
            found = await repository.reflections(conn, user.id, limit=limit, offset=offset)
        return [ReflectionRead(**asdict(one)) for one in found]

    async def achievements(self, user: User) -> list[AchievementRead]:
        """Return one's own achievements, newest first."""
        async with self._db.transaction(user.id, readonly=True) as conn:
            found = await repository.achievements(conn, user.id)
        return [AchievementRead(**asdict(one)) for one in found]

    async def leaderboard(self, limit: int) -> list[LeaderRead]:
        """Return the first rows of those who want to be seen."""
        return [LeaderRead(**row) for row in await self._leaderboard.top(limit)]

    # Writing

    async def register(self, user_id: UUID) -> None:
        """Make the progress row of a new user. A user who is gone again by now is no error."""
        async with self._db.transaction(user_id) as conn:
            try:
                await repository.ensure_progress(conn, user_id)
            except UnknownUserError:
                log.info("registered_user_is_gone")

    async def complete_lesson(
        self, user: User, lesson_id: UUID, body: LessonComplete, *, key: str | None, raw: bytes
    ) -> Answer:
        """Grade a lesson and pay for it once. 201 when it is completed now, 200 when it was before or is not yet."""
        done: list[tuple[Lesson, Earned]] = []

        async def produce(conn: Connection) -> Answer:
            ledger = await self._ledger(conn, user.id)
            learner = await self._learner(conn, user, ledger.earned.progress)
            lesson = await self._open_lesson(conn, user, learner, lesson_id)
            if lesson.completed:
                score = await repository.completion_score(conn, user.id, lesson.id)
                return 200, await self._lesson_result(conn, ledger, completed=True, score=score)
            score = await self._graded(conn, user.id, lesson, body)
            earned = rules.lesson_award(score, lesson.xp_reward)
            if earned is None:
                left = await self._failed_try(conn, user.id, lesson, score or 0)
                return 200, await self._lesson_result(conn, ledger, completed=False, score=score, attempts_left=left)
            await repository.add_completion(
                conn, user.id, lesson_id=lesson.id, score=score, time_spent_seconds=body.time_spent_seconds,
                reflection_text=body.reflection_text, data={"metadata": body.metadata or {}},
                at=self._platform.clock.now(),
            )  # fmt: skip
            source, xp = earned
            await ledger.award(source, str(lesson.id), xp, {"level": lesson.level_number, "score": score})
            await ledger.streak()
            done.append((lesson, ledger.earned))
            return 201, await self._lesson_result(conn, ledger, completed=True, score=score)

        answer = await self._once(user.id, f"lesson:{lesson_id}", key, raw, produce)
        for lesson, earned in done:
            self._lessons.labels(str(lesson.level_number)).inc()
            await self._committed(earned)
        return answer

    async def reflect(
        self, caller: Caller, user: User, body: ReflectionCreate, *, key: str | None, raw: bytes
    ) -> Answer:
        """Store a reflection, judge it, pay for it: once per prompt and day, three a day."""
        if body.is_public:
            await self._check_public_text(caller, body.reflection_text)
        done: list[Earned] = []

        async def produce(conn: Connection) -> Answer:
            ledger = await self._ledger(conn, user.id)
            learner = await self._learner(conn, user, ledger.earned.progress)
            _refuse_locked(gates.lock_reason(learner, body.level_number))
            if body.lesson_id is not None:
                lesson = await repository.lesson(conn, user.id, body.lesson_id)
                if lesson is None or lesson.level_number != body.level_number:
                    raise not_found("There is no such lesson in this level.")
            now = self._platform.clock.now()
            earlier = await repository.reflection_texts(conn, user.id, limit=EARLIER_REFLECTIONS)
            quality = rules.reflection_quality(body.reflection_text, earlier)
            source, xp = rules.reflection_award(quality)
            paid = await repository.paid_reflection_prompts(conn, user.id, since=day_start(now))
            same_prompt = _normal(body.reflection_prompt) in map(_normal, paid)
            reflection_id = uuid7()
            awarded = 0
            if xp and not same_prompt and len(paid) < rules.REFLECTIONS_PAID_PER_DAY:
                awarded = await ledger.award(source, f"reflection:{reflection_id}", xp, {"level": body.level_number})
                await ledger.streak()
            await repository.add_reflection(
                conn, user.id, reflection_id=reflection_id, lesson_id=body.lesson_id, level=body.level_number,
                prompt=body.reflection_prompt, text=body.reflection_text, quality=quality, xp=awarded,
                public=body.is_public, at=now,
            )  # fmt: skip
            done.append(ledger.earned)
            result = ReflectionResult(id=reflection_id, quality_score=quality, xp_awarded=awarded)
            return 201, result.model_dump(mode="json")

        answer = await self._once(user.id, "reflection", key, raw, produce)
        for earned in done:
            await self._committed(earned)
        return answer

    async def submit(
        self, user: User, challenge_id: UUID, body: SubmissionCreate, *, key: str | None, raw: bytes
    ) -> Answer:
        """Grade a challenge's solution; a better one pays the difference to the best before."""
        async with self._db.transaction(user.id) as conn:
            learner = await self._learner(conn, user)
            task = await self._open_challenge(conn, user, learner, challenge_id)
        # Outside of any transaction and in a thread: 50 000 characters take some milliseconds.
        grade = await asyncio.to_thread(checks.grade, checks.load(task.test_cases), body.submission_code)
        done: list[Earned] = []

        async def produce(conn: Connection) -> Answer:
            ledger = await self._ledger(conn, user.id)
            learner = await self._learner(conn, user, ledger.earned.progress)
            challenge = await self._open_challenge(conn, user, learner, challenge_id)
            before = rules.challenge_share(challenge.best_score or 0)
            xp = rules.challenge_award(grade.score, before, challenge.xp_reward)
            submission_id = await repository.add_submission(
                conn, user.id, challenge_id=challenge.id, code=body.submission_code,
                results=[asdict(result) for result in grade.results], passed=grade.passed, score=grade.score,
                feedback=grade.feedback, time_taken_seconds=body.time_taken_seconds, at=self._platform.clock.now(),
            )  # fmt: skip
            awarded = 0
            if xp:
                share = rules.challenge_share(grade.score)
                awarded = await ledger.award(
                    rules.Source.CHALLENGE_SOLVED, f"{challenge.id}:{share}", xp, {"score": grade.score}
                )
                await ledger.streak()
            done.append(ledger.earned)
            result = SubmissionResult(
                id=submission_id, passed=grade.passed, score=grade.score, feedback=grade.feedback, xp_awarded=awarded
            )
            return 201, result.model_dump(mode="json")

        answer = await self._once(user.id, f"challenge:{challenge_id}", key, raw, produce)
        for earned in done:
            self._submissions.labels(task.challenge_type, "passed" if grade.passed else "failed").inc()
            await self._committed(earned)
        return answer

    async def set_visibility(self, caller: Caller, user: User, body: VisibilityUpdate) -> VisibilityRead:
        """Show or hide the learner on the leaderboard. 409 when the handle is someone else's."""
        if body.handle is not None:
            await self._check_public_text(caller, body.handle)
        async with self._db.transaction(user.id) as conn:
            await self._ensure(conn, user.id)
            try:
                progress = await repository.set_visibility(conn, user.id, visible=body.visible, handle=body.handle)
            except HandleTakenError:
                raise conflict("conflict", "This handle is taken.") from None
        await self._leaderboard.forget()
        return VisibilityRead(visible=progress.leaderboard_visible, handle=progress.handle)

    async def award(self, body: AwardCreate) -> Answer:
        """Award what the table says for a source. 201, or 200 with 0 XP when it was awarded before or capped."""
        source = rules.known_source(body.source)
        metadata = (body.metadata or {}) | ({"source": body.source} if source is rules.Source.UNKNOWN else {})
        async with self._db.transaction(body.user_id) as conn:
            ledger = await self._ledger(conn, body.user_id)
            awarded = await ledger.award(source, body.source_id, rules.XP[source], metadata)
            result = AwardResult(
                source=source,
                xp_awarded=awarded,
                progress=_progress_read(ledger.earned.progress, await repository.levels(conn)),
                achievements=[AchievementRead(**asdict(one)) for one in ledger.earned.achievements],
            )
        await self._committed(ledger.earned)
        return (201 if awarded else 200), result.model_dump(mode="json")

    # Steps

    async def _once(self, user_id: UUID, route: str, key: str | None, raw: bytes, produce: Any) -> Answer:
        return await self._idempotency.run(self._db, user_id=user_id, route=route, key=key, body=raw, produce=produce)

    async def _committed(self, earned: Earned) -> None:
        """Count what was earned and let the leaderboard be read anew. Only after the commit."""
        for source, xp in earned.events:
            self._xp.labels(source).inc(xp)
        if earned.xp:
            await self._leaderboard.forget()

    async def _ensure(self, conn: Connection, user_id: UUID) -> Progress:
        try:
            return await repository.ensure_progress(conn, user_id)
        except UnknownUserError:
            raise not_found("There is no such user.") from None

    async def _ledger(self, conn: Connection, user_id: UUID) -> Ledger:
        try:
            return await open_ledger(
                conn,
                user_id,
                now=self._platform.clock.now(),
                caps=self._caps,
                agent_unlock_level=self._settings.ngs.agent_unlock_level,
            )
        except UnknownUserError:
            raise not_found("There is no such user.") from None

    async def _learner(self, conn: Connection, user: User, progress: Progress | None = None) -> gates.Learner:
        progress = progress or await self._ensure(conn, user.id)
        own = self._settings.tiers.of(user.tier).ngs_max_level
        return gates.Learner(
            current_level=progress.current_level,
            max_level=rules.LEVELS if user.role == "admin" else own,
            missing_required=await repository.missing_required(conn, user.id),
        )

    async def _open_lesson(self, conn: Connection, user: User, learner: gates.Learner, lesson_id: UUID) -> Lesson:
        lesson = await repository.lesson(conn, user.id, lesson_id)
        if lesson is None:
            raise not_found("There is no such lesson.")
        _refuse_locked(gates.lock_reason(learner, lesson.level_number))
        return lesson

    async def _open_challenge(
        self, conn: Connection, user: User, learner: gates.Learner, challenge_id: UUID
    ) -> Challenge:
        challenge = await repository.challenge(conn, user.id, challenge_id)
        if challenge is None:
            raise not_found("There is no such challenge.")
        _refuse_locked(gates.lock_reason(learner, challenge.level_number))
        return challenge

    async def _graded(self, conn: Connection, user_id: UUID, lesson: Lesson, body: LessonComplete) -> int | None:
        """Return the server's score, None for a lesson without a quiz. 422 without answers, 429 after three tries."""
        questions = _questions(lesson)
        if not questions:
            return None
        if not body.answers:
            raise ServiceError(422, "answers_missing", "This lesson has a quiz: send `answers`, question id to option.")
        now = self._platform.clock.now()
        used = await repository.count_attempts(conn, user_id, lesson.id, since=day_start(now))
        if used >= rules.LESSON_TRIES_PER_DAY:
            raise rate_limited((day_start(now) + timedelta(days=1) - now).total_seconds())
        return quiz.score(questions, body.answers)

    async def _failed_try(self, conn: Connection, user_id: UUID, lesson: Lesson, score: int) -> int:
        now = self._platform.clock.now()
        await repository.add_attempt(conn, user_id, lesson_id=lesson.id, score=score, at=now)
        used = await repository.count_attempts(conn, user_id, lesson.id, since=day_start(now))
        return max(0, rules.LESSON_TRIES_PER_DAY - used)

    async def _lesson_result(
        self, conn: Connection, ledger: Ledger, *, completed: bool, score: int | None, attempts_left: int | None = None
    ) -> dict[str, Any]:
        earned = ledger.earned
        result = LessonResult(
            completed=completed,
            xp_awarded=earned.xp,
            score=score,
            attempts_left=attempts_left,
            progress=_progress_read(earned.progress, await repository.levels(conn)),
            achievements=[AchievementRead(**asdict(one)) for one in earned.achievements],
        )
        return result.model_dump(mode="json")

    async def _check_public_text(self, caller: Caller, text: str) -> None:
        """Refuse a text that others would read and the policy blocks. Open when noble-spirit is silent: it is a
        learner's text, not a model's, and the curriculum goes on without it."""
        try:
            verdict = await self._platform.peers.call(
                "noble-spirit", "POST", "/policy/validate",
                json={"content": text, "direction": "input"}, caller=caller, timeout_s=POLICY_TIMEOUT_S,
            )  # fmt: skip
        except PeerError as error:
            log.warning("policy_unreachable", reason=error.code)
            return
        if isinstance(verdict, dict) and verdict.get("decision") == "block":
            raise policy_blocked("This text cannot be shown to others.")


def _refuse_locked(reason: gates.LockReason | None) -> None:
    if reason is not None:
        raise forbidden(reason, gates.SENTENCES[reason])


def _questions(lesson: Lesson) -> list[Question]:
    return [Question.model_validate(one) for one in lesson.quiz]


def _normal(prompt: str) -> str:
    """Return a prompt as it counts for "the same prompt": its words alone."""
    return " ".join(rules.words(prompt))


def _level_info(level: Level) -> LevelInfo:
    return LevelInfo(
        level_number=level.level_number,
        title=level.title,
        phase=level.phase,
        description=level.description,
        xp_required=level.xp_required,
    )


def _level_read(level: Level, learner: gates.Learner) -> LevelRead:
    reason = gates.lock_reason(learner, level.level_number)
    return LevelRead(
        **_level_info(level).model_dump(),
        unlock_requirements=level.unlock_requirements,
        locked=reason is not None,
        lock_reason=reason,
    )


def _progress_read(progress: Progress, levels: list[Level]) -> ProgressRead:
    standing = rules.standing(progress.total_xp)
    by_number = {level.level_number: level for level in levels}
    return ProgressRead(
        user_id=progress.user_id,
        current_level=standing.level,
        total_xp=progress.total_xp,
        agent_creation_unlocked=progress.agent_creation_unlocked,
        current_level_info=_level_info(by_number[standing.level]),
        next_level_info=_level_info(by_number[standing.next_level]) if standing.next_level else None,
        xp_to_next_level=standing.xp_to_next,
        progress_percent=standing.percent,
    )


def _lesson(lesson: Lesson, learner: gates.Learner) -> dict[str, Any]:
    """Return the fields of `LessonListed`."""
    reason = gates.lock_reason(learner, lesson.level_number)
    return {
        "id": lesson.id,
        "slug": lesson.slug,
        "level_number": lesson.level_number,
        "title": lesson.title,
        "description": lesson.description,
        "lesson_order": lesson.lesson_order,
        "lesson_type": lesson.lesson_type,
        "xp_reward": lesson.xp_reward,
        "estimated_minutes": lesson.estimated_minutes,
        "is_required": lesson.is_required,
        "completed": lesson.completed,
        "locked": reason is not None,
        "lock_reason": reason,
    }


def _challenge(challenge: Challenge, learner: gates.Learner) -> dict[str, Any]:
    """Return the fields of `ChallengeListed`."""
    reason = gates.lock_reason(learner, challenge.level_number)
    return {
        "id": challenge.id,
        "slug": challenge.slug,
        "level_number": challenge.level_number,
        "lesson_id": challenge.lesson_id,
        "title": challenge.title,
        "challenge_type": challenge.challenge_type,
        "difficulty": challenge.difficulty,
        "xp_reward": challenge.xp_reward,
        "time_limit_minutes": challenge.time_limit_minutes,
        "tags": challenge.tags,
        "completed": (challenge.best_score or 0) >= checks.PASS_SCORE,
        "locked": reason is not None,
        "lock_reason": reason,
    }
