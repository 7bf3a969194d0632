"""What `keys` and `rotate --wait` show."""

from dataclasses import replace
from typing import Any

from rich.console import Console

from novacore_operator.cli import keys_view
from novacore_operator.rotation import history, told
from novacore_operator.rotation.history import Entry, Outcome

ENTRY = Entry(
    "serviceJwt-2", Outcome.ACTIVATED, "rotate/n1", 10, 3, kids=("svc-b", "svc-a"), seconds=6.1, acked="27/27"
)


def resource(**ring: Any) -> dict[str, Any]:
    body = {
        "phase": "prove",
        "generation": 3,
        "acked": "26/27",
        "keys": [{"kid": "svc-a", "number": 1, "state": "active", "since": "2026-11-29T00:00:00Z"}],
        "history": [told.entry_status(entry) for entry in history.append((), ENTRY)],
    }
    return {"metadata": {"name": "nova"}, "spec": {}, "status": {"rings": {"serviceJwt": body | ring}}}


def shown(found: dict[str, Any]) -> str:
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115
    console.print(keys_view.screen(keys_view.rings_of(found)))
    return console.export_text()


def test_keys_shows_rings_keys_and_an_unbroken_history() -> None:
    text = shown(resource())
    for words in ("serviceJwt", "svc-a", "active", "26/27", "rotate/n1", "27/27", "the chain of hashes holds"):
        assert words in text


def test_an_altered_history_is_told() -> None:
    altered = resource()
    altered["status"]["rings"]["serviceJwt"]["history"][0]["acked"] = "1/1"
    assert keys_view.rings_of(altered)["serviceJwt"]["chain"]
    assert "history altered" in shown(altered)


def test_a_request_is_followed_until_its_entry_is_there() -> None:
    waiting = resource(history=[], pending=["memory-1 does not answer"])
    under_way = keys_view.progress(waiting, "serviceJwt", "rotate/n1")
    assert under_way.entry is None
    assert "26/27" in under_way.line
    assert "memory-1 does not answer" in under_way.line
    done = keys_view.progress(resource(), "serviceJwt", "rotate/n1")
    assert done.entry is not None
    assert done.line == "serviceJwt: key svc-b signs, proven by 27/27 pods, after 6.1 s"


def test_a_revocation_is_over_when_the_key_is_refused_not_when_another_one_signs() -> None:
    chain = history.append((), replace(ENTRY, trigger="revoke/n1"))
    found = resource(history=[told.entry_status(entry) for entry in chain])
    assert keys_view.progress(found, "serviceJwt", "revoke/n1").entry is None
    chain = history.append(chain, replace(ENTRY, id="svc-a", outcome=Outcome.REVOKED, trigger="revoke/n1"))
    found = resource(history=[told.entry_status(entry) for entry in chain])
    assert keys_view.progress(found, "serviceJwt", "revoke/n1").line == (
        "serviceJwt: svc-a is refused by 27/27 pods, after 6.1 s"
    )


def test_a_blocked_rotation_says_by_whom() -> None:
    found = resource(history=[])
    found["status"]["conditions"] = [{"type": "RotationBlocked", "status": "True", "message": "memory-1 is frozen"}]
    assert "memory-1 is frozen" in keys_view.progress(found, "serviceJwt", "rotate/n2").line


def test_a_paused_installation_refuses() -> None:
    found = resource(history=[])
    found["spec"] = {"paused": True}
    assert "paused" in keys_view.progress(found, "serviceJwt", "rotate/n2").refused
