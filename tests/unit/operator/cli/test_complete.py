"""What is offered when Tab is pressed."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from novacore_contracts.services import SERVICES
from novacore_operator.cli.app import VERBS, cli
from novacore_operator.cli.complete import FILES, NO_FILES, candidates
from tests.unit.operator.cli.cluster import FakeCluster


def words(lines: list[str]) -> set[str]:
    return {line.split("\t")[0] for line in lines[:-1]}


def test_verbs_services_and_options_are_offered() -> None:
    assert words(candidates([""])) == set(VERBS)
    assert words(candidates(["ro"])) == {"rollback", "rotate"}
    assert {service.name for service in SERVICES} <= words(candidates(["logs", ""]))
    assert "--timeout" in words(candidates(["wait", "--"]))
    assert words(candidates(["status", "-o", "j"])) == {"json"}


def test_the_last_line_says_whether_files_make_sense() -> None:
    assert candidates(["plan", "-f", ""])[-1] == FILES
    assert candidates(["logs", ""])[-1] == NO_FILES


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_its_script(shell: str) -> None:
    answer = CliRunner().invoke(cli, ["completion", shell])
    assert answer.exit_code == 0
    assert f"_KUBECTL_NOVACORE_COMPLETE={shell}_complete" in answer.stdout
    assert "kubectl-novacore" in answer.stdout


def test_version_asks_no_cluster(cluster: FakeCluster) -> None:
    assert cluster.run("version").stdout.startswith("kubectl-novacore ")
    assert cluster.calls == []
