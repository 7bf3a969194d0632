"""The cluster's configuration, names and hashes."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
import yaml

from hack.cluster import cli, engine, kind, load, lock, machine, metrics, node, product, tools
from hack.cluster.errors import Problem
from hack.cluster.paths import digest
from hack.cluster.rootfs import Rootfs


@pytest.mark.parametrize("path", ["stock", "bare"])
@pytest.mark.parametrize("cgroup_v1", [True, False])
def test_cluster_config_carries_what_tests_need_from_the_start(path: str, *, cgroup_v1: bool) -> None:
    text = kind.config(port=5000, path=path, cgroup_v1=cgroup_v1, audit_directory=Path("/tmp/audit"))  # type: ignore[arg-type] # a literal from the table
    found = json.loads(text)
    (node,) = found["nodes"]
    (mapping,) = node["extraPortMappings"]
    assert (mapping["listenAddress"], mapping["hostPort"], mapping["containerPort"]) == ("127.0.0.1", 5000, 30500)
    assert found["networking"]["disableDefaultCNI"] is (path == "bare")
    patches = [yaml.safe_load(patch) for patch in node["kubeadmConfigPatches"]]
    assert patches[0]["apiServer"]["extraArgs"]["audit-log-path"].endswith("audit.log")
    assert [p["failCgroupV1"] for p in patches if p["kind"] == "KubeletConfiguration"] == ([False] if cgroup_v1 else [])


def test_the_audit_policy_records_writes_and_nothing_else() -> None:
    rules = yaml.safe_load(kind.AUDIT_POLICY)["rules"]
    assert rules[-1] == {"level": "None"}
    assert set(rules[1]["verbs"]) == {"create", "update", "patch", "delete", "deletecollection"}


@pytest.mark.parametrize(
    ("image", "full"),
    [
        ("redis:8.0", "docker.io/library/redis:8.0"),
        ("novacore/operator:dev-1", "docker.io/novacore/operator:dev-1"),
        ("registry.example.org/pause:3.10", "registry.example.org/pause:3.10"),
        ("localhost/x:1", "localhost/x:1"),
    ],
)
def test_names_images_as_containerd_does(image: str, full: str) -> None:
    assert load.qualified(image) == full


ID = {"redis:8.0": "sha-1", "novacore/operator:dev-1": "sha-2"}
BOTH = ["docker.io/library/redis:8.0", "docker.io/novacore/operator:dev-1"]


@pytest.mark.parametrize(
    ("present", "sent", "wanted"),
    [
        ([], {}, ["redis:8.0", "novacore/operator:dev-1"]),
        (BOTH, ID, []),
        (BOTH, {}, ["redis:8.0"]),  # a node that was loaded by somebody else
        (BOTH, {**ID, "redis:8.0": "older"}, ["redis:8.0"]),  # the same name, built anew
        (BOTH, {**ID, "novacore/operator:dev-1": "older"}, []),  # this name is made from the content
        (BOTH[:1], ID, ["novacore/operator:dev-1"]),
    ],
)
def test_sends_only_what_the_node_lacks(present: list[str], sent: dict[str, str], wanted: list[str]) -> None:
    assert load.lacking(ID, present, sent) == wanted


def test_control_plane_images_carry_the_names_that_kubeadm_and_containerd_ask_for() -> None:
    listed = "r.example.org/kube-proxy:v1.35.4\nr.example.org/coredns/coredns:v1.13.1\nr.example.org/pause:3.10.1\n"
    assert node.control_plane_names(listed, "r.example.org/pause:3.10") == {
        "pause": ["r.example.org/pause:3.10", "r.example.org/pause:3.10.1"],
        "kube-proxy": ["r.example.org/kube-proxy:v1.35.4"],
        "coredns": ["r.example.org/coredns/coredns:v1.13.1"],
    }
    same = node.control_plane_names("r.example.org/pause:3.10", "r.example.org/pause:3.10")
    assert same == {"pause": ["r.example.org/pause:3.10"]}


@pytest.mark.parametrize(
    ("command", "name"), [(b"/usr/sbin/dockerd\0-D\0", "dockerd"), (b"dockerd\0", "dockerd"), (b"", "")]
)
def test_a_pid_is_what_its_process_says(tmp_path: Path, command: bytes, name: str) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "cmdline").write_bytes(command)
    assert engine.program(7, tmp_path) == name
    assert engine.program(8, tmp_path) == ""


@pytest.mark.parametrize(("mask", "has"), [("000001ffffffffff", True), ("000001fffeffffff", False)])
def test_reads_whether_the_machine_grants_the_resource_capability(tmp_path: Path, mask: str, *, has: bool) -> None:
    status = tmp_path / "status"
    status.write_text(f"Name:\tx\nCapBnd:\t{mask}\n")
    assert machine.has_sys_resource(status) is has
    assert machine.has_sys_resource(tmp_path / "absent") is True


@pytest.mark.parametrize(
    ("tool", "printed", "fine"),
    [
        ("uv", "uv 0.13.9 (x86_64-unknown-linux-gnu)", True),
        ("uv", "uv 0.8.2", False),
        ("kind", "kind v0.33.0 go1.26.8 linux/amd64", True),
        ("kind", "kind v0.29.0 go1.24.2 linux/amd64", False),
        ("helm", "v4.3.1+g1a2b3c", True),
        ("helm", "v3.20.0+g1a2b3c", True),
        ("helm", "v3.9.0", False),
        ("kubectl", "Client Version: v1.32.9\nKustomize Version: v5.5.0", False),
        ("kubectl", "Client Version: v1.35.1\nKustomize Version: v5.7.1", True),
        ("kubectl", "", False),
    ],
)
def test_takes_the_machines_own_tool_only_in_a_fitting_version(tool: str, printed: str, *, fine: bool) -> None:
    assert tools.TOOLS_NEEDED[tool].fits(printed) is fine


def test_a_second_command_waits_for_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "LOCK", tmp_path / "lock")
    order: list[str] = []
    with lock.exclusive():
        waiting = threading.Thread(target=lambda: _in_lock(order))
        waiting.start()
        waiting.join(0.1)
        order.append("first")
    waiting.join(5)
    assert order == ["first", "second"]


def _in_lock(order: list[str]) -> None:
    with lock.exclusive():
        order.append("second")


@pytest.mark.parametrize(
    ("remote", "address"),
    [
        ("https://git.example.org/team/novacore.git", "https://git.example.org/team/novacore"),
        ("https://user:token@git.example.org/team/novacore.git", "https://git.example.org/team/novacore"),
        ("git@git.example.org:team/novacore.git", "https://git.example.org/team/novacore"),
        ("/srv/git/novacore", ""),
    ],
)
def test_the_source_label_holds_no_credentials_and_no_path(remote: str, address: str) -> None:
    assert product.public_address(remote) == address


def test_a_hash_changes_with_any_input_and_with_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("one")
    before = digest(tmp_path, "x")
    assert digest(tmp_path, "x") == before
    (tmp_path / "a").write_text("two")
    assert digest(tmp_path, "x") != before
    assert digest(tmp_path, "y") != digest(tmp_path, "x")


def test_a_root_file_system_is_rebuilt_when_its_packages_change() -> None:
    one = Rootfs(name="n", suite="trixie", packages=["a"])
    assert one.key != Rootfs(name="n", suite="trixie", packages=["a", "b"]).key


@pytest.mark.parametrize(
    ("text", "fine"),
    [("go version go1.26.8 linux/amd64", True), ("go version go1.19.8 linux/amd64", False), ("", False)],
)
def test_an_old_compiler_is_not_taken(text: str, *, fine: bool) -> None:
    assert tools.fits(text) is fine


@pytest.mark.parametrize(
    "argv", [["up", "--port", "many"], ["fly"], [], ["up", "--name", "Not A Name"], ["images", "--only", "everything"]]
)
def test_bad_arguments_give_one_line_and_exit_64(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(argv)
    assert ended.value.code == 64
    printed = capsys.readouterr()
    assert len((printed.out + printed.err).strip().splitlines()) == 1


def test_every_verb_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in ("up", "down", "images", "load", "tools", "push", "metrics-server", "doctor", "clean"):
        with pytest.raises(SystemExit) as ended:
            cli.main([verb, "--help"])
        assert ended.value.code == 0
        assert verb in capsys.readouterr().out


def test_metrics_server_is_the_modules_release_with_our_version_and_kinds_kubelets() -> None:
    rendered = (
        "spec:\n  containers:\n  - args: [a]\n    image: r.example.org:5000/ms/metrics-server:v0.8.1\n    name: x\n"
    )
    repository = metrics.repository_of(rendered)
    assert repository == "r.example.org:5000/ms/metrics-server"
    changed = metrics.kustomization(repository, "v0.9.0")
    assert changed["images"] == [{"name": repository, "newTag": "v0.9.0"}]
    (patch,) = changed["patches"]  # type: ignore[misc] # a list of one
    assert json.loads(patch["patch"])[0]["value"] == "--kubelet-insecure-tls"


def test_metrics_server_that_names_no_image_is_told() -> None:
    with pytest.raises(Problem, match=r"no longer names its image"):
        metrics.repository_of("kind: Service\n")
