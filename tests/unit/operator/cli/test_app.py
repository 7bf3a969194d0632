"""How a command ends, whatever it is given."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from novacore_operator.cli.app import DEBUG, VERBS
from tests.unit.operator.cli.cluster import FakeCluster, failing, resource

NEEDS_CLUSTER = ("status", "wait", "rollback", "history", "pause", "resume")


@pytest.mark.parametrize("verb", [[verb] for verb in VERBS if verb != "admin"] + [["admin", "create"]], ids=" ".join)
def test_help_of_each_verb_teaches_by_examples(cluster: FakeCluster, verb: list[str]) -> None:
    answer = cluster.run(*verb, "--help")
    assert answer.exit_code == 0
    assert "Example" in answer.stdout
    assert f"kubectl novacore {' '.join(verb)}" in answer.stdout
    assert cluster.calls == []


def test_alone_it_prints_what_there_is(cluster: FakeCluster) -> None:
    answer = cluster.run()
    assert answer.exit_code == 0
    for verb in VERBS:
        assert f"\n  {verb} " in answer.stdout


BAD = (
    ["nonsense"],
    ["status", "--nonsense"],
    ["status", "surplus"],
    ["status", "-n", "Not_A_Name"],
    ["status", "-n", "--all-namespaces"],
    ["status", "--name", ""],
    ["status", "--context", "--token=x"],
    ["status", "--kubeconfig", "/does/not/exist"],
    ["status", "-o", "xml"],
    ["status", "--interval", "0"],
    ["wait", "--timeout", "soon"],
    ["wait", "--timeout", "0"],
    ["wait", "--timeout", "-5"],
    ["wait", "--timeout", "9999h"],
    ["wait", "--for", "rain"],
    ["rollback", "--to", "0"],
    ["rollback", "--to", "two"],
    ["logs"],
    ["logs", "nothing-of-ours"],
    ["logs", "memory", "--request-id", "x"],
    ["logs", "--request-id", "a b"],
    ["logs", "--request-id", "$(reboot)"],
    ["logs", "memory", "--tail", "-1"],
    ["logs", "memory", "--since", "yesterday"],
    ["plan", "-f", "/does/not/exist"],
    ["plan", "-f", "/"],
    ["plan", "-f"],
    ["diff", "-f", "/does/not/exist"],
    ["admin"],
    ["admin", "create"],
    ["admin", "create", "--email", "nobody"],
    ["admin", "create", "--email", "--help@x"],
    ["completion"],
    ["completion", "powershell"],
    ["version", "--nonsense"],
)


@pytest.mark.invariant("CLI-1")
@pytest.mark.parametrize("arguments", BAD, ids=" ".join)
def test_bad_input_is_one_line_and_exit_64(cluster: FakeCluster, arguments: list[str]) -> None:
    answer = cluster.run(*arguments)
    assert answer.exit_code == 64, answer.output
    assert answer.stdout == ""
    assert len(answer.stderr.splitlines()) == 1
    assert answer.stderr.startswith("kubectl novacore: ")
    assert cluster.calls == []


@pytest.mark.invariant("CLI-1")
@pytest.mark.parametrize("verb", [*NEEDS_CLUSTER, "doctor"])
def test_an_api_error_is_one_line_with_a_remedy_and_exit_1(cluster: FakeCluster, verb: str) -> None:
    cluster.answers(
        error="E0301 12:00:00 memcache.go:265] noise\n"
        "The connection to the server 10.0.0.1:6443 was refused - did you specify the right host or port?\n",
        code=1,
    )
    answer = cluster.run(verb)
    assert answer.exit_code == 1
    assert answer.stdout == ""
    (line,) = answer.stderr.splitlines()
    assert line.endswith("was refused: the API server does not answer: check --context, --kubeconfig and your network")


@pytest.mark.invariant("CLI-1")
def test_a_defect_is_one_line_unless_the_trace_is_asked_for(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.answers("get novacoredeployments", out={"items": [{"spec": {}}]})  # no metadata: no API server says so
    answer = cluster.run("status")
    assert answer.exit_code == 1
    assert len(answer.stderr.splitlines()) == 1
    assert "a defect of this command: KeyError" in answer.stderr
    monkeypatch.setenv(DEBUG, "1")
    assert isinstance(cluster.run("status").exception, KeyError)


def test_without_kubectl_it_says_so(monkeypatch: pytest.MonkeyPatch, cluster: FakeCluster) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    answer = cluster.run("status")
    assert answer.exit_code == 1
    assert "kubectl is not on the PATH" in answer.stderr


def test_options_stand_before_or_behind_the_verb(cluster: FakeCluster) -> None:
    cluster.has(resource())
    config = cluster.here / "config"
    config.touch()
    given = ["-n", "shop-ns", "--context", "prod", "--kubeconfig", str(config)]
    assert cluster.run(*given, "status").exit_code == 0
    assert cluster.run("status", *given).exit_code == 0
    before, behind = cluster.calls
    assert before.arguments == behind.arguments
    assert before.arguments[:3] == [f"--kubeconfig={config}", "--context=prod", "--namespace=shop-ns"]


def test_which_of_several_resources_must_be_said(cluster: FakeCluster) -> None:
    cluster.answers("get", "novacoredeployments.novacore.ai two", out=resource(name="two"))
    cluster.has(resource(name="one"), resource(name="two"))
    answer = cluster.run("status")
    assert answer.exit_code == 64
    assert "(one, two): choose one with --name" in answer.stderr
    assert cluster.run("status", "--name", "two").exit_code == 0


def test_no_resource_is_told_with_what_to_do(cluster: FakeCluster) -> None:
    cluster.has()
    answer = cluster.run("status", "-n", "empty")
    assert answer.exit_code == 1
    assert "there is no NovaCoreDeployment in namespace empty" in answer.stderr


@pytest.mark.invariant("CLI-2")
@pytest.mark.parametrize("form", ["json", "yaml", "text"])
def test_a_pipe_gets_no_colours(cluster: FakeCluster, form: str) -> None:
    cluster.has(failing())
    answer = cluster.run("status", "-o", form)
    assert answer.exit_code == 0
    assert "\x1b" not in answer.output
    assert answer.stderr == ""


@pytest.mark.invariant("CLI-1")
def test_each_mistake_in_a_file_has_its_line(cluster: FakeCluster) -> None:
    text = (
        "apiVersion: novacore.ai/v1alpha1\nkind: NovaCoreDeployment\nmetadata: {name: shop}\n"
        "spec: {version: 0.1.0, colour: red, mode: Guess}\n"
    )
    answer = cluster.run("plan", "-f", "-", stdin=text)
    assert answer.exit_code == 64
    assert [line.split(": ")[2] for line in answer.stderr.splitlines()] == ["spec.mode", "spec.colour"]


@pytest.mark.parametrize("arguments", [["status", "--watch"], ["logs", "memory", "--follow"]], ids=" ".join)
def test_what_goes_on_until_ctrl_c_ends_well_by_it(cluster: FakeCluster, arguments: list[str]) -> None:
    cluster.has(resource()).answers("logs", out='[pod/p/c] {"event": "started"}\n', hold_s=60)
    # As at a terminal, also where whoever started the tests ignores the signal, as shells do for what is in the background.
    interrupted = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    program = f"{interrupted}; from novacore_operator.cli.app import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    first = process.stdout.readline()
    assert "shop-ns/shop ready 9/9" in first or "started" in first
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=20)
    assert (process.returncode, error) == (0, "")
