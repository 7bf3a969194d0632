"""As much of HTTP/1.1 as a proxy before an API server needs: whole messages, and the lines of a watch."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Message:
    """Head and body of a request or an answer."""

    start: str
    headers: dict[str, str]
    body: bytes = b""

    def encoded(self) -> bytes:
        """As it goes over the wire. A body goes in one piece."""
        headers = dict(self.headers)
        if self.headers.get("transfer-encoding") != "chunked":
            headers["content-length"] = str(len(self.body))
        lines = [self.start, *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        return "\r\n".join(lines).encode("latin-1") + self.body


async def read_head(reader: asyncio.StreamReader) -> Message | None:
    """Read the head of a message; None when the other side has ended."""
    try:
        text = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise
        return None
    start, *lines = text.rstrip("\r\n").split("\r\n")
    pairs = (line.split(":", 1) for line in lines)
    return Message(start, {name.strip().lower(): value.strip() for name, value in pairs})


async def read_message(reader: asyncio.StreamReader) -> Message | None:
    """Read one request or answer as a whole, chunks joined; None when the other side has ended."""
    head = await read_head(reader)
    if head is None or head.headers.get("transfer-encoding") != "chunked":
        size = int(head.headers.get("content-length", 0)) if head is not None else 0
        return replace(head, body=await reader.readexactly(size)) if head is not None else None
    parts = []
    while part := await _read_chunk(reader):
        parts.append(part)
    headers = {name: value for name, value in head.headers.items() if name != "transfer-encoding"}
    return Message(head.start, headers, b"".join(parts))


async def _read_chunk(reader: asyncio.StreamReader) -> bytes:
    size = int((await reader.readuntil(b"\r\n")).split(b";")[0], 16)
    part = await reader.readexactly(size)
    await reader.readexactly(2)
    return part


async def read_lines(reader: asyncio.StreamReader, lines: asyncio.Queue[bytes | None]) -> None:
    """Put each event of a watch into the queue, None at its end."""
    rest = b""
    with contextlib.suppress(OSError, EOFError, ValueError):
        while part := await _read_chunk(reader):
            *whole, rest = (rest + part).split(b"\n")
            for line in whole:
                lines.put_nowait(line + b"\n")
    lines.put_nowait(None)


async def send(writer: asyncio.StreamWriter, message: Message) -> None:
    """Send a whole message."""
    writer.write(message.encoded())
    await writer.drain()


def send_chunk(writer: asyncio.StreamWriter, part: bytes) -> None:
    """Send one chunk of a body."""
    writer.write(b"%x\r\n%s\r\n" % (len(part), part))
