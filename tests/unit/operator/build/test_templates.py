"""A newer operator restarts no pod of an older release: what a release's pods look like never changes.

`templates.json` holds digests of the pod templates that each release's own operator made. A release is added when it is
out: `python -m tests.unit.operator.build.test_templates`.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from novacore_contracts.releases import RELEASES
from novacore_operator.plan import plan
from novacore_operator.state.ownership import digest
from tests.unit.operator.make import World, make_material, make_nova

GOLDEN = Path(__file__).with_name("templates.json")
SPECS = {"dev": {}, "prod": {"profile": "Production"}}


def templates(release: str) -> dict[str, str]:
    """Return the digest of every pod template of a release, by profile and object."""
    found = {}
    for name, spec in SPECS.items():
        wanted = plan(make_nova(version=release, **spec), World().seen(), make_material()).wanted
        for ref, manifest in wanted.items():
            if "template" in manifest.get("spec", {}):
                found[f"{name} {ref}"] = digest(manifest["spec"]["template"])
    return found


@pytest.mark.parametrize("release", RELEASES[:-1])
def test_the_pods_of_an_older_release_stay_as_they_were(release: str) -> None:
    assert templates(release) == json.loads(GOLDEN.read_text(encoding="utf-8"))[release]


if __name__ == "__main__":
    known = json.loads(GOLDEN.read_text(encoding="utf-8"))
    GOLDEN.write_text(json.dumps({RELEASES[-1]: templates(RELEASES[-1]), **known}, indent=2, sort_keys=True) + "\n")
