"""Each release's charts are kept packaged, as the predecessor of upgrade tests, and never change after that."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest
import yaml

from novacore_contracts.releases import RELEASES

CHARTS = Path(__file__).resolve().parents[3] / "charts"
NAMES = ("novacore-operator", "novacore")


@pytest.mark.parametrize("release", RELEASES[:-1])
@pytest.mark.parametrize("name", NAMES)
def test_every_release_before_the_present_one_has_its_packaged_chart(name: str, release: str) -> None:
    with tarfile.open(CHARTS / "releases" / f"{name}-{release}.tgz") as package:
        found = package.extractfile(f"{name}/Chart.yaml")
        assert found is not None
        assert yaml.safe_load(found.read())["version"] == release


@pytest.mark.parametrize("name", NAMES)
def test_a_packaged_version_is_what_the_folder_holds(name: str) -> None:
    """A change of a released chart needs a new version: `Chart.yaml` first, then `make package`."""
    version = yaml.safe_load((CHARTS / name / "Chart.yaml").read_text())["version"]
    assert version == RELEASES[-1]
    if not (CHARTS / "releases" / f"{name}-{version}.tgz").exists():
        return  # not released yet: its folder may change
    with tarfile.open(CHARTS / "releases" / f"{name}-{version}.tgz") as package:
        packed = {
            member.name.removeprefix(f"{name}/"): package.extractfile(member).read()  # type: ignore[union-attr] # a file
            for member in package.getmembers()
            if member.isfile()
        }
    packed.pop("Chart.yaml")  # Helm writes it anew
    assert packed
    assert [file for file, data in packed.items() if (CHARTS / name / file).read_bytes() != data] == []
