"""Reasons carry their texts."""

from pathlib import Path

import pytest

from novacore_operator.reasons import Reason, files, reference_page

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("reason", list(Reason))
def test_each_reason_says_what_it_means_and_what_to_do(reason: Reason) -> None:
    for text in (reason.meaning, reason.cause, reason.remedy):
        assert text.endswith("."), reason
    assert reason.value.isalnum()
    assert f"## {reason.value}\n" in reference_page()


def test_committed_page_is_what_the_reasons_say() -> None:
    for path, text in files(ROOT).items():
        assert path.read_text() == text, "run: make gen"


def test_a_reason_is_its_word() -> None:
    assert f"{Reason.NAMESPACE_TAKEN}" == "NamespaceTaken"
    assert Reason("NamespaceTaken") is Reason.NAMESPACE_TAKEN
