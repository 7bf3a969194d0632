"""A cluster that answers from a table: the `kubectl` on the PATH is a script. The edge is faked, nothing of ours is."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.operator.cli.cluster import FakeCluster


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    made = FakeCluster(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    return made
