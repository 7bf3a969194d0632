"""What a reflection says."""

from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacore.reflection_worker.answers import KEEP, QUESTIONS, answer, notes, reflection
from novacore.reflection_worker.schemas import Alignment, ReflectionRequested

RUN = UUID(int=7)


def request(**changes: object) -> ReflectionRequested:
    return ReflectionRequested(
        **({"run_id": RUN, "input": "How do I bake bread?", "output": "Mix and wait."} | changes)
    )


def test_the_three_questions_are_answered_from_the_result() -> None:
    result = Alignment(
        aligned=False, alignment_score=0.64, principle_scores={"truth": 0.9, "respect": 0.4, "wisdom": 0.6},
        recommendations=["Name your sources.", "Be kinder."], concerns=["Be kinder.", " "],
    )  # fmt: skip
    found = answer(request(context_ids=["a", "b"]), result)
    assert found.attempt == "I answered “How do I bake bread?” with 3 words, drawing on 2 memories."
    assert found.aligned == "No, with a score of 0.64; weakest in respect, wisdom."
    assert found.improve == "Name your sources. Be kinder."
    assert [line.split("?")[0] + "?" for line in found.as_text().splitlines()] == list(QUESTIONS)
    assert notes(result) == ["Name your sources.", "Be kinder."]


def test_nothing_to_improve_is_said_too() -> None:
    found = answer(request(), Alignment(aligned=True, alignment_score=1))
    assert (found.aligned, found.improve) == ("Yes, with a score of 1.00.", KEEP)


@pytest.mark.parametrize(("score", "emotion"), [(0.0, -1.0), (0.5, 0.0), (0.7, 0.4), (1.0, 1.0)])
def test_the_emotional_weight_follows_the_score(score: float, emotion: float) -> None:
    body = reflection(request(), Alignment(aligned=True, alignment_score=score))
    assert body["emotional_weight"] == emotion
    assert body["run_id"] == str(RUN)


@given(st.text(min_size=1, max_size=6000), st.lists(st.text(max_size=3000), max_size=5))
def test_a_reflection_always_fits_what_memory_takes(text: str, recommendations: list[str]) -> None:
    body = reflection(
        request(input=text), Alignment(aligned=True, alignment_score=0.5, recommendations=recommendations)
    )
    assert 1 <= len(body["self_assessment"]) <= 16_000
    assert len(body["improvement_notes"]) <= 16_000
