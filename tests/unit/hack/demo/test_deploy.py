"""Waiting for Ready believes only the present generation and says each change once."""

from __future__ import annotations

from typing import Any

import pytest

from hack.demo.deploy import Progress, is_ready, split_image
from hack.demo.terminal import DemoError, table


def nova(
    *conditions: dict[str, Any], components: tuple[dict[str, Any], ...] = (), generation: int = 2
) -> dict[str, Any]:
    return {
        "metadata": {"generation": generation},
        "status": {"conditions": list(conditions), "components": components},
    }


def condition(kind: str, status: str, reason: str, generation: int = 2) -> dict[str, Any]:
    return {"type": kind, "status": status, "reason": reason, "message": "", "observedGeneration": generation}


def test_ready_of_an_older_generation_is_not_ready() -> None:
    assert not is_ready(nova(condition("Ready", "True", "AllReady", generation=1)))
    assert is_ready(nova(condition("Ready", "True", "AllReady")))
    assert not is_ready(nova())


def test_each_change_is_said_once() -> None:
    progress = Progress()
    waiting = nova(
        condition("Ready", "False", "Progressing"),
        components=({"name": "memory", "ready": True}, {"name": "gateway", "ready": False}),
    )
    assert progress.lines(waiting) == ["Ready False  Progressing", "1/2 components ready, waiting for gateway"]
    assert progress.lines(waiting) == []
    done = nova(condition("Ready", "True", "AllReady"), components=({"name": "gateway", "ready": True},))
    assert progress.lines(done) == ["Ready True  AllReady", "1/1 components ready"]


def test_an_image_is_split_at_its_tag_and_not_at_a_registrys_port() -> None:
    assert split_image("localhost:5000/novacore/operator:dev-1") == ("localhost:5000/novacore/operator", "dev-1")
    with pytest.raises(DemoError, match="has no tag"):
        split_image("localhost:5000/novacore/operator")


def test_a_table_aligns_words_left_and_numbers_right() -> None:
    assert table(("name", "n"), [("a", "1"), ("bcdefg", "200")], right=(1,)).splitlines() == [
        "name      n",
        "a         1",
        "bcdefg  200",
    ]
