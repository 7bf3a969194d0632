"""Grading of a lesson's quiz."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from novacore.ngs_curriculum import quiz
from novacore.ngs_curriculum.quiz import Question


def make_question(number: int, **changes: object) -> Question:
    fields: dict[str, object] = {
        "id": f"q{number}", "text": "Which one is it?", "options": {"a": "This", "b": "That", "c": "Neither"},
        "answer": "b", "why": "Because the lesson says so.",
    }  # fmt: skip
    return Question.model_validate(fields | changes)


FIVE = [make_question(n) for n in range(1, 6)]


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ({f"q{n}": "b" for n in range(1, 6)}, 100),
        ({"q1": "b", "q2": "b", "q3": "b", "q4": "a"}, 60),
        ({"q1": "c", "q9": "b"}, 0),
        ({}, 0),
    ],
)
def test_an_unanswered_question_is_a_wrong_one(answers: dict[str, str], expected: int) -> None:
    assert quiz.score(FIVE, answers) == expected


def test_a_lesson_without_a_quiz_has_no_score() -> None:
    assert quiz.score([], {"q1": "b"}) is None


@pytest.mark.invariant("QUIZ-1")
def test_the_view_holds_neither_answer_nor_explanation() -> None:
    """QUIZ-1."""
    shown = [one.model_dump() for one in quiz.view(FIVE)]
    assert all(set(one) == {"id", "text", "options"} for one in shown)


def test_an_answer_must_be_among_the_options() -> None:
    with pytest.raises(ValidationError, match="not among its options"):
        make_question(1, answer="z")
