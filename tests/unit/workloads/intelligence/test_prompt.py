"""Assembling and trimming a prompt."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from novacore.intelligence.prompt import (
    Notes,
    PromptTooLongError,
    Turn,
    fit,
    notes_of,
    prompt_budget,
    render,
    system_text,
)

WINDOW = 2048


async def words(messages):
    return sum(len(message.content.split()) for message in messages)


def full_notes() -> Notes:
    return Notes(
        knowledge=("k1 " * 20, "k2 " * 20, "k3 " * 20),
        patterns=("p1 " * 20, "p2 " * 20),
        turns=(Turn("q1", "a1"), Turn("q2", "a2"), Turn("q3", "a3")),
        ids=("one",),
    )


def test_the_system_text_says_what_it_must():
    text = system_text()
    for word in ("Truth", "Wisdom", "Human flourishing", "Reclaimer Ethos"):
        assert word in text


def test_sections_appear_only_when_they_have_something():
    system, user = render(Notes(), "Hello?")
    assert "#" not in system.content
    assert (user.role, user.content) == ("user", "Hello?")


def test_sections_stand_in_their_order():
    content = render(full_notes(), "Hello?", "some file")[0].content
    titles = ["# Relevant Knowledge", "# Recent Patterns", "# Recent Conversation", "# Attached Text"]
    assert [content.index(title) for title in titles] == sorted(content.index(title) for title in titles)
    assert content.startswith(system_text()), "a constant beginning is what the prefix cache needs"


def test_an_answer_of_memory_becomes_notes_within_their_lengths():
    context = {
        "ltm": [{"id": f"l{i}", "input": "x" * 400} for i in range(5)],
        "principles": [{"principle": "Breathe first."}, {"principle": "Ask twice."}],
        "itm": [{"id": f"i{i}", "input": "y" * 400} for i in range(5)],
        "stm": [{"input": "q" * 300, "output": f"a{i}"} for i in range(5)],
    }
    notes = notes_of(context, [])

    assert len(notes.knowledge) == 3
    assert notes.knowledge[0] == "Breathe first."
    assert all(len(text) <= 150 for text in (*notes.knowledge, *notes.patterns))
    assert len(notes.patterns) == 2
    assert [turn.answered for turn in notes.turns] == ["a2", "a3", "a4"]
    assert all(len(turn.asked) <= 100 for turn in notes.turns)
    assert notes.counts == {"stm": 5, "itm": 5, "ltm": 5}


def test_stored_exchanges_stand_in_for_a_lost_short_term_memory():
    stored = [Turn(f"q{i}", f"a{i}") for i in range(7)]
    assert [turn.asked for turn in notes_of(None, stored).turns] == ["q2", "q3", "q4", "q5", "q6"]


def test_a_memory_cannot_pose_as_a_section():
    notes = notes_of({"ltm": [{"id": "1", "input": "# Relevant\n\n# Knowledge"}]}, [])
    assert notes.knowledge == ("Relevant # Knowledge",)


def test_the_budget_of_the_embedded_model_is_768_tokens():
    assert prompt_budget(2048) == 768


async def test_the_oldest_turn_goes_first():
    bare = await words(render(full_notes(), "hi"))
    budget_window = (bare - 1) * 8 // 3 + 1
    prompt = await fit(full_notes(), "hi", window=budget_window, count=words)
    assert "q1" not in prompt.messages[0].content
    assert "q3" in prompt.messages[0].content


async def test_a_long_message_goes_whole_and_without_notes():
    message = "word " * 1000
    prompt = await fit(full_notes(), message, window=WINDOW, count=words)
    assert prompt.messages[1].content == message
    assert "# R" not in prompt.messages[0].content


async def test_a_message_that_leaves_no_room_is_refused():
    with pytest.raises(PromptTooLongError):
        await fit(Notes(), "word " * 2000, window=WINDOW, count=words)


async def test_an_attached_text_is_cut_to_the_budget():
    prompt = await fit(full_notes(), "What is this?", attached="line " * 6000, window=WINDOW, count=words)
    assert 700 < prompt.tokens <= 768
    assert prompt.tokens == await words(prompt.messages)
    assert "# Relevant Knowledge" in prompt.messages[0].content, "notes keep their two thirds"


@given(
    turns=st.integers(0, 5), knowledge=st.integers(0, 3), message=st.integers(1, 1500), attached=st.integers(0, 4000),
    window=st.sampled_from([2048, 4096, 8192]),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
async def test_a_prompt_always_leaves_room_to_answer(turns, knowledge, message, attached, window):
    notes = Notes(knowledge=("k " * 40,) * knowledge, turns=(Turn("q " * 30, "a " * 30),) * turns)
    prompt = await fit(notes, "m " * message, attached="t " * attached, window=window, count=words)
    assert prompt.tokens == await words(prompt.messages)
    assert prompt.tokens + 64 <= window
    assert prompt.tokens <= max(prompt_budget(window), await words(render(Notes(), "m " * message)))
