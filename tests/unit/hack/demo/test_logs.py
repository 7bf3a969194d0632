"""One request is found in every service's lines and nothing else is."""

from __future__ import annotations

import json

from hack.demo.logs import Line, matching, moment, render

ID = "0123456789abcdef"


def line(**fields: object) -> str:
    return json.dumps({"ts": "2026-05-01T10:00:00.5Z", "service": "memory", "event": "request", **fields})


def test_lines_that_carry_the_id_as_a_whole_value_are_kept() -> None:
    lines = [
        line(request_id=ID),
        line(run_id=ID),
        line(request_id=ID + "0"),
        line(note=f"about {ID}"),
        f"plain text about {ID}",
        f'["{ID}"]',
    ]
    assert [found.fields.get("request_id") or found.fields.get("run_id") for found in matching(lines, ID, "p")] == [
        ID,
        ID,
    ]


def test_a_line_without_a_service_is_named_after_its_pod() -> None:
    (found,) = matching([json.dumps({"request_id": ID})], ID, "novacore-memory-1")
    assert found.service == "novacore-memory-1"


def test_times_sort_across_notations_and_zones() -> None:
    earlier, later = "2026-05-01T12:00:00.100+02:00", "2026-05-01T10:00:00.200Z"
    assert moment(earlier) < moment(later)
    assert moment("1777629600.5") == 1777629600.5
    assert moment("") == 0.0


def test_a_printed_line_has_service_event_and_the_fields_a_person_wants_first() -> None:
    fields = {
        "ts": "2026-05-01T10:00:00Z",
        "service": "memory",
        "event": "request",
        "request_id": ID,
        "user": "u1",
        "status": 200,
        "method": "GET",
        "route": "/memory",
        "detail": "two words",
        "code": None,
    }
    text = render(Line(str(fields["ts"]), "memory", fields))
    assert text.endswith(
        'memory                request  method=GET route=/memory status=200 user=u1 detail="two words"'
    )
    assert ID not in text
