"""One route, for `novacore distill --now`: it reaches the worker over the pod's own loopback and nobody else does."""

from __future__ import annotations

from dataclasses import asdict
from ipaddress import ip_address
from typing import Annotated

from fastapi import APIRouter, Depends, Request

from novacore.common import errors
from novacore.common.app import service_of
from novacore.common.callers import Caller, public
from novacore.distillation_worker.schemas import ReportRead
from novacore.distillation_worker.service import Distiller

internal_router = APIRouter(prefix="/internal/distill")


@internal_router.post("/run")
async def run(
    request: Request,
    distiller: Annotated[Distiller, Depends(service_of(Distiller))],
    _caller: Annotated[Caller, public()],
) -> ReportRead:
    """Run at once and return the report. 403 for anyone outside of the pod."""
    if request.client is None or not ip_address(request.client.host).is_loopback:
        raise errors.forbidden("scope_missing", "A run is started from inside the pod: novacore distill --now.")
    report = await distiller.run()
    return ReportRead(result=report.result, seconds=report.seconds, counts=asdict(report.counts))
