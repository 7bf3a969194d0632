"""The routes the gateway answers itself; all others pass through `proxy`."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends

from novacore.common.app import service_of
from novacore.common.callers import public
from novacore.gateway.schemas import StatusRead
from novacore.gateway.status import StatusBoard

router = APIRouter()


@router.get("/api/status", dependencies=[public()], response_model=StatusRead)
async def status(board: Annotated[StatusBoard, Depends(service_of(StatusBoard))]) -> dict[str, Any]:
    """Say which services answer."""
    return board.report()
