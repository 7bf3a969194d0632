"""docs/dependencies.md gives a reason for each dependency, and for no other."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
OWN = {"novacore", "novacore-operator"}


def declared() -> set[str]:
    requirements: list[str] = []
    for member in (".", "contracts", "operator", "workloads"):
        project = tomllib.loads((ROOT / member / "pyproject.toml").read_text())
        requirements += project["project"]["dependencies"]
        for group in project.get("dependency-groups", {}).values():
            requirements += [entry for entry in group if isinstance(entry, str)]
    return {re.split(r"[\[<>=~ ]", requirement)[0].lower() for requirement in requirements} - OWN


def explained() -> set[str]:
    rows = re.findall(r"^\| ([^|]+) \|", (ROOT / "docs/dependencies.md").read_text(), re.MULTILINE)
    names = {name.strip() for row in rows for name in row.split(",")}
    return names - {"package", "---"}


def test_each_dependency_has_a_reason_and_each_reason_a_dependency() -> None:
    assert explained() == declared()
