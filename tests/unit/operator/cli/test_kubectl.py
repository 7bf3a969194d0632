"""What kubectl is asked, and what is made of what it says."""

from __future__ import annotations

import pytest

from novacore_operator.cli.errors import BadInput, Failed, Forbidden, NotFound, Unreachable
from novacore_operator.cli.kubectl import Kubectl, failure
from novacore_operator.cli.options import Options
from tests.unit.operator.cli.cluster import FakeCluster


@pytest.mark.parametrize(
    ("said", "kind", "words"),
    [
        ("Unable to connect to the server: dial tcp: lookup x: no such host", Unreachable, "does not answer"),
        ("Unable to connect to the server: net/http: TLS handshake timeout", Unreachable, "does not answer"),
        ("error: You must be logged in to the server (Unauthorized)", Failed, "log in again"),
        ('Error from server (Forbidden): pods is forbidden: User "x" cannot list', Forbidden, "ask for this right"),
        ('error: the server doesn\'t have a resource type "novacoredeployments"', NotFound, "install the operator"),
        ('Error from server (NotFound): deployments.apps "a" not found', NotFound, '"a" not found'),
        ("Error from server (Conflict): the object has been modified", Failed, "run the command again"),
        ('error: context "nope" does not exist', BadInput, "there is no context 'ctx'"),
        ("Error in configuration: context was not found for specified context: nope", BadInput, "get-contexts"),
        ("Warning: old\nThe NovaCoreDeployment is invalid: spec: version must be a release", Failed, "version must be"),
        ("", Failed, "said nothing"),
        ("\x1b[31merror: \x00bad", Failed, "bad"),
    ],
)
def test_a_failure_is_one_line_with_its_remedy(said: str, kind: type[Exception], words: str) -> None:
    error = failure(said, context="ctx")
    assert type(error) is kind
    assert words in error.message
    assert "\n" not in error.message
    assert error.message.isprintable()


@pytest.mark.invariant("CLI-3")
def test_what_is_given_on_standard_input_is_no_argument(cluster: FakeCluster) -> None:
    cluster.answers("replace", out={})
    Kubectl(Options(namespace="shop")).json("replace", "--filename=-", stdin='{"secret": "word"}')
    (call,) = cluster.calls
    assert "word" not in call.line
    assert "word" in call.stdin


def test_an_exec_is_not_cut_short_by_a_request_timeout(cluster: FakeCluster) -> None:
    cluster.answers("exec", out="done").answers("get", out={})
    kubectl = Kubectl(Options())
    kubectl.text("exec", "deployment/x", "--", "true", limit_s=100)
    kubectl.json("get", "pods")
    slow, quick = cluster.calls
    assert "--request-timeout" not in slow.line
    assert "--request-timeout=20s" in quick.line


def test_an_answer_that_is_no_json_is_a_failure(cluster: FakeCluster) -> None:
    cluster.answers("get", out="NAME  READY")
    with pytest.raises(Failed, match="not JSON"):
        Kubectl(Options()).json("get", "pods")


def test_a_stream_ends_with_its_block(cluster: FakeCluster) -> None:
    cluster.answers("logs", out="a\nb\n" * 100_000)
    with Kubectl(Options()).stream("logs", "x") as stream:
        first = next(iter(stream))
    assert first == "a"
    with Kubectl(Options()).stream("logs", "x") as stream:
        assert len(list(stream)) == 200_000
        assert stream.code == 0
