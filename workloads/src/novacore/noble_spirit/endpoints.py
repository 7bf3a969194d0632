"""Routes of noble-spirit."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response

from novacore.common.app import service_of
from novacore.common.callers import Caller, Rule, admin_route, bearer, read_user, service_route, user_route
from novacore.common.errors import ServiceError
from novacore.common.keyring import TokenError
from novacore.noble_spirit.document import PRINCIPLES
from novacore.noble_spirit.document import Rule as PolicyRule
from novacore.noble_spirit.repository import StoredPolicy
from novacore.noble_spirit.schemas import (
    ActiveRead,
    AlignmentBody,
    AlignmentRead,
    AuditPage,
    AuditRead,
    PolicyCreate,
    PrincipleRead,
    PrinciplesRead,
    RollbackBody,
    RuleRead,
    ValidateBody,
    ValidateRead,
    VersionRead,
    VersionsRead,
    ViolationRead,
)
from novacore.noble_spirit.scoring import result_of
from novacore.noble_spirit.service import NobleSpirit

Service = Annotated[NobleSpirit, Depends(service_of(NobleSpirit))]
UserCaller = Annotated[Caller, user_route()]
AdminCaller = Annotated[Caller, admin_route()]
Limit = Annotated[int, Query(ge=1, le=100)]
Offset = Annotated[int, Query(ge=0, le=10_000)]

router = APIRouter(prefix="/policy", tags=["policy"])


class _UserOrValidator(Rule):
    """A person through the gateway, or a service with `policy:validate`, which needs no person to ask about a text."""

    def __init__(self) -> None:
        super().__init__("service", ["policy:validate"])
        self._person = Rule("user")

    async def __call__(self, request: Request) -> Caller:
        """Return the caller; with the person of a token that came along, for the audit log."""
        try:
            caller = await super().__call__(request)
        except ServiceError as error:
            if error.status != 403:
                raise
            return await self._person(request)
        token = bearer(request.headers.get("authorization"))
        if token is None:
            return caller
        try:
            user = read_user(request.app.state.platform.keyrings, token)
        except TokenError:
            return caller
        return Caller(service=caller.service, permissions=caller.permissions, user=user)


Validator = Annotated[Caller, Depends(_UserOrValidator())]


@router.post("/validate")
async def validate(body: ValidateBody, caller: Validator, service: Service, request: Request) -> ValidateRead:
    """Decide whether a text may go to a model, or to a person."""
    verdict = await service.validate(
        body.content, direction=body.direction, user_id=caller.user.id if caller.user else None
    )
    result = result_of(verdict.decision)
    return ValidateRead(
        result=result,
        decision=verdict.decision,
        score=verdict.reading.score,
        passed=result != "failed",
        violations=[_violation(rule) for rule in verdict.reading.violations],
        warnings=[_violation(rule) for rule in verdict.reading.warnings],
        principles_checked=list(PRINCIPLES),
        policy_version=verdict.version,
        timestamp=request.app.state.platform.clock.now(),
    )


@router.post("/validate-alignment", dependencies=[service_route("policy:validate")])
async def validate_alignment(body: AlignmentBody, service: Service, request: Request) -> AlignmentRead:
    """Say how far an exchange keeps the principles."""
    alignment, version = await service.align(body.input_context, body.output_response, body.self_assessment)
    return AlignmentRead(
        aligned=alignment.aligned,
        alignment_score=alignment.score,
        principle_scores=alignment.principles,
        recommendations=alignment.recommendations,
        concerns=alignment.concerns,
        policy_version=version,
        timestamp=request.app.state.platform.clock.now(),
    )


@router.get("/active")
async def active(_caller: UserCaller, service: Service, request: Request, response: Response) -> Any:
    """The policy in force, without its patterns."""
    policy = service.policy
    read = ActiveRead(
        version=policy.stored.version,
        policy_name=policy.stored.policy_name,
        description=policy.stored.description,
        content_hash=policy.stored.content_hash.hex(),
        activated_at=policy.stored.activated_at,
        thresholds=policy.document.thresholds.model_dump(),
        rules=[
            RuleRead(id=rule.id, category=rule.category, action=rule.action, principles=rule.principles)
            for rule in policy.document.rules
        ],
    )
    return _tagged(read, policy.stored, request, response)


@router.get("/principles")
async def principles(_caller: UserCaller, service: Service, request: Request, response: Response) -> Any:
    """The eight principles with the rules that touch them."""
    policy = service.policy
    read = PrinciplesRead(
        policy_version=policy.stored.version,
        principles=[
            PrincipleRead(
                name=name,
                weight=policy.document.principles[name],
                rules=[rule.id for rule in policy.document.rules if name in rule.principles],
            )
            for name in PRINCIPLES
        ],
    )
    return _tagged(read, policy.stored, request, response)


@router.post("/create", status_code=201)
async def create(body: PolicyCreate, caller: AdminCaller, service: Service) -> VersionRead:
    """Propose a version."""
    stored = await service.propose(
        body.policy_content, name=body.policy_name, description=body.description, by=caller.user_id
    )
    return _version(stored)


@router.post("/versions/{version}/activate")
async def activate(version: int, caller: AdminCaller, service: Service) -> VersionRead:
    """Put a version in force that somebody else proposed."""
    await service.activate(version, by=caller.user_id)
    return _version(service.policy.stored)


@router.post("/rollback")
async def rollback(body: RollbackBody, caller: AdminCaller, service: Service) -> VersionRead:
    """Bring an old content back as a new version."""
    await service.roll_back(body.to, by=caller.user_id)
    return _version(service.policy.stored)


@router.get("/versions")
async def versions(_caller: AdminCaller, service: Service, limit: Limit = 20, offset: Offset = 0) -> VersionsRead:
    """All versions, newest first, without their content."""
    found, total = await service.versions(limit=limit, offset=offset)
    return VersionsRead(versions=[_version(stored) for stored in found], total=total, limit=limit, offset=offset)


@router.get("/audit")
async def audit(_caller: AdminCaller, service: Service, limit: Limit = 50, offset: Offset = 0) -> AuditPage:
    """The audit log, newest first."""
    rows, total = await service.audit_page(limit=limit, offset=offset)
    entries = [
        AuditRead(
            seq=row["seq"],
            action=row["action"],
            policy_version=row["version"],
            context=row["context"],
            created_at=row["created_at"],
        )
        for row in rows
    ]
    return AuditPage(entries=entries, total=total, limit=limit, offset=offset)


def _violation(rule: PolicyRule) -> ViolationRead:
    return ViolationRead(rule_id=rule.id, category=rule.category, principle=rule.main_principle)


def _version(stored: StoredPolicy) -> VersionRead:
    return VersionRead(
        version=stored.version,
        policy_name=stored.policy_name,
        description=stored.description,
        content_hash=stored.content_hash.hex(),
        kid=stored.kid,
        is_active=stored.is_active,
        created_at=stored.created_at,
        activated_at=stored.activated_at,
    )


def _tagged(read: ActiveRead | PrinciplesRead, stored: StoredPolicy, request: Request, response: Response) -> Any:
    tag = f'"{hashlib.sha256(type(read).__name__.encode() + stored.content_hash).hexdigest()[:32]}"'
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers={"ETag": tag})
    response.headers["ETag"] = tag
    return read


ROUTERS = (router,)
