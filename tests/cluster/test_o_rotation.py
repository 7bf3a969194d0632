"""Keys that sign tokens are changed under load, held up by a frozen pod, revoked, and mended after a hand's edit.

The last file of its folder: it makes the installation anew, under an operator whose rotations take seconds.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from novacore_contracts.keyset import RingDocument
from novacore_contracts.services import SERVICES
from tests.cluster.conftest import NAMESPACE, VALUES, change_spec, ready
from tests.cluster.kube import Kube, Manifest, condition, until
from tests.cluster.plugin import Plugin
from tests.cluster.traffic import ROUTES, Traffic

RING = "serviceJwt"
QUICK = VALUES.with_name("quick.yaml")
ROTATIONS = 5
REVOCATIONS = 3
PODS = len(SERVICES)


@pytest.fixture(scope="module")
def quick(kube: Kube, deploy: Any) -> str:
    """The installation, made anew under the test profile: its keys must be proven once before a test begins."""
    kube.run("delete", "namespace", NAMESPACE, "--ignore-not-found", "--wait=true", timeout_s=180)
    deploy("--operator-values", str(QUICK))
    ready(kube)
    until(
        lambda: [entry for entry in ring(kube).get("history", ()) if entry["trigger"] == "install"],
        within_s=90,
        what="the first keys are proven and recorded",
        report=lambda: kube.report(NAMESPACE),
    )
    return NAMESPACE


def ring(kube: Kube, name: str = RING) -> Manifest:
    """Return what the status says of a ring."""
    found: Manifest = kube.must("nova", "novacore", NAMESPACE).get("status", {}).get("rings", {}).get(name, {})
    return found


def document(kube: Kube, name: str = RING) -> RingDocument:
    """Return the ring's document, as it lies in the Secret."""
    data = kube.must("secret", "novacore-keyset", NAMESPACE)["data"]
    payload = base64.b64decode(data[f"{name}.jws"]).decode().split(".")[1]
    return RingDocument.from_bytes(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))


def restarts(kube: Kube) -> dict[str, int]:
    """Return pod -> restarts of its containers."""
    return {
        pod["metadata"]["uid"]: sum(state["restartCount"] for state in pod["status"].get("containerStatuses", ()))
        for pod in kube.list("pods", NAMESPACE)
        if pod["status"].get("phase") == "Running"
    }


def idle(kube: Kube) -> None:
    """Wait until the ring has a proven standby, nothing is under way, and no pod is on its way out."""

    def settled() -> bool:
        found = ring(kube)
        going = [pod for pod in kube.list("pods", NAMESPACE) if "deletionTimestamp" in pod["metadata"]]
        standby = "pending" in {key["state"] for key in found["keys"]}
        return not going and standby and found["phase"] == "idle" and found["acked"] == f"{PODS}/{PODS}"

    until(
        settled,
        within_s=120,
        what=f"{RING} is idle with a standby",
        report=lambda: json.dumps(ring(kube), indent=1) + kube.report(NAMESPACE),
    )


def pod_of(kube: Kube, service: str) -> Manifest:
    """Return a service's one pod that stays."""
    pods = kube.list("pods", NAMESPACE, f"app.kubernetes.io/component={service}")
    (found,) = (pod for pod in pods if "deletionTimestamp" not in pod["metadata"])
    return found


def done(command: Plugin, *words: str) -> Manifest:
    """Run a verb with `--wait` and return the entry of the history that it ended with."""
    ran = command(*words, "-n", NAMESPACE, "--wait", "--timeout", "3m", "-o", "json")
    assert ran.code == 0, ran
    entry: Manifest = ran.json["entry"]
    return entry


def test_r01_rotations_under_load_fail_no_request_and_restart_no_pod(
    quick: str, kube: Kube, url: str, command: Plugin, say: Callable[[str], None]
) -> None:
    idle(kube)
    before, first = restarts(kube), document(kube)
    entries = []
    with Traffic(url, users=8) as traffic:
        for _ in range(ROTATIONS):
            idle(kube)
            entries.append(done(command, "rotate", RING))
            assert len(document(kube).keys) <= 4
    say(f"rotation: {ROTATIONS} under load, {[entry['seconds'] for entry in entries]} s each; {traffic.line()}")
    assert traffic.failures == []
    assert traffic.total > 50 * ROTATIONS
    assert set(traffic.by_route) >= set(ROUTES)
    assert restarts(kube) == before
    assert {entry["acked"] for entry in entries} == {f"{PODS}/{PODS}"}
    assert len({entry["kids"][0] for entry in entries} | {first.active_kid}) == ROTATIONS + 1
    shown = command("keys", "-n", NAMESPACE, "-o", "json").json["rings"][RING]
    assert shown["chain"] == [], "the history of hashes holds"


def test_r03_a_frozen_pod_holds_the_switch_up_and_is_named(
    quick: str, kube: Kube, url: str, command: Plugin, say: Callable[[str], None]
) -> None:
    idle(kube)
    pod = pod_of(kube, "noble-spirit")
    name, active = pod["metadata"]["name"], document(kube).active_kid
    signal(kube, pod, "STOP")
    try:
        began = time.monotonic()
        assert command("rotate", RING, "-n", NAMESPACE).code == 0

        def named() -> str | None:
            found = condition(kube.get("nova", "novacore", NAMESPACE), "RotationBlocked")
            return found["message"] if found.get("status") == "True" and name in found["message"] else None

        message = until(named, within_s=15, what=f"RotationBlocked names {name}", report=lambda: kube.report(NAMESPACE))
        say(f"rotation: a frozen pod was named after {time.monotonic() - began:.1f} s: {message}")
        assert document(kube).active_kid == active, "the old key signs on"
    finally:
        signal(kube, pod, "CONT")
    until(
        lambda: document(kube).active_kid != active,
        within_s=60,
        what="the switch, once the pod answers again",
        report=lambda: kube.report(NAMESPACE),
    )
    until(
        lambda: condition(kube.get("nova", "novacore", NAMESPACE), "RotationBlocked").get("status") == "False",
        within_s=30,
        what="RotationBlocked is over",
    )


def signal(kube: Kube, pod: Manifest, name: str) -> None:
    """Send a signal to all processes of a pod's container, from its node: `STOP` freezes it."""
    container = pod["status"]["containerStatuses"][0]["containerID"].partition("://")[2]
    processes = f"grep -l {container} /proc/[0-9]*/cgroup | cut -d/ -f3"
    kube.on_node("sh", "-c", f'found=$({processes}); test -n "$found" && kill -{name} $found')


def test_a_pod_that_lags_behind_is_evicted_when_the_resource_says_so(
    quick: str, kube: Kube, command: Plugin, say: Callable[[str], None]
) -> None:
    idle(kube)
    pod = pod_of(kube, "noble-spirit")
    rings = {RING: {"onStraggler": "replace-pod", "ackTimeoutSeconds": 60}}
    with change_spec(kube, {"secrets": {"rings": rings}}):
        signal(kube, pod, "STOP")
        began = time.monotonic()
        entry = done(command, "rotate", RING)
        say(
            f"rotation: a frozen pod was evicted, and the key proven by its successor, in {time.monotonic() - began:.0f} s"
        )
    successor = pod_of(kube, "noble-spirit")
    assert successor["metadata"]["uid"] != pod["metadata"]["uid"]
    assert entry["acked"] == f"{PODS}/{PODS}"
    ready(kube)


def test_r14_a_pod_that_does_not_follow_a_revocation_is_fenced_and_replaced(
    quick: str, kube: Kube, command: Plugin, say: Callable[[str], None]
) -> None:
    idle(kube)
    leaked = document(kube).active_kid
    pod = pod_of(kube, "noble-spirit")
    signal(kube, pod, "STOP")
    began = time.monotonic()
    entry = done(command, "revoke", leaked, "--reason", "a test", "--yes")
    say(f"revoked with a frozen pod: complete after {time.monotonic() - began:.1f} s")
    events = {event["reason"]: event["note"] for event in kube.list("events.events.k8s.io", NAMESPACE)}
    assert pod["metadata"]["name"] in events["PodFenced"]
    assert entry["outcome"] == "revoked"
    ready(kube)
    successor = pod_of(kube, "noble-spirit")
    assert successor["metadata"]["uid"] != pod["metadata"]["uid"]


def test_a_revoked_key_is_refused_within_seconds_and_no_user_notices(
    quick: str, kube: Kube, url: str, command: Plugin, say: Callable[[str], None]
) -> None:
    idle(kube)
    before = restarts(kube)
    entries = []
    with Traffic(url, users=4) as traffic:
        for _ in range(REVOCATIONS):
            idle(kube)
            leaked = document(kube).active_kid
            entry = done(command, "revoke", leaked, "--reason", "a test", "--yes")
            entries.append(entry)
            after = document(kube)
            assert leaked not in {key.kid for key in after.keys}
            assert (leaked, "revoked") in {(stone.kid, stone.why) for stone in after.tombstones}
            assert (entry["outcome"], entry["reason"]) == ("revoked", "a test")
    say(f"revoked: refused by every pod after {[entry['seconds'] for entry in entries]} s; {traffic.line()}")
    assert traffic.failures == []
    assert traffic.total > 50
    assert restarts(kube) == before
    assert max(float(entry["seconds"]) for entry in entries) <= 5
    assert condition(kube.must("nova", "novacore", NAMESPACE), "EmergencyIncomplete")["status"] == "False"


@pytest.mark.parametrize("how", ["edited", "deleted"])
def test_r36_a_keyset_changed_by_hand_is_back_one_generation_higher(
    quick: str, kube: Kube, url: str, how: str, say: Callable[[str], None]
) -> None:
    idle(kube)
    before = document(kube)
    with Traffic(url, users=2) as traffic:
        began = time.monotonic()
        if how == "edited":
            patch = json.dumps({"data": {f"{RING}.jws": base64.b64encode(b"x.y.z").decode()}})
            kube.run("patch", "secret", "novacore-keyset", "-n", NAMESPACE, "--type=merge", "-p", patch)
        else:
            kube.run("delete", "secret", "novacore-keyset", "-n", NAMESPACE)

        def back() -> RingDocument | None:
            if kube.get("secret", "novacore-keyset", NAMESPACE) is None:
                return None
            try:
                found = document(kube)
            except ValueError:
                return None
            return found if found.generation > before.generation else None

        after = until(back, within_s=5, what="the document is back", report=lambda: kube.report(NAMESPACE), every_s=0.1)
        say(f"rotation: a keyset {how} by hand was back after {time.monotonic() - began:.1f} s")
        until(
            lambda: ring(kube).get("acked") == f"{PODS}/{PODS}" and ring(kube)["generation"] >= after.generation,
            within_s=30,
            what="every pod holds it",
        )
    assert (after.active_kid, {key.kid for key in after.keys}) == (before.active_kid, {key.kid for key in before.keys})
    assert traffic.failures == []
    events = kube.list("events.events.k8s.io", NAMESPACE)
    assert "SecretRepaired" in {event["reason"] for event in events}


def test_a_denied_service_gets_new_pods_and_new_tokens(
    quick: str, kube: Kube, command: Plugin, say: Callable[[str], None]
) -> None:
    idle(kube)
    before = {pod["metadata"]["uid"] for pod in kube.list("pods", NAMESPACE, "app.kubernetes.io/component=memory")}
    entry = done(command, "deny", "memory", "--yes")
    ready(kube)
    after = {pod["metadata"]["uid"] for pod in kube.list("pods", NAMESPACE, "app.kubernetes.io/component=memory")}
    say(f"denied: memory's tokens refused and its pods replaced after {entry['seconds']} s")
    assert entry["outcome"] == "denied"
    assert not before & after
    assert [denial.sub for denial in document(kube).deny] == ["memory"]


def test_r13_a_drained_key_is_refused_within_15_s_and_nobody_meets_a_401(
    quick: str, kube: Kube, url: str, command: Plugin, say: Callable[[str], None]
) -> None:
    idle(kube)
    suspect = document(kube).active_kid
    with Traffic(url, users=4) as traffic:
        began = time.monotonic()
        entry = done(command, "revoke", suspect, "--reason", "a suspicion", "--mode", "drain", "--yes")
        took = time.monotonic() - began
    say(f"drained: refused by every pod {took:.1f} s after the command began; {traffic.line()}")
    assert (entry["outcome"], entry["acked"]) == ("revoked", f"{PODS}/{PODS}")
    assert took <= 15
    assert traffic.failures == []
    assert traffic.total > 20


def test_r22_no_pod_has_a_private_key_or_a_secret_that_is_not_its_own(
    quick: str, kube: Kube, say: Callable[[str], None]
) -> None:
    known = secrets_of(kube)
    everything = {word for words in known.values() for word in words}
    assert len(everything) > 20
    for service in SERVICES:
        own = {word for name in MOUNTED.get(service.name, ()) for word in known[name]}
        own |= known[f"novacore-{service.name}-creds"]
        found = words_found(kube, service.name, everything)
        assert found or not own, f"{service.name}: not even its own secrets were found, so the search proves nothing"
        assert found - own == set(), f"{service.name} holds {len(found - own)} secrets that are not its own"
    say(f"file systems of {len(SERVICES)} pods: {len(everything)} secret values searched, each pod has its own alone")


def test_r37_no_secret_value_is_in_logs_events_status_annotations_metrics_or_environments(
    quick: str, kube: Kube, say: Callable[[str], None]
) -> None:
    everything = {word for words in secrets_of(kube).values() for word in words}
    places = {
        "the resource": kube.run("get", "nova", "-A", "-o", "json"),
        "events": kube.run("get", "events", "-A", "-o", "json"),
        "objects": kube.run(
            "get", "deploy,sts,svc,cm,job,pods,netpol,sa,controllerrevisions", "-n", NAMESPACE, "-o", "json"
        ),
        "metadata of Secrets": json.dumps([item["metadata"] for item in kube.list("secrets", NAMESPACE)]),
    }
    for space in (NAMESPACE, "novacore-system"):
        for pod in kube.list("pods", space):
            name = pod["metadata"]["name"]
            places[f"logs of {name}"] = kube.logs(f"pod/{name}", space, "--all-containers")
    for service in SERVICES:
        places[f"metrics and environments of {service.name}"] = kube.exec(
            f"deploy/novacore-{service.name}", NAMESPACE, "python", "-c", TOLD
        )
    assert "novacore_keyring_version" in places["metrics and environments of gateway"]
    hits = {place for place, text in places.items() for word in everything if word in text}
    say(f"{len(everything)} secret values in {len(places)} places: {len(hits)} hits")
    assert hits == set()


MOUNTED = {
    "auth-billing": ("novacore-svcjwt-private", "novacore-userjwt-private"),
    "noble-spirit": ("novacore-policy-private",),
}
"""Secrets that a service mounts beside its own credentials."""

TOLD = """
import glob, urllib.request
print(urllib.request.urlopen('http://127.0.0.1:9090/metrics', timeout=10).read().decode())
for file in glob.glob('/proc/[0-9]*/environ') + glob.glob('/proc/[0-9]*/cmdline'):
    try:
        print(open(file, 'rb').read().decode(errors='replace'))
    except OSError:
        pass
"""

SEARCH = """
import json, os, sys
words = [word.encode() for word in json.load(sys.stdin)]
found = set()
for folder, folders, files in os.walk('/'):
    if folder == '/':
        folders[:] = [name for name in folders if name not in ('proc', 'sys', 'dev')]
    for name in files:
        path = os.path.join(folder, name)
        try:
            if os.path.isfile(path) and os.path.getsize(path) < 4 << 20:
                data = open(path, 'rb').read()
                found |= {word for word in words if word in data}
        except OSError:
            pass
print(json.dumps([word.decode() for word in found]))
"""


def words_found(kube: Kube, service: str, words: set[str]) -> set[str]:
    """Return which of the words stand in some file of a service's pod. They go there by standard input."""
    out = kube.exec(
        f"deploy/novacore-{service}",
        NAMESPACE,
        "python",
        "-c",
        SEARCH,
        stdin=json.dumps(sorted(words)),
        timeout_s=120,
    )
    return set(json.loads(out))


def secrets_of(kube: Kube) -> dict[str, set[str]]:
    """Return Secret -> the texts in it that nobody else may have, as they stand in a file.

    Of a signed document that is the signed text: its payload holds the password, encoded.
    """
    found: dict[str, set[str]] = {}
    for space in (NAMESPACE, "novacore-system"):
        for secret in kube.list("secrets", space):
            name = secret["metadata"]["name"]
            if not name.startswith("novacore-") or name == "novacore-keyset":
                continue
            data = {key: base64.b64decode(value).decode() for key, value in (secret.get("data") or {}).items()}
            words = {word for key, value in data.items() for word in _secret_words(key, value)}
            found[name] = found.get(name, set()) | {word for word in words if len(word) >= 32}
    # The key that hashes users' ids in log lines is the same for all.
    shared = set.intersection(*(found[f"novacore-{service.name}-creds"] for service in SERVICES))
    return {name: words - shared for name, words in found.items()}


def _secret_words(key: str, value: str) -> Iterator[str]:
    if key.endswith(".jwk"):
        yield json.loads(value)["d"]
    elif key.endswith(".jws"):
        yield value
        payload = value.split(".")[1]
        document = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        for entry in document["keys"]:
            yield from (str(entry["material"][name]) for name in ("password", "api_key") if name in entry["material"])
    elif key == "tls.key":
        yield from value.splitlines()[1:2]
    elif key in ("password", "log.key"):
        yield value
