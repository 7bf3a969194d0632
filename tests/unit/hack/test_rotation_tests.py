"""The table of what a rotation must survive names real tests, and every one of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from hack.gen import rotation_tests

ROOT = Path(__file__).resolve().parents[3]


def test_every_line_is_there_and_most_have_a_test() -> None:
    found = rotation_tests.shown(ROOT)
    assert list(rotation_tests.WANTED) == list(range(1, 39))
    assert sum(bool(found[number]) for number in rotation_tests.WANTED) >= 28


def test_a_test_of_a_line_that_is_not_there_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "tests/cluster"
    folder.mkdir(parents=True)
    (folder / "test_x.py").write_text("def test_r39_nobody_asked(): ...\n")
    with pytest.raises(ValueError, match="test_r39_nobody_asked"):
        rotation_tests.files(tmp_path)


def test_a_line_without_a_test_says_so(tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    (page,) = rotation_tests.files(tmp_path).values()
    assert "| R1 | a scheduled rotation under load | no failed request, no restart | – | kind | – |" in page
