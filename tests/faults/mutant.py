"""pytest, as a warm process (`warm.py`) runs it on a copy of the package."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import NoReturn

import pytest

#: Above any exit code of pytest's, whose "some tests failed" is also what an exception ends a process with.
ENDED = 100


class _Told:
    """What pytest has come to (a plugin)."""

    code: int = pytest.ExitCode.INTERNAL_ERROR

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        """Keep it."""
        self.code = int(exitstatus)


def main(*, copy: str) -> NoReturn:
    """Run pytest with this process's arguments on the package and the doubles in *copy*; it exits with `ENDED` more."""
    sys.path[:0] = [f"{copy}/tests", copy]
    told = _Told()
    with suppress(Exception):  # what a test that was cut short has left open is found last, and says nothing of it
        pytest.main(sys.argv[1:], plugins=[told])
    sys.exit(ENDED + told.code)
