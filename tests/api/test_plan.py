"""What is planned is what is written, decided by the API server's audit log, for random changes of the whole resource.

`make soak-plan` runs the same for ten thousand changes and writes its figures under loadtest/results/.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import pytest

from novacore_contracts.releases import CURRENT
from tests.api.plansoak import run, swept
from tests.kit.api import Api, RefusedError
from tests.kit.nova import nova
from tests.kit.specs import ALL, Generator, Leaf, changed

SEED = 7
CASES = 250
EACH = 50
TIME_S = 240
TRIES = 100
ENOUGH = 250
"""Cases that are taken however long it lasts: fewer prove too little."""


@pytest.mark.timeout(600)  # canaries and slow machines: the sweep ends by itself
@pytest.mark.invariant("PREVIEW-1")
def test_what_is_planned_is_what_is_written(
    tmp_path_factory: pytest.TempPathFactory, say: Callable[[str], None]
) -> None:
    began = time.monotonic()
    with swept(tmp_path_factory.mktemp("plan")) as sweep:
        report = run(sweep, cases=CASES, seed=SEED, within_s=TIME_S, at_least=ENOUGH, each=EACH)
    say(f"plan: {report.line()}; {time.monotonic() - began:.0f} s")
    faults = [*map(str, report.mismatches), *report.errors]
    assert not faults, "\n".join(faults)
    assert report.cases >= ENOUGH, report.line()


def test_every_field_of_the_resource_can_be_changed_by_the_sweep(api: Api) -> None:
    """A field that the generator cannot set in a way that the rules accept would be left out of the sweep unseen."""
    generator = Generator(random.Random(SEED))
    plain = api.apply(nova("default", version=CURRENT), dry_run=True)["spec"]

    def settable(leaf: Leaf) -> bool:
        for _ in range(TRIES):
            candidate = generator.candidate({"version": CURRENT}, leaf)
            try:
                stored = api.apply(nova("default", **candidate), dry_run=True)["spec"]
            except RefusedError:
                continue
            if leaf.path in changed(plain, stored):
                return True
        return False

    lost = [str(leaf) for leaf in ALL if not settable(leaf)]
    assert lost == [], "add values to tests/kit/specs.py, or an accepted case to tests/api/cel_cases.py"
