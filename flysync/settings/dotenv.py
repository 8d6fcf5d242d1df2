"""The environment and files as sources of settings; files are read without interpolation."""

from __future__ import annotations

import getpass
import io
import os
import re
import stat
import threading
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from flysync.settings.loading import Source

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

T = TypeVar("T")

#: The most characters of a file: so many take a few seconds to read.
_LONGEST = 1_000_000
#: Seconds for reading a file, which may be a pipe.
_READ_S = 2.0


def sources(
    env_file: Path | None,
    environ: Mapping[str, str] | None,
    directory: Path | None,
    *,
    dot_env: bool = True,
    runner: str | None = None,
) -> list[Source]:
    """Give the sources of this process' settings in order of precedence; with *dot_env* that of *directory*, too."""
    found = [Source(label="--runner", values={} if runner is None else {"FLYSYNC_RUNNER": runner})]
    found.append(Source(label="environment", values=os.environ if environ is None else environ))
    found += [] if env_file is None else [read(env_file)]
    path = os.path.join(directory or "", ".env")  # noqa: PTH118 - pathlib's functions raise where one may not look
    is_named = env_file is not None and os.path.realpath(env_file) == os.path.realpath(path)
    if dot_env and os.path.exists(path) and not is_named:  # noqa: PTH110
        found.append(read(Path(path), is_dot_env=True))
    return [*found, Source(label="default", values={"FLYSYNC_ACTOR": _user()})]


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # in a container that has no name for its user
        return f"uid {os.getuid()}"


def read(path: Path, *, is_dot_env: bool = False) -> Source:
    """Give the settings in a file, or why it cannot be read; nothing of a line is in any message."""
    from dotenv.parser import parse_stream

    values: dict[str, str | None] = {}
    lines, unread = {}, ""
    try:
        text = run_with_timeout(partial(_text, path, is_dot_env=is_dot_env), _READ_S)
        for binding in parse_stream(io.StringIO(text)):
            # A binding begins with the empty lines above it.
            empty, begin = re.match(r"(\s*)(?:export\s+)?(\w*)", binding.original.string).groups()  # type: ignore[union-attr]
            name = begin if binding.error else binding.key
            if name and (binding.value is not None or name not in values):  # `export NAME` may follow its line
                values[name], lines[name] = binding.value, binding.original.line + empty.count("\n")
    except TimeoutError:
        unread = f"it did not end within {_READ_S:.0f} s"
    except (OSError, ValueError) as error:  # the latter also for a NUL in the path
        unread = getattr(error, "strerror", None) or str(error)
    label = path.name if is_dot_env else str(path)
    return Source(label=label, values=values, lines=lines, is_dot_env=is_dot_env, unread=unread)


def _text(path: Path, *, is_dot_env: bool) -> str:
    with path.open(encoding="utf-8-sig", errors="surrogateescape") as stream:  # others' lines are in any encoding
        if is_dot_env and os.fstat(stream.fileno()).st_mode & stat.S_IWOTH:
            raise ValueError("everybody may write it; chmod o-w .env")
        text = stream.read(_LONGEST + 1)
    if len(text) > _LONGEST or "\0" in text:
        raise ValueError(f"it is not a text of up to {_LONGEST:,} characters in UTF-8")
    return text


def run_with_timeout(work: Callable[[], T], timeout_s: float) -> T:
    """Do *work* in a thread that can be abandoned; TimeoutError says that it was."""
    answer: Future[T] = Future()

    def run() -> None:
        try:
            answer.set_result(work())
        except Exception as error:  # noqa: BLE001 - raised for the caller below
            answer.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return answer.result(timeout_s)
