import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _loggers_as_they_were() -> Iterator[None]:
    """A command run in the test's own process sets up the whole process's log.

    Left so, a test of what is logged fails where it happens to come later in the same process.
    """
    root = logging.getLogger()
    loggers = [root, *root.manager.loggerDict.values()]
    before = [
        (one, one.level, one.propagate, one.disabled, one.handlers[:])
        for one in loggers
        if isinstance(one, logging.Logger)
    ]
    yield
    for one, level, propagate, disabled, handlers in before:
        one.setLevel(level)
        one.propagate, one.disabled = propagate, disabled
        one.handlers[:] = [each for each in one.handlers if each in handlers]
