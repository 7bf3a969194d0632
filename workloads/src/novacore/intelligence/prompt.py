"""From what is known to what the model reads. Pure, but for the token count that is passed in.

The system text comes first and is always the same, so that llama.cpp's
prefix cache saves reading it again.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from typing import Any

from novacore.intelligence.providers import Message
from novacore.intelligence.providers.base import MIN_COMPLETION

SYSTEM_VERSION = 1
KNOWLEDGE_MAX, KNOWLEDGE_CHARS = 3, 150
PATTERNS_MAX, PATTERN_CHARS = 2, 150
TURNS_MAX, TURN_CHARS = 3, 100
STORED_TURNS_MAX = 5
ATTACHED_SHARE = 3
"""A third of the prompt is kept for an attached text before notes may take it."""

Count = Callable[[Sequence[Message]], Awaitable[int]]


class PromptTooLongError(ValueError):
    """Not even the bare message leaves room for an answer."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One earlier exchange."""

    asked: str
    answered: str


@dataclass(frozen=True, slots=True)
class Notes:
    """What memory and history know. Lists are in order of worth, turns in order of time."""

    knowledge: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()
    turns: tuple[Turn, ...] = ()
    ids: tuple[str, ...] = ()
    counts: dict[str, int] = field(default_factory=dict)

    def fewer(self) -> Notes | None:
        """Return the notes without their least: the oldest turn, then a pattern, then a piece of knowledge."""
        if self.turns:
            return replace(self, turns=self.turns[1:])
        if self.patterns:
            return replace(self, patterns=self.patterns[:-1])
        if self.knowledge:
            return replace(self, knowledge=self.knowledge[:-1])
        return None


@dataclass(frozen=True, slots=True)
class Prompt:
    """What is sent, and how many tokens it is."""

    messages: tuple[Message, ...]
    tokens: int
    context_ids: tuple[str, ...]


def system_text(version: int = SYSTEM_VERSION) -> str:
    """Return the system text of a version; a change is a new file, so that old runs stay explainable."""
    file = resources.files("novacore.intelligence") / "prompts" / f"system-v{version}.md"
    return file.read_text(encoding="utf-8").strip()


def notes_of(context: dict[str, Any] | None, stored: Sequence[Turn]) -> Notes:
    """Return the notes in an answer of `/memory/context` (None: none came), with stored turns where it has no turns."""
    context = context or {}
    ltm = [entry for entry in context.get("ltm", ()) if entry.get("input")]
    itm = [entry for entry in context.get("itm", ()) if entry.get("input")][:PATTERNS_MAX]
    principles = [_principle(entry) for entry in context.get("principles", ())]
    stm = [Turn(str(entry.get("input", "")), str(entry.get("output", ""))) for entry in context.get("stm", ())]
    # Principles are few and distilled: they must not be crowded out by long-term memories.
    knowledge = [text for text in principles if text][:1] + [str(entry["input"]) for entry in ltm]
    knowledge += [text for text in principles if text][1:]
    turns = stm[-TURNS_MAX:] or list(stored)[-STORED_TURNS_MAX:]
    return Notes(
        knowledge=tuple(_short(text, KNOWLEDGE_CHARS) for text in knowledge[:KNOWLEDGE_MAX]),
        patterns=tuple(_short(str(entry["input"]), PATTERN_CHARS) for entry in itm),
        turns=tuple(Turn(_short(turn.asked, TURN_CHARS), _short(turn.answered, TURN_CHARS)) for turn in turns),
        ids=tuple(str(entry["id"]) for entry in (*ltm[:KNOWLEDGE_MAX], *itm) if "id" in entry),
        counts={"stm": len(stm), "itm": len(context.get("itm", ())), "ltm": len(context.get("ltm", ()))},
    )


def render(notes: Notes, message: str, attached: str = "") -> tuple[Message, ...]:
    """Return the messages: one system text with its sections, then the user's own words, untouched."""
    parts = [system_text()]
    if notes.knowledge:
        parts.append("# Relevant Knowledge\n" + "\n".join(f"- {text}" for text in notes.knowledge))
    if notes.patterns:
        parts.append("# Recent Patterns\n" + "\n".join(f"- {text}" for text in notes.patterns))
    if notes.turns:
        lines = (f"User: {turn.asked}\nAssistant: {turn.answered}" for turn in notes.turns)
        parts.append("# Recent Conversation\n" + "\n".join(lines))
    if attached:
        parts.append("# Attached Text\n" + attached)
    return Message("system", "\n\n".join(parts)), Message("user", message)


def prompt_budget(window: int) -> int:
    """Return the most tokens a prompt with notes may have: 768 of the embedded model's 2048, never above 16 384."""
    return min(window * 3 // 8, 16_384)


async def fit(notes: Notes, message: str, *, attached: str = "", window: int, count: Count) -> Prompt:
    """Return the fullest prompt within the budget. PromptTooLongError when the bare message leaves no room to answer.

    The message itself is never cut: when it alone passes the budget it goes without notes, up to the window.
    """
    budget = prompt_budget(window)
    kept: Notes = notes
    for_notes = budget - (budget // ATTACHED_SHARE if attached else 0)
    tokens = await count(render(kept, message))
    while tokens > for_notes and (fewer := kept.fewer()) is not None:
        kept = fewer
        tokens = await count(render(kept, message))
    if tokens + MIN_COMPLETION > window:
        raise PromptTooLongError
    if attached and tokens < budget:
        text, tokens = await _fit_attached(kept, message, attached, budget=budget, bare=tokens, count=count)
        return Prompt(render(kept, message, text), tokens, kept.ids)
    return Prompt(render(kept, message), tokens, kept.ids)


async def _fit_attached(
    notes: Notes, message: str, attached: str, *, budget: int, bare: int, count: Count
) -> tuple[str, int]:
    """Return the longest beginning of the attached text that fits, by bisection, and the prompt's tokens with it."""
    tokens = await count(render(notes, message, attached))
    if tokens <= budget:
        return attached, tokens
    fits, fits_tokens, too_long = 0, bare, len(attached)
    while too_long - fits > 200:
        middle = (fits + too_long) // 2
        tokens = await count(render(notes, message, attached[:middle]))
        if tokens <= budget:
            fits, fits_tokens = middle, tokens
        else:
            too_long = middle
    return attached[:fits], fits_tokens


def _principle(entry: Any) -> str:
    return str(entry.get("principle", "")) if isinstance(entry, dict) else str(entry)


def _short(text: str, longest: int) -> str:
    """One line, cut with an ellipsis. Headings in a memory must not look like sections of the prompt."""
    line = re.sub(r"\s+", " ", text).strip().lstrip("# ")
    return line if len(line) <= longest else line[: longest - 1].rstrip() + "…"
