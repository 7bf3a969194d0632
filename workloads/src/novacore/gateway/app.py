"""The gateway: a FastAPI app for its own three routes, with the proxy in front of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.types import ASGIApp

from novacore.common.app import Platform, ServiceDefinition
from novacore.gateway.endpoints import router
from novacore.gateway.proxy import Proxy
from novacore.gateway.settings import GatewaySettings
from novacore.gateway.status import StatusBoard


def _proxy(app: FastAPI, platform: Platform[GatewaySettings]) -> ASGIApp:
    app.state.proxy = Proxy(app, platform)
    proxy: ASGIApp = app.state.proxy
    return proxy


@asynccontextmanager
async def _start(platform: Platform[GatewaySettings]) -> AsyncIterator[StatusBoard]:
    assert platform.app is not None
    board = StatusBoard(platform, platform.app.state.proxy)
    platform.spawn("status", board.run)
    yield board


DEFINITION = ServiceDefinition(
    name="gateway",
    settings=GatewaySettings,
    start=_start,
    routers=[router],
    asgi=_proxy,
)
