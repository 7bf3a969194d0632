"""From nothing to a chat reply in one command, with one table of times at the end.

A stage that is done already costs what it takes to notice: a second run is quick.
"""

from __future__ import annotations

from hack.cluster import cli as cluster_cli
from hack.cluster import load
from hack.cluster.stages import Stages
from hack.demo.chat import chat
from hack.demo.deploy import deploy
from hack.demo.kube import Cluster
from hack.demo.terminal import say

QUESTION = "In one sentence: what is a Kubernetes operator?"


def up(name: str, port: int, path: str, namespace: str) -> None:
    """Bring up tools, cluster, images, operator and services, and ask a question."""
    stages = Stages()
    taken = cluster_cli.up(name=name, port=port, wanted=path, stages=stages)
    images = cluster_cli.build_images(taken, stages)
    load.load(name, list(images.values()), stages)
    with stages.stage("operator installed, nine services Ready"):
        deploy(Cluster(name), namespace)
    with stages.stage("a user registered, a question answered"):
        chat(f"http://127.0.0.1:{port}", QUESTION)
    say(f"\n{stages.table()}")
    say(
        f'\nThe gateway answers at http://127.0.0.1:{port}. Next: make chat MSG="…", make status, make test, make down.'
    )
