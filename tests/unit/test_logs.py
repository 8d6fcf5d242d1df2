from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

import pytest

from flysync import logs
from flysync.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Iterator

CANARY = "c4nary-v4lue"


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Leave the loggers of this process as they were."""
    before = (logs.LOGGER.handlers, logs.LOGGER.propagate, logs.LOGGER.level)
    others = {name: logging.getLogger(name).level for name in logs.SILENT}
    yield
    logs.LOGGER.handlers, logs.LOGGER.propagate = before[0], before[1]
    logs.LOGGER.setLevel(before[2])
    for name, level in others.items():
        logging.getLogger(name).setLevel(level)


@pytest.mark.parametrize(
    ("verbosity", "shown"),
    [
        (-1, ["error"]),
        (0, ["warning", "error"]),
        (1, ["info", "warning", "error"]),
        (2, ["debug", "info", "warning", "error"]),
    ],
)
def test_verbosity_decides_what_is_shown(capsys: pytest.CaptureFixture[str], verbosity: int, shown: list[str]) -> None:
    """From errors only to every detail."""
    logs.set_up(verbosity=verbosity)
    for level in ("debug", "info", "warning", "error"):
        getattr(logs.LOGGER, level)("said")

    assert [f"{level}: said" for level in shown] == capsys.readouterr().err.splitlines()


def test_known_secrets_are_masked_and_texts_of_exceptions_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    """In text and in JSON, arguments and exceptions included."""
    for as_json in (False, True):
        logs.set_up(secrets=[Secret(CANARY)], as_json=as_json)
        error = RuntimeError("other text")
        logs.LOGGER.error("failed with %s", CANARY, extra={"run_id": "run1"}, exc_info=error)
        told = capsys.readouterr().err

        assert CANARY not in told
        assert "other text" not in told
        assert "failed with **** (RuntimeError)" in told
        assert 1 == told.count("\n")
        if as_json:
            assert ("error", "run1") == ((line := json.loads(told))["level"], line["run_id"])


def test_a_line_of_text_stays_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """What others wrote adds none, and does not turn the terminal around."""
    logs.set_up()
    logs.LOGGER.warning("app %s", "x\n\x1b[31m")

    assert "warning: app x\\n\\x1b[31m\n" == capsys.readouterr().err


def test_loggers_of_others_are_silent_and_the_root_is_left_alone() -> None:
    """They print what they are given, values included."""
    root = logging.getLogger().handlers
    logs.set_up(verbosity=2)

    assert {logging.CRITICAL} == {logging.getLogger(name).level for name in logs.SILENT}
    assert (root, False) == (logging.getLogger().handlers, logs.LOGGER.propagate)
