"""The matrix of permissions and the routes that ask for them agree: nothing is granted for nothing."""

from __future__ import annotations

import pytest

from hack.gen.permissions import BEGIN, END, MarksError, files, needed, tables
from novacore_contracts.identity import PERMISSIONS, allows

WITHOUT_A_ROUTE = {"act:user"}
"""Asked for by the header `X-Act-For`, whatever the route."""


def test_what_a_route_asks_for_somebody_holds() -> None:
    asked = needed()
    assert len(asked) >= 8, "the routes were not found: the check would prove nothing"
    nobody = [one for one in asked if not any(allows(granted, one) for granted in PERMISSIONS.values())]
    assert nobody == []


def test_what_a_service_holds_some_route_asks_for() -> None:
    asked = needed()
    idle = {
        (service, permission)
        for service, granted in PERMISSIONS.items()
        for permission in granted - {"*"} - WITHOUT_A_ROUTE
        if not any(allows(frozenset({permission}), one) for one in asked)
    }
    assert idle == set()


def test_a_page_without_its_marks_is_told(tmp_path) -> None:
    page = tmp_path / "docs/guides/service-auth.md"
    page.parent.mkdir(parents=True)
    page.write_text(f"a\n{BEGIN}\nold\n")
    with pytest.raises(MarksError, match="end of permissions"):
        files(tmp_path)

    page.write_text(f"a\n{BEGIN}\nold\n{END}\nb\n")
    assert files(tmp_path)[page] == f"a\n{BEGIN}\n{tables()}\n{END}\nb\n"
