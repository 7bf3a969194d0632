"""Both charts rendered by the real Helm, and their values walked from their schemas."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
CHARTS = ROOT / "charts"
OPERATOR = CHARTS / "novacore-operator"
PLATFORM = CHARTS / "novacore"

Manifest = dict[str, Any]
Values = dict[str, Any]


class HelmError(Exception):
    """Helm refused to render; the message is what it said."""


@dataclass(frozen=True, slots=True)
class Helm:
    """`helm template` of one chart of this repository; equal questions are asked once."""

    binary: str
    folder: Path
    _answers: dict[str, str] = field(default_factory=dict)

    def text(self, chart: Path, values: Values | None = None, *, file: Path | None = None) -> str:
        """Return what Helm renders. HelmError when it refuses."""
        key = json.dumps([str(chart), values, str(file)])
        if key not in self._answers:
            self._answers[key] = self._ask(chart, values, file)
        return self._answers[key]

    def _ask(self, chart: Path, values: Values | None, file: Path | None) -> str:
        command = [self.binary, "template", chart.name, str(chart), "--namespace", "novacore-system"]
        if file is not None:
            command += ["--values", str(file)]
        if values is not None:
            own = self.folder / "values.json"
            own.write_text(json.dumps(values))
            command += ["--values", str(own)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode != 0:
            raise HelmError(done.stderr)
        return done.stdout

    def render(self, chart: Path, values: Values | None = None, *, file: Path | None = None) -> list[Manifest]:
        """Return the objects Helm renders."""
        found = yaml.load_all(self.text(chart, values, file=file), Loader=yaml.CSafeLoader)
        return [manifest for manifest in found if manifest]


@pytest.fixture(scope="session")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    own = ROOT / ".tools/bin/helm"
    found = str(own) if own.exists() else shutil.which("helm")
    if found is None:
        pytest.fail("helm is missing: run `python3 -m hack.cluster tools`")
    return Helm(found, tmp_path_factory.mktemp("helm"))


@pytest.fixture
def operator(helm: Helm) -> Callable[..., list[Manifest]]:
    """Return a function that renders the operator's chart."""

    def render(values: Values | None = None, *, file: Path | None = None) -> list[Manifest]:
        return helm.render(OPERATOR, values, file=file)

    return render


def values_files(chart: Path) -> list[Path | None]:
    """Return the chart's own test values, and None for its defaults."""
    return [None, *sorted((chart / "ci").glob("*.yaml"))]


def named(file: Path | None) -> str:
    """Return a test id for a values file."""
    return "defaults" if file is None else file.stem


def of_kind(manifests: list[Manifest], kind: str) -> list[Manifest]:
    """Return the objects of one kind."""
    return [manifest for manifest in manifests if manifest["kind"] == kind]


def one(manifests: list[Manifest], kind: str) -> Manifest:
    """Return the only object of one kind."""
    (found,) = of_kind(manifests, kind)
    return found


def schema(chart: Path) -> dict[str, Any]:
    """Return the chart's values schema."""
    found: dict[str, Any] = json.loads((chart / "values.schema.json").read_text())
    return found


def closed_objects(node: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the path of every object whose fields are listed."""
    if "properties" in node:
        yield path
        for name, inner in node["properties"].items():
            yield from closed_objects(inner, (*path, name))


def leaves(node: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """Yield path and schema of every value that has no listed fields."""
    for name, inner in node["properties"].items():
        if inner.get("properties"):
            yield from leaves(inner, (*path, name))
        elif (*path, name) != ("global",):
            yield (*path, name), inner


def nested(path: tuple[str, ...], value: Any) -> Values:
    """Return values with one value set at a path."""
    for name in reversed(path):
        value = {name: value}
    return dict(value) if isinstance(value, dict) else {}


def merged(base: Values, over: Values) -> Values:
    """Return values with others laid over them, as Helm does."""
    result = dict(base)
    for name, value in over.items():
        old = result.get(name)
        result[name] = merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result
