"""Which document a pod ends with, whatever came in which order: real files, mounts swapped as the kubelet swaps them."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from dataclasses import replace

import pytest

from novacore.common.clock import SystemClock
from novacore.common.keyring import DocumentError, KeyRings, TokenError
from novacore.common.metrics import Metrics
from novacore_contracts.keyset import Tombstone
from novacore_contracts.paths import Paths
from tests.kit.keys import Keys, SigningKey
from tests.kit.kubelet import Mount

KEYS = Keys()
NEWEST = 12
REVOKED_FROM = 6
"""From this generation on, key 1 is revoked."""


def document(generation):
    if generation < REVOKED_FROM:
        return KEYS.document("serviceJwt", generation=generation)
    return KEYS.switched("serviceJwt", generation=generation, revoke=True)


SIGNED = {generation: KEYS.sign(document(generation)) for generation in range(1, NEWEST + 1)}
FORGED = KEYS.sign(document(NEWEST), root=SigningKey("root-"))
ROOTS = {"root.jwks": KEYS.root_jwks()}


class Pod:
    """A pod: its mounts and its emptyDir outlive the container, which may start again at any time."""

    def __init__(self, folder, metrics=None):
        self.paths = Paths(folder)
        self.metrics = metrics or Metrics("memory")
        Mount(self.paths.keyset_root, ROOTS)
        self.keyset = Mount(self.paths.keyset, {"serviceJwt.jws": SIGNED[1]})
        self.mounted = 1
        self.restart()

    def restart(self):
        self.rings = KeyRings(self.paths, SystemClock(), self.metrics, rings=("serviceJwt",))
        self.rings.poll()

    @property
    def generation(self):
        return self.rings.ring("serviceJwt").document.generation


def step(pod, dice):
    """Do one thing that happens to a pod; return its name and the highest generation that it offered."""
    what = dice.choice(
        ("mount", "mount", "stale mount", "push", "push", "forged push", "restart", "killed while writing")
    )
    generation = dice.randint(1, NEWEST)
    if what == "mount":
        pod.keyset.write({"serviceJwt.jws": SIGNED[generation]})
        pod.rings.poll()
    elif what == "stale mount":  # the container starts before the kubelet has caught up
        generation = dice.randint(1, 3)
        pod.keyset.write({"serviceJwt.jws": SIGNED[generation]})
        pod.restart()
    elif what == "push":
        pod.rings.push("serviceJwt", SIGNED[generation])
    elif what == "forged push":
        generation = 0
        with pytest.raises(DocumentError):
            pod.rings.push("serviceJwt", FORGED)
    else:
        generation = 0
        if what == "killed while writing":
            (pod.paths.state / ".serviceJwt.part").write_bytes(SIGNED[NEWEST][: dice.randint(0, 400)])
        pod.restart()
    return what, generation


@pytest.mark.invariant("RING-1")
def test_r16_the_generation_never_falls_in_a_thousand_orders(tmp_path):
    done = Counter()
    old = KEYS.service_token("gateway")
    revived, metrics = 0, Metrics("memory")
    for number in range(1000):
        dice = random.Random(number)
        folder = tmp_path / str(number)
        pod, highest = Pod(folder, metrics), 1
        for _ in range(dice.randint(3, 6)):
            what, offered = step(pod, dice)
            highest = max(highest, offered)
            done[what] += 1
            assert pod.generation == highest, (number, what)
            if highest >= REVOKED_FROM:
                with pytest.raises(TokenError, match="kid_revoked"):
                    pod.rings.verify("serviceJwt", old)
                revived += 1
            else:
                assert pod.rings.verify("serviceJwt", old)

    assert sum(done.values()) > 4000
    assert min(done[what] for what in ("mount", "stale mount", "push", "forged push", "restart")) > 400
    assert revived > 1500, "the old key was seldom revoked: nothing could have revived it"


@pytest.mark.invariant("RING-2")
def test_a_bad_document_is_counted_once_however_often_it_is_looked_at(tmp_path):
    pod = Pod(tmp_path)
    pod.keyset.write({"serviceJwt.jws": FORGED})
    for _ in range(3):
        pod.rings.poll()
        pod.rings.load()

    assert pod.metrics.value("novacore_keyset_load_errors_total", ring="serviceJwt") == 1


@pytest.mark.invariant("RING-2")
@pytest.mark.parametrize("jwks", [b"", b"{}", b'{"keys": []}', b"not json", b'{"keys": [{"kid": "r"}]}'])
def test_a_root_that_is_none_leaves_the_last_one(tmp_path, jwks):
    pod = Pod(tmp_path)
    Mount(pod.paths.keyset_root).write({"root.jwks": jwks})
    pod.keyset.write({"serviceJwt.jws": SIGNED[2]})
    pod.rings.poll()

    assert pod.generation == 2


def test_a_document_of_the_next_root_is_taken_when_that_root_is_mounted(tmp_path):
    pod, other = Pod(tmp_path), SigningKey("root-")
    signed = KEYS.sign(document(7), root=other)
    pod.keyset.write({"serviceJwt.jws": signed})
    pod.rings.poll()
    assert pod.generation == 1

    both = {"keys": [{**key.jwk, "kid": key.kid} for key in (KEYS.root, other)]}
    Mount(pod.paths.keyset_root).write({"root.jwks": json.dumps(both).encode()})
    pod.rings.poll()

    assert pod.generation == 7


def test_a_process_is_not_caught_up_while_its_mount_is_ahead_and_stays_so_once_it_was(tmp_path):
    pod, other = Pod(tmp_path), SigningKey("root-")
    assert pod.rings.caught_up
    pod.keyset.write({"serviceJwt.jws": KEYS.sign(document(7), root=other)})
    pod.rings.poll()
    assert pod.rings.caught_up, "keys make a pod unready at its start only"

    pod.restart()

    assert pod.rings.ready
    assert not pod.rings.caught_up
    pod.rings.push("serviceJwt", SIGNED[7])
    assert pod.rings.caught_up


def test_a_mount_that_says_nothing_does_not_hold_a_process_back(tmp_path):
    pod = Pod(tmp_path)
    pod.keyset.write({"serviceJwt.jws": b"garbage"})
    pod.restart()

    assert pod.rings.caught_up
    assert pod.rings.ring("serviceJwt").via == "disk"


def test_a_tombstone_wins_over_an_entry(tmp_path):
    pod = Pod(tmp_path)
    kid = KEYS.standby["serviceJwt"].kid
    both = KEYS.document("serviceJwt", generation=2, tombstones=(Tombstone(kid, "revoked", int(time.time()) + 60),))
    pod.rings.push("serviceJwt", KEYS.sign(both))

    with pytest.raises(TokenError, match="kid_revoked"):
        pod.rings.verify("serviceJwt", KEYS.service_token("gateway", key=KEYS.standby["serviceJwt"]))
    assert pod.rings.report()["serviceJwt"]["kids"] == [KEYS.active["serviceJwt"].kid]


def test_a_kid_that_is_not_its_keys_thumbprint_is_refused(tmp_path):
    pod = Pod(tmp_path)
    first, second = KEYS.document("serviceJwt", generation=2).keys
    swapped = (replace(first, material=second.material), replace(second, material=first.material))

    with pytest.raises(DocumentError, match="thumbprint"):
        pod.rings.push("serviceJwt", KEYS.sign(KEYS.document("serviceJwt", generation=2, keys=swapped)))
