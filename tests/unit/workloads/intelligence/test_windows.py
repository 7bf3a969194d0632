"""Whole sentences out of a growing text (WINDOW-1)."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from novacore.intelligence.windows import LONGEST, OVERLAP, Windows


def taken(pieces: list[str]) -> list[str]:
    windows = Windows()
    out = []
    for piece in pieces:
        windows.push(piece)
        out.append(windows.take())
    return [*out, windows.rest()]


def test_a_sentence_leaves_when_its_end_is_certain():
    assert taken(["The sun", " rises", ".", " It"]) == ["", "", "", "The sun rises. ", "It"]


@pytest.mark.parametrize("text", ["Pi is 3.14 and no more", "novacore.ai is a name", "v1.2.3 is out"])
def test_a_point_inside_a_word_ends_nothing(text):
    windows = Windows()
    windows.push(text)
    assert windows.take() == ""


def test_closing_quotes_belong_to_the_sentence():
    assert taken(['"Stop!" he', " said."])[0] == '"Stop!" '


def test_all_whole_sentences_leave_together():
    assert taken(["One. Two! Three? Fo"])[0] == "One. Two! Three? "


def test_a_line_ends_a_window():
    assert taken(["- first\n- sec"])[0] == "- first\n"


def test_text_without_an_end_is_cut_at_a_space():
    windows = Windows()
    windows.push("word " * 200)
    window = windows.take()
    assert 0 < len(window) <= LONGEST
    assert window.endswith("word ")


@pytest.mark.invariant("WINDOW-1")
@given(st.lists(st.text(alphabet="ab .!?\n…。é🎉", max_size=60), max_size=40))
@example(["x" * 1000])
def test_nothing_is_lost_or_doubled(pieces):
    """WINDOW-1"""
    assert "".join(taken(pieces)) == "".join(pieces)


def test_the_end_of_what_was_released_is_judged_again():
    windows = Windows()
    windows.released("a" * 300)
    assert windows.judged("b") == "a" * OVERLAP + "b"
