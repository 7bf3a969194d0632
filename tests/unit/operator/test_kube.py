"""The client's door: every failure of the wire becomes the operator's own error."""

from __future__ import annotations

import json
from typing import Any

import aiohttp
import pytest

from novacore_operator.errors import Blocked, NovaError, Retry
from novacore_operator.kube import ApiException, Kube, _translated


class Cut:
    """An answer whose body breaks off."""

    def __init__(self, outcome: Exception | bytes) -> None:
        self._outcome = outcome

    async def read(self) -> bytes:
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome


@pytest.mark.parametrize(
    "outcome", [aiohttp.ClientPayloadError("cut"), TimeoutError(), ConnectionResetError(), b'{"items": [', b""]
)
async def test_an_answer_cut_in_mid_body_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, outcome: Exception | bytes
) -> None:
    async def raw(*_: Any, **__: Any) -> Cut:
        return Cut(outcome)

    kube = Kube.__new__(Kube)
    monkeypatch.setattr(kube, "_raw", raw, raising=False)
    with pytest.raises(Retry):
        await kube._call("get", "Deployment")


@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [
        (422, "spec is invalid", Blocked),
        (500, "failed to create typed patch object (n/d; apps/v1, Kind=Deployment): .spec: expected map", Blocked),
        (500, "etcdserver: request timed out", Retry),
    ],
)
def test_what_asking_again_cannot_mend_is_for_a_person(status: int, message: str, kind: type[NovaError]) -> None:
    answer = ApiException(status=status, reason="no")
    answer.body = json.dumps({"message": message})
    found = _translated(answer, "apply Deployment d in n")
    assert type(found) is kind
    assert message in found.message
