"""What a reflection says: three questions answered from the policy's result, without a language model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from novacore.reflection_worker.schemas import Alignment, ReflectionRequested

EXCERPT_CHARS = 160
NOTES_CHARS = 4000
WEAK_BELOW = 0.7
CONTENT_CHARS = 32_000
"""noble-spirit reads so much of a text."""

QUESTIONS = ("What did I attempt?", "Was I aligned?", "How can I improve?")
KEEP = "I should keep answering in this manner."


@dataclass(frozen=True, slots=True)
class Answers:
    """The answers, in the order of `QUESTIONS`."""

    attempt: str
    aligned: str
    improve: str

    def as_text(self) -> str:
        """Return questions and answers, a line each."""
        return "\n".join(
            f"{question} {answer}"
            for question, answer in zip(QUESTIONS, (self.attempt, self.aligned, self.improve), strict=True)
        )


def answer(request: ReflectionRequested, result: Alignment) -> Answers:
    """Return the three answers about one run."""
    attempt = f"I answered “{_excerpt(request.input)}” with {len(request.output.split())} words"
    attempt += f", drawing on {len(request.context_ids)} memories." if request.context_ids else "."
    weak = sorted((score, name) for name, score in result.principle_scores.items() if score < WEAK_BELOW)
    aligned = f"{'Yes' if result.aligned else 'No'}, with a score of {result.alignment_score:.2f}"
    aligned += f"; weakest in {', '.join(name for _score, name in weak[:3])}." if weak else "."
    return Answers(attempt=attempt, aligned=aligned, improve=" ".join(notes(result)) or KEEP)


def notes(result: Alignment) -> list[str]:
    """Return recommendations, then concerns, each once."""
    return list(dict.fromkeys(text.strip() for text in (*result.recommendations, *result.concerns) if text.strip()))


def reflection(request: ReflectionRequested, result: Alignment) -> dict[str, Any]:
    """Return the body of POST /internal/memory/reflections. Emotional weight = 2 · score − 1."""
    answers = answer(request, result)
    return {
        "run_id": str(request.run_id),
        "self_assessment": answers.as_text()[:NOTES_CHARS],
        "alignment_score": result.alignment_score,
        "improvement_notes": "\n".join(notes(result))[:NOTES_CHARS],
        "emotional_weight": max(-1.0, min(1.0, round(2 * result.alignment_score - 1, 6))),
        "metadata": {
            "answers": {
                "attempt": answers.attempt,
                "aligned": answers.aligned,
                "improve": answers.improve[:NOTES_CHARS],
            },
            "principle_scores": result.principle_scores,
            "policy_version": result.policy_version,
            "session_id": request.session_id,
            "context_ids": request.context_ids[:100],
        },
    }


def _excerpt(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= EXCERPT_CHARS else line[: EXCERPT_CHARS - 1].rstrip() + "…"
