"""When waiting ends."""

from __future__ import annotations

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacore_operator.cli.status_view import summary
from novacore_operator.cli.waiting import Duration, Verdict, judge, told
from tests.unit.operator.cli.cluster import condition, failing, resource


@given(st.integers(0, 100), st.integers(0, 59), st.integers(0, 59))
def test_a_duration_is_the_sum_of_its_parts(hours: int, minutes: int, seconds: int) -> None:
    total = hours * 3600 + minutes * 60 + seconds
    if total:
        assert Duration().convert(f"{hours}h{minutes}m{seconds}s", None, None) == total
        assert Duration().convert(str(total), None, None) == total


@pytest.mark.parametrize("text", ["", "s", "5d", "1.5h", "-1s", "1m1h", "0", "999999h", "٣s", "1 m"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        Duration().convert(text, None, None)


def test_an_old_rollback_does_not_end_the_wait_for_a_new_spec() -> None:
    found = failing("RollingOut")
    found["status"]["conditions"].append(condition("RolledBack", "True", "ImagePullFailed", generation=2))
    assert judge(summary(found), waited_s=1, timeout_s=10) is Verdict.WAIT


def test_ready_counts_even_when_the_time_is_over() -> None:
    assert judge(summary(resource()), waited_s=11, timeout_s=10) is Verdict.READY
    assert judge(summary(failing()), waited_s=10, timeout_s=10) is Verdict.TIMED_OUT


def test_a_generation_nobody_acted_on_points_to_the_doctor() -> None:
    shown = summary(resource(generation=4))
    assert "has not acted on generation 4" in told(shown, Verdict.TIMED_OUT, waited_s=60)["text"]
