"""Logging of flysync: one handler on stderr, for the logger `flysync` alone, with every known secret masked."""

from __future__ import annotations

import json
import logging
import traceback
from typing import TYPE_CHECKING

from flysync.model.reports import printable
from flysync.secret import Secret, redact

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Our own logger; the root logger and those of others stay as they are.
LOGGER = logging.getLogger("flysync")
#: Others print what they are given: dotenv quotes lines, a client's own words were never looked at for values.
SILENT = ("dotenv", "dotenv.main", "aiohttp", "asyncio", "psycopg")


class Redacting(logging.Formatter):
    """Lines of text or JSON, without a value that is known, and without the text of exceptions, which may hold one."""

    def __init__(self, secrets: Iterable[Secret], *, as_json: bool) -> None:
        super().__init__("%(levelname)s %(message)s")
        self._secrets = tuple(secrets)
        self._as_json = as_json

    def format(self, record: logging.LogRecord) -> str:
        """Give the line."""
        message = record.getMessage()
        if record.exc_info and record.exc_info[0] is not None:
            message += f" ({record.exc_info[0].__name__})"
        message = redact(message, self._secrets)
        if not self._as_json:
            return printable(f"{record.levelname.lower()}: {message}")
        more = {key: getattr(record, key) for key in ("run_id", "job_id", "action") if hasattr(record, key)}
        return json.dumps({"level": record.levelname.lower(), "message": message, "at": record.created, **more})


def set_up(*, verbosity: int = 0, secrets: Iterable[Secret] = (), as_json: bool = False) -> None:
    """Write warnings to stderr, from verbosity 1 what happens, from 2 every detail; -1 errors only."""
    handler = logging.StreamHandler()
    handler.setFormatter(Redacting(secrets, as_json=as_json))
    LOGGER.handlers = [handler]
    LOGGER.propagate = False
    levels = {-1: logging.ERROR, 0: logging.WARNING, 1: logging.INFO}
    LOGGER.setLevel(levels.get(verbosity, logging.DEBUG))
    for name in SILENT:
        logging.getLogger(name).setLevel(logging.CRITICAL)


def bug_text(error: BaseException) -> list[str]:
    """Give where a bug happened, without the texts of exceptions: they may hold a value."""
    frames = traceback.extract_tb(error.__traceback__)
    where = [f"  {frame.filename}:{frame.lineno} in {frame.name}" for frame in frames]
    return [f"error: a bug in flysync: {type(error).__name__}", *where]
