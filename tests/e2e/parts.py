"""Parts of the tests that a machine may lack, and what it runs."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Sequence


def cases(names: str | tuple[str, ...], values: Sequence[Any], *, quick: int, ids: Any = None) -> pytest.MarkDecorator:
    """Parametrize a test; all cases but the first, *quick* of them, are slow."""
    rest = [value if isinstance(names, tuple) else (value,) for value in values[quick:]]
    slow = [pytest.param(*value, marks=pytest.mark.slow) for value in rest]
    return pytest.mark.parametrize(names, [*values[:quick], *slow], ids=ids)


def need(missing: str | None) -> None:
    """Skip the test where a part is missing, for the reason given; in CI that is a failure."""
    if missing and os.environ.get("CI"):
        pytest.fail(missing)
    if missing:
        pytest.skip(missing)


def command_lines() -> list[bytes]:
    """Give the arguments of all processes; one may end while it is looked at."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            lines.append(path.read_bytes())
    return lines


def goes_away(pid: int, directory: str) -> bool:
    """Tell whether a process ends, and a directory is removed, within a minute."""
    give_up = time.monotonic() + 60
    while time.monotonic() < give_up:
        state = b") Z"
        with suppress(OSError):  # it has ended
            state = Path(f"/proc/{pid}/stat").read_bytes()
        if b") Z" in state and not Path(directory).exists():
            return True
        time.sleep(0.02)
    return False
