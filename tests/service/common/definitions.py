"""A small service of our own, under the name of `memory` (schema, Redis and a peer), to test what all services share."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import APIRouter, Body
from pydantic import BaseModel

from novacore.common.app import ServiceDefinition
from novacore.common.callers import (
    Caller,
    admin_route,
    public,
    service_route,
    user_or_service_route,
    user_route,
)
from novacore.common.settings import CommonSettings

router = APIRouter()


class Thing(BaseModel):
    """A body with a field that must not be echoed."""

    name: str
    password: int


@router.get("/mine")
async def mine(caller: Annotated[Caller, user_route()]) -> dict[str, Any]:
    return {"user": str(caller.user_id), "service": caller.service}


@router.get("/read")
async def read(caller: Annotated[Caller, user_route("memory:read")]) -> dict[str, Any]:
    return {"user": str(caller.user_id), "service": caller.service}


@router.post("/maintain")
async def maintain(_caller: Annotated[Caller, service_route("memory:maintain")]) -> dict[str, Any]:
    return {"ok": True}


@router.get("/either/{thing_id}")
async def either(thing_id: str, caller: Annotated[Caller, user_or_service_route("memory:read")]) -> dict[str, Any]:
    return {"user": str(caller.user_id), "thing": thing_id}


@router.get("/admin")
async def admin(_caller: Annotated[Caller, admin_route()]) -> dict[str, Any]:
    return {"ok": True}


@router.get("/mcp")
async def mcp(_caller: Annotated[Caller, user_route(scope="mcp")]) -> dict[str, Any]:
    return {"ok": True}


@router.post("/open", dependencies=[public()])
async def open_(thing: Annotated[Thing, Body()]) -> dict[str, Any]:
    return {"name": thing.name}


@router.get("/bug", dependencies=[public()])
async def bug() -> None:
    raise RuntimeError("secret detail")


@asynccontextmanager
async def start(platform):
    yield object()


PROBE = ServiceDefinition(name="memory", settings=CommonSettings, start=start, routers=[router])
