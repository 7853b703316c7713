"""What an error tells a caller."""

import pytest

from model.errors import NotReady, TooBusy


@pytest.mark.parametrize("kind", [TooBusy, NotReady])
def test_those_refused_together_do_not_come_back_together(kind: type[TooBusy | NotReady]) -> None:
    errors = [kind("later", retry_after_s=10.0) for _ in range(200)]
    waits = [int(error.headers["Retry-After"]) for error in errors]
    assert min(waits) >= 8
    assert max(waits) <= 12
    assert len(set(waits)) > 1
    assert waits == [error.retry_after_s for error in errors]


@pytest.mark.parametrize("wait", [0.0, 0.1, -5.0])
def test_nobody_is_told_to_come_back_at_once(wait: float) -> None:
    assert TooBusy("later", retry_after_s=wait).headers["Retry-After"] == "1"


def test_a_wait_without_end_is_told_as_about_a_minute() -> None:
    assert 48 <= TooBusy("later", retry_after_s=float("inf")).retry_after_s <= 72
