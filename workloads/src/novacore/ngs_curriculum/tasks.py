"""Loops of ngs-curriculum: new users get their progress row."""

from __future__ import annotations

from uuid import UUID

from pydantic import BaseModel, ValidationError

from novacore.common.streams import Envelope, PoisonError
from novacore.ngs_curriculum.service import NgsService

STREAM = "stream:outbox:auth"
GROUP = "ngs-curriculum"
JOB = "user_events"


class UserRegistered(BaseModel):
    """Payload of `user.registered`, as far as it matters here."""

    user_id: UUID


class UserEvents:
    """Handles what auth-billing tells about users."""

    def __init__(self, service: NgsService) -> None:
        self._service = service

    async def handle(self, envelope: Envelope) -> None:
        """Make the progress row of a registered user; idempotent. Tiers are read from tokens, never copied."""
        match envelope.type:
            case "user.registered":
                try:
                    registered = UserRegistered.model_validate(envelope.payload)
                except ValidationError:
                    raise PoisonError("user.registered: the payload names no user_id") from None
                await self._service.register(registered.user_id)
            case "tier.changed":
                return
            case _:
                raise PoisonError(f"unknown type {envelope.type}")
