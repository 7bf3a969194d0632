"""Loops of noble-spirit: the policy in force, the audit rows that wait, the audit chain."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from novacore.common.errors import ServiceError
from novacore.common.log import get_logger
from novacore.noble_spirit.service import NobleSpirit
from novacore.noble_spirit.settings import NobleSpiritSettings

if TYPE_CHECKING:
    from novacore.common.app import Platform

log = get_logger()

FLUSH_SECONDS = 1.0
RETRY_SECONDS = 0.5


async def follow_policy(platform: Platform[NobleSpiritSettings], service: NobleSpirit) -> None:
    """Make sure there is a policy, then look for a new one for ever."""
    while not platform.draining.is_set():
        try:
            await service.ensure_first()
            break
        except ServiceError as error:
            log.warning("first_policy_postponed", reason=error.code)
            await pause(platform, RETRY_SECONDS)
    while not platform.draining.is_set():
        try:
            await service.refresh()
        except ServiceError as error:
            log.warning("policy_look_postponed", reason=error.code)
        await pause(platform, platform.settings.policy.poll_seconds if service.ready else RETRY_SECONDS)


async def flush_audit(platform: Platform[NobleSpiritSettings], service: NobleSpirit) -> None:
    """Write waiting audit rows for ever."""
    while not platform.draining.is_set():
        try:
            await service.flush()
        except ServiceError as error:
            log.warning("audit_postponed", reason=error.code)
        await pause(platform, FLUSH_SECONDS)


async def verify_audit(platform: Platform[NobleSpiritSettings], service: NobleSpirit) -> None:
    """Verify the audit chain for ever: new rows each time, all of them once an hour."""
    rounds = max(1, round(3600 / platform.settings.policy.verify_seconds))
    turn = 0
    while not platform.draining.is_set():
        try:
            if turn % rounds == 0:
                service.forget_verified()
            await service.verify_audit()
            turn += 1
        except ServiceError as error:
            log.warning("audit_look_postponed", reason=error.code)
        await pause(platform, platform.settings.policy.verify_seconds if turn else RETRY_SECONDS)


async def pause(platform: Platform[NobleSpiritSettings], seconds: float) -> None:
    """Wait, but not longer than until the process drains."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await platform.draining.wait()
