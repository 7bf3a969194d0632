"""Connections: kept for peers, never kept for the request of a service token."""

from __future__ import annotations

import asyncio

import pytest

from novacore.common.http import build_session


@pytest.mark.parametrize(("keep_alive", "connections"), [(True, 1), (False, 3)])
async def test_a_connection_to_a_stranger_is_not_asked_again(*, keep_alive: bool, connections: int) -> None:
    """A server that would keep the connection alive, as the stranger did that answered 404 for minutes."""
    made = 0

    async def stranger(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal made
        made += 1
        while await reader.readline():
            while (await reader.readline()).strip():
                pass
            writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(stranger, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with build_session(keep_alive=keep_alive) as session:
        for _ in range(3):
            async with session.get(f"http://127.0.0.1:{port}/") as answer:
                await answer.read()
    server.close()
    assert made == connections
