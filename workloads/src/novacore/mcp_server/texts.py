"""Texts made from what an editor sends and what memory answers. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from novacore.mcp_server.schemas import Action, ContextMemory, MemoryLog

QUERY_MAX = 1000  # of memory's search
INPUT_MAX = 16_000  # of a memory's input_context
CONTEXT_MAX = 32_000  # of a run's context
METADATA_MAX = 8_000
SUMMARY_LINE = 120


def context_query(path: str, content: str | None, language: str | None) -> str:
    """Return the search "path language content", cut to what memory takes. The path is never cut away."""
    parts = [part for part in (path, language, content) if part]
    return clean(" ".join(parts))[:QUERY_MAX]


def log_text(body: MemoryLog) -> str:
    """Return the text under which an action in an editor is remembered."""
    head = f"{body.action} {body.file_path}"
    return (f"{head}\n{body.content}" if body.content else head)[:INPUT_MAX]


def log_tags(action: Action) -> list[str]:
    """Return the tags of such a memory."""
    return [action, "vscode", "mcp"]


def metadata_text(metadata: dict[str, Any]) -> str:
    """Return extra facts as one line of JSON. ValueError when they are longer than 8 000 characters."""
    text = json.dumps(metadata, ensure_ascii=False, separators=(",", ":"), default=str)
    if len(text) > METADATA_MAX:
        raise ValueError(f"metadata: at most {METADATA_MAX} characters of JSON, found {len(text)}")
    return clean(text)


def run_context(file_context: str | None) -> str | None:
    """Return the file as a run takes it: head and tail, the middle left out where it is too long.

    The head holds imports and names, the tail is mostly where one works; intelligence cuts further to its token budget.
    """
    if not file_context:
        return None
    text = clean(file_context)
    if len(text) <= CONTEXT_MAX:
        return text
    mark = "\n… the middle of the file is left out …\n"
    head = (CONTEXT_MAX - len(mark)) * 2 // 3
    tail = CONTEXT_MAX - len(mark) - head
    return text[:head] + mark + text[-tail:]


def memory_content(memory: dict[str, Any]) -> str:
    """Return input and output of a memory as one text."""
    return "\n".join(part for part in (memory.get("input_context"), memory.get("output_response")) if part)


def context_summary(path: str, memories: Sequence[ContextMemory]) -> str:
    """Return what was found, one line each, for an editor's panel."""
    if not memories:
        return f"Nothing is remembered about {path} yet."
    plural = "memory" if len(memories) == 1 else "memories"
    lines = [f"- {' '.join(one.content.split())[:SUMMARY_LINE]}" for one in memories]
    return "\n".join([f"{len(memories)} {plural} about {path}:", *lines])


def clean(text: str) -> str:
    """Return the text without U+0000, which no store of ours takes."""
    return text.replace("\x00", "")
