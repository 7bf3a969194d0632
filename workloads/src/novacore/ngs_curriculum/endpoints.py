"""Routes of ngs-curriculum."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from pydantic import TypeAdapter
from starlette.responses import JSONResponse

from novacore.common.app import service_of
from novacore.common.callers import Caller, Rule, User, public, user_route
from novacore.ngs_curriculum.rules import LEVELS
from novacore.ngs_curriculum.schemas import (
    AboutRead,
    AchievementRead,
    AwardCreate,
    AwardResult,
    ChallengeListed,
    ChallengeRead,
    LeaderRead,
    LessonComplete,
    LessonCompleteByBody,
    LessonListed,
    LessonRead,
    LessonResult,
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
from novacore.ngs_curriculum.service import NgsService


class Awarder(Rule):
    """An admin through the gateway, or a service that holds `ngs:award` itself (today none does)."""

    def __init__(self) -> None:
        super().__init__("user", role="admin")
        self._service = Rule("service", ["ngs:award"])

    async def __call__(self, request: Request) -> Caller:
        """Return the caller: by user token when one came, else by service token."""
        if request.headers.get("authorization") is None:
            return await self._service(request)
        return await super().__call__(request)


router = APIRouter()

Ngs = Annotated[NgsService, Depends(service_of(NgsService))]
Learner = Annotated[Caller, user_route()]
Reader = Annotated[Caller, user_route("ngs:read")]
LevelPath = Annotated[int, Path(ge=1, le=LEVELS)]
Limit20 = Annotated[int, Query(ge=1, le=100)]
Offset = Annotated[int, Query(ge=0, le=10_000)]
IdempotencyKey = Annotated[str | None, Header(alias="Idempotency-Key")]
IfNoneMatch = Annotated[str | None, Header(alias="If-None-Match")]

_LEVELS: TypeAdapter[list[LevelRead]] = TypeAdapter(list[LevelRead])


@router.get("/", response_model=AboutRead, dependencies=[public()])
async def about(request: Request) -> AboutRead:
    """Say what this is."""
    platform = request.app.state.platform
    return AboutRead(service=platform.spec.name, version=platform.version)


@router.get("/ngs/progress", response_model=ProgressRead)
async def progress(ngs: Ngs, caller: Reader) -> ProgressRead:
    """Return level, XP and the way to the next level."""
    return await ngs.progress(_user(caller))


@router.get("/ngs/levels", response_model=list[LevelRead])
async def levels(ngs: Ngs, caller: Learner, known: IfNoneMatch = None) -> Response:
    """Return the 24 levels with the learner's locks; 304 when nothing changed."""
    return _tagged(_LEVELS.dump_json(await ngs.levels(_user(caller))), known)


@router.get("/ngs/levels/{number}", response_model=LevelRead)
async def level(number: int, ngs: Ngs, caller: Learner, known: IfNoneMatch = None) -> Response:
    """Return one level; 404 outside 1..24."""
    return _tagged((await ngs.level(_user(caller), number)).model_dump_json().encode(), known)


@router.get("/ngs/levels/{number}/lessons", response_model=list[LessonListed])
async def lessons(number: LevelPath, ngs: Ngs, caller: Learner) -> list[LessonListed]:
    """Return the lessons of a level."""
    return await ngs.lessons(_user(caller), number)


@router.get("/ngs/levels/{number}/challenges", response_model=list[ChallengeListed])
async def challenges(number: LevelPath, ngs: Ngs, caller: Learner) -> list[ChallengeListed]:
    """Return the challenges of a level."""
    return await ngs.challenges(_user(caller), number)


@router.get("/ngs/lessons/{lesson_id}", response_model=LessonRead)
async def lesson(lesson_id: UUID, ngs: Ngs, caller: Learner) -> LessonRead:
    """Return a whole lesson, its quiz without answers; 403 when it is locked."""
    return await ngs.lesson(_user(caller), lesson_id)


@router.post("/ngs/lessons/{lesson_id}/complete", status_code=201, response_model=LessonResult)
async def complete_lesson(
    lesson_id: UUID, *, request: Request, body: LessonComplete, ngs: Ngs, caller: Learner, key: IdempotencyKey = None
) -> JSONResponse:
    """Hand in a lesson. 201 when it is completed now; 200 with 0 XP when it was before or the quiz was not passed."""
    return _json(await ngs.complete_lesson(_user(caller), lesson_id, body, key=key, raw=await request.body()))


@router.post("/ngs/complete-lesson", status_code=201, response_model=LessonResult)
async def complete_lesson_by_body(
    request: Request, body: LessonCompleteByBody, ngs: Ngs, caller: Learner, key: IdempotencyKey = None
) -> JSONResponse:
    """The same for clients that send the lesson's id in the body."""
    return _json(await ngs.complete_lesson(_user(caller), body.lesson_id, body, key=key, raw=await request.body()))


@router.get("/ngs/reflections", response_model=list[ReflectionRead])
async def reflections(ngs: Ngs, caller: Learner, limit: Limit20 = 20, offset: Offset = 0) -> list[ReflectionRead]:
    """Return one's own reflections, newest first."""
    return await ngs.reflections(_user(caller), limit=limit, offset=offset)


@router.post("/ngs/reflections", status_code=201, response_model=ReflectionResult)
async def reflect(
    request: Request, body: ReflectionCreate, ngs: Ngs, caller: Learner, key: IdempotencyKey = None
) -> JSONResponse:
    """Store a reflection and say what it was worth."""
    return _json(await ngs.reflect(caller, _user(caller), body, key=key, raw=await request.body()))


@router.get("/ngs/challenges/submissions", response_model=list[SubmissionRead])  # before {challenge_id}
async def submissions(ngs: Ngs, caller: Learner, limit: Limit20 = 20, offset: Offset = 0) -> list[SubmissionRead]:
    """Return one's own submissions, newest first."""
    return await ngs.submissions(_user(caller), limit=limit, offset=offset)


@router.get("/ngs/challenges/{challenge_id}", response_model=ChallengeRead)
async def challenge(challenge_id: UUID, ngs: Ngs, caller: Learner) -> ChallengeRead:
    """Return a whole challenge: no solution, no hidden check; 403 when it is locked."""
    return await ngs.challenge(_user(caller), challenge_id)


@router.post("/ngs/challenges/{challenge_id}/submit", status_code=201, response_model=SubmissionResult)
async def submit(
    challenge_id: UUID,
    *,
    request: Request,
    body: SubmissionCreate,
    ngs: Ngs,
    caller: Learner,
    key: IdempotencyKey = None,
) -> JSONResponse:
    """Hand in a solution; it is graded at once."""
    return _json(await ngs.submit(_user(caller), challenge_id, body, key=key, raw=await request.body()))


@router.get("/ngs/achievements", response_model=list[AchievementRead])
async def achievements(ngs: Ngs, caller: Learner) -> list[AchievementRead]:
    """Return one's own achievements, newest first."""
    return await ngs.achievements(_user(caller))


@router.get("/ngs/leaderboard", response_model=list[LeaderRead])
async def leaderboard(ngs: Ngs, _caller: Learner, limit: Annotated[int, Query(ge=1, le=100)] = 10) -> list[LeaderRead]:
    """Return the learners with most XP among those who want to be seen."""
    return await ngs.leaderboard(limit)


@router.patch("/ngs/leaderboard", response_model=VisibilityRead)
async def set_visibility(body: VisibilityUpdate, ngs: Ngs, caller: Learner) -> VisibilityRead:
    """Show or hide oneself on the leaderboard, and choose the handle."""
    return await ngs.set_visibility(caller, _user(caller), body)


@router.post("/ngs/award-xp", status_code=201, response_model=AwardResult)
async def award(body: AwardCreate, ngs: Ngs, _caller: Annotated[Caller, Depends(Awarder())]) -> JSONResponse:
    """Award what the table says for a source; 200 with 0 XP when it was awarded before or a daily cap is reached."""
    return _json(await ngs.award(body))


def _user(caller: Caller) -> User:
    assert caller.user is not None  # every rule above but Awarder's needs a user token
    return caller.user


def _json(answer: tuple[int, dict[str, Any]]) -> JSONResponse:
    status, body = answer
    return JSONResponse(body, status_code=status)


def _tagged(body: bytes, known: str | None) -> Response:
    """Return the body with its ETag, or 304 when the client holds it. Private: the locks are the learner's."""
    tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {"ETag": tag, "Cache-Control": "private, no-cache"}
    if known is not None and tag in (part.strip().removeprefix("W/") for part in known.split(",")):
        return Response(status_code=304, headers=headers)
    return Response(body, media_type="application/json", headers=headers)
