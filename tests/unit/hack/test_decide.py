"""The decisions of `make up` before anything is touched."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hack.cluster.decide import Host, check, check_mapping, check_port, choose_path, engine_action, node_action
from hack.cluster.errors import Problem

LAPTOP = Host(
    root=False,
    debian=False,
    engine_answers=True,
    engine_installed=True,
    can_pull=True,
    stock_node_present=False,
    cgroup_v1=False,
    sys_resource=True,
    disk_free_gib=100,
    node_image_present=False,
)
BARE = replace(LAPTOP, root=True, debian=True, engine_answers=False, engine_installed=False, can_pull=False)


def test_takes_the_stock_path_where_docker_can_pull() -> None:
    assert choose_path(LAPTOP, "auto") == ("stock", "Docker can pull images")
    check(LAPTOP, "stock")


@pytest.mark.parametrize(
    ("host", "why"),
    [(BARE, "no Docker engine answers"), (replace(BARE, engine_answers=True), "Docker cannot pull images")],
)
def test_takes_the_bare_path_where_it_cannot(host: Host, why: str) -> None:
    assert choose_path(host, "auto") == ("bare", why)
    check(host, "bare")


def test_a_laptop_without_network_stays_on_the_stock_path_it_once_took() -> None:
    path, why = choose_path(replace(LAPTOP, can_pull=False, stock_node_present=True), "auto")
    assert path == "stock"
    assert "holds kind's node image" in why


@pytest.mark.parametrize("wanted", ["stock", "bare"])
def test_an_option_forces_the_path(wanted: str) -> None:
    assert choose_path(LAPTOP, wanted) == (wanted, "asked for")


@pytest.mark.parametrize(
    ("host", "path", "what", "remedy"),
    [
        (replace(BARE, debian=False), "bare", "not Debian", "install and start Docker"),
        (replace(BARE, root=False), "bare", "needs root", "run as root"),
        (replace(LAPTOP, can_pull=False), "bare", "as root", "run as root"),
        (replace(LAPTOP, root=True, can_pull=False), "bare", "Debian's package tools", "let Docker pull"),
        (BARE, "stock", "running Docker engine", "start Docker"),
        (replace(BARE, disk_free_gib=10), "bare", "10 GiB of disk", "free some space"),
        (replace(LAPTOP, disk_free_gib=3), "stock", "3 GiB of disk", "free some space"),
    ],
)
def test_refuses_with_what_is_wrong_and_what_mends_it(host: Host, path: str, what: str, remedy: str) -> None:
    with pytest.raises(Problem) as refused:
        check(host, path)  # type: ignore[arg-type] # a literal from the table
    assert what in refused.value.what
    assert remedy in refused.value.remedy


def test_asks_for_less_disk_once_the_node_image_is_built() -> None:
    check(replace(BARE, disk_free_gib=10, node_image_present=True), "bare")


def test_a_taken_port_names_the_way_out() -> None:
    with pytest.raises(Problem, match="make up PORT="):
        check_port(5000, free=False, cluster_exists=False)


@pytest.mark.parametrize(("free", "cluster_exists"), [(True, False), (False, True)])
def test_a_free_port_or_our_own_is_fine(*, free: bool, cluster_exists: bool) -> None:
    check_port(5000, free, cluster_exists)


@pytest.mark.parametrize("port", [0, 65536, -1])
def test_a_number_that_is_no_port_is_refused(port: int) -> None:
    with pytest.raises(Problem, match="not a port"):
        check_port(port, free=True, cluster_exists=False)


@pytest.mark.parametrize(
    ("answers", "installed", "pid_file", "pid_alive", "action"),
    [
        (True, True, True, True, "none"),
        (False, False, False, False, "install"),
        (False, True, False, False, "start"),
        (False, True, True, False, "clear-and-start"),
        (False, True, True, True, "wait"),
    ],
)
def test_what_the_engine_needs(*, answers: bool, installed: bool, pid_file: bool, pid_alive: bool, action: str) -> None:
    assert engine_action(answers=answers, installed=installed, pid_file=pid_file, pid_alive=pid_alive) == action


@pytest.mark.parametrize(
    ("exists", "running", "api", "action"),
    [
        (False, False, False, "create"),
        (True, True, True, "none"),
        (True, False, False, "start"),
        (True, True, False, "wait"),
    ],
)
def test_what_the_node_needs(*, exists: bool, running: bool, api: bool, action: str) -> None:
    """A silent node is waited for: it may have just restarted, and making it anew deletes what is in it."""
    assert node_action(exists=exists, running=running, api_answers=api) == action


def test_another_port_does_not_delete_the_cluster() -> None:
    check_mapping("novacore", 5000, 5000)
    with pytest.raises(Problem, match="make up PORT=5000") as refused:
        check_mapping("novacore", 5000, 5080)
    assert "make down" in refused.value.remedy


def test_a_kind_cluster_of_somebody_else_is_left_alone() -> None:
    with pytest.raises(Problem, match="was not made here"):
        check_mapping("novacore", None, 5000)
