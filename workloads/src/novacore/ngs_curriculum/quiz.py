"""A lesson's quiz: its shape, what a learner may see of it, and its score. Pure.

Invariant QUIZ-1: the view of a quiz holds neither the right answer nor its explanation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Question(BaseModel):
    """One question as written in the content and stored in `ngs.lessons.quiz`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,32}$")]
    text: Annotated[str, Field(min_length=8)]
    options: Annotated[dict[str, str], Field(min_length=3, max_length=5)]
    answer: str
    why: Annotated[str, Field(min_length=8)]

    @model_validator(mode="after")
    def _answer_is_an_option(self) -> Question:
        if self.answer not in self.options:
            raise ValueError(f"question {self.id}: the answer {self.answer!r} is not among its options")
        return self


class QuestionView(BaseModel):
    """One question as a learner sees it."""

    id: str
    text: str
    options: dict[str, str]


def view(questions: Sequence[Question]) -> list[QuestionView]:
    """Return the quiz without answers and explanations (QUIZ-1)."""
    return [QuestionView(id=one.id, text=one.text, options=one.options) for one in questions]


def score(questions: Sequence[Question], answers: Mapping[str, str]) -> int | None:
    """Return the score 0..100, or None for a lesson without a quiz. An unanswered question is a wrong one."""
    if not questions:
        return None
    right = sum(answers.get(one.id) == one.answer for one in questions)
    return 100 * right // len(questions)
