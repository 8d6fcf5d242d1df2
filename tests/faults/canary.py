"""A value that nobody can mistake, and the search for it: in texts, files, rows, exceptions and processes."""

from __future__ import annotations

import base64
import json
import logging
import os
import shlex
import traceback
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from flysync.sim.loopback import Record

#: Several lines, quotes, a backslash, spaces and letters that JSON, URLs and shells write in other ways.
VALUE = 'kXq7+/9 "canary" it\'s\nsecond%line\\ünd ${more}\nW4z&=last Jp0v'

_SHORTEST = 8


@dataclass(frozen=True)
class Canary:
    """The values that are looked for, each under a name; what is found is told by name and form, never by value."""

    values: Mapping[str, str]

    def found(self, data: bytes | str) -> list[str]:
        """Give the names and forms of what occurs in *data*."""
        raw = data.encode("utf-8", "surrogateescape") if isinstance(data, str) else data
        return [
            f"{name} ({form})" for name, value in self.values.items() for form, piece in forms(value) if piece in raw
        ]

    def in_files(self, root: Path) -> list[str]:
        """Search the names and contents of the files under *root*."""
        found = []
        for path in sorted(root.rglob("*")):
            found += [f"{path}: name has {what}" for what in self.found(str(path.relative_to(root)))]
            if path.is_file() and not path.is_symlink():
                found += [f"{path}: {what}" for what in self.found(path.read_bytes())]
        return found

    def in_exception(self, error: BaseException | None) -> list[str]:
        """Search texts, arguments and attributes of an exception and all behind it, and its frames' locals."""
        found: list[str] = []
        seen: set[int] = set()
        waiting = [error]
        while waiting:
            one = waiting.pop()
            if one is None or id(one) in seen:
                continue
            seen.add(id(one))
            waiting += [one.__cause__, one.__context__]
            kind = type(one).__name__
            shown = {"text": str(one), "repr": repr(one), "args": repr(one.args), "attributes": repr(vars(one))}
            found += [f"{kind} {where}: {what}" for where, text in shown.items() for what in self.found(text)]
            for frame, _ in traceback.walk_tb(one.__traceback__):
                if _is_of_a_test(frame.f_code.co_filename):
                    continue
                for name, value in frame.f_locals.items():
                    found += [f"{kind} {frame.f_code.co_qualname} {name}: {what}" for what in self.found(repr(value))]
        return found

    def in_records(self, service: str, records: Iterable[Record]) -> list[str]:
        """Search what a simulated service was sent, but for the places that have to carry values and tokens."""
        found = []
        for record in records:
            line = f"{service} {record.method} {record.path}"
            headers = {name: value for name, value in record.headers.items() if name.lower() != "authorization"}
            found += [f"{line}: {what}" for what in self.found(f"{record.path}?{record.query} {headers}")]
            found += [f"{line}: {what}" for what in self.found(_body_without_what_it_must_carry(service, record))]
            found += [f"{line}: {what}" for what in self.wide_tokens(record)]
        return found

    def wide_tokens(self, record: Record) -> list[str]:
        """
        Search all of a request for the key of a macaroon, its last bytes: what a sandbox gets must be narrowed.

        flysync itself, which asks Fly for an app's id, may have it.
        """
        if record.headers.get("User-Agent") == "flysync":
            return []
        sent = f"{record.headers}".encode() + record.body
        macaroons = {name: value.encode() for name, value in self.values.items() if value.startswith("fm2_")}
        return [f"{name} (not narrowed)" for name, value in macaroons.items() if value.rstrip(b"=")[-24:] in sent]

    def in_processes(self, *, mine: int, sandboxes: Path) -> list[str]:
        """
        Search argv and environment of all processes but those in *sandboxes*.

        The environment of flysync itself, *mine*, and of those who started it has the tokens: its caller put them
        there.
        """
        found = []
        exempt = _and_those_before(mine)
        for directory in Path("/proc").glob("[0-9]*"):
            try:
                argv, environ = ((directory / name).read_bytes() for name in ("cmdline", "environ"))
            except OSError:  # it has ended, or is somebody else's
                continue
            if f"HOME={sandboxes}".encode() in environ:
                continue
            pid = int(directory.name)
            found += [f"argv of {pid}: {what}" for what in self.found(argv)]
            told = self.found(environ)
            found += [
                f"environment of {pid}: {what}" for what in told if pid not in exempt or what.startswith("value ")
            ]
        return found


@cache
def forms(value: str) -> tuple[tuple[str, bytes], ...]:
    """Give the forms in which a value can turn up; they are looked for very often."""
    return tuple(_forms(value))


def _forms(value: str) -> Iterator[tuple[str, bytes]]:
    raw = value.encode()
    yield "whole", raw
    yield "first bytes", raw[:_SHORTEST]
    yield "last bytes", raw[-_SHORTEST:]
    yield from (("line", line.encode()) for line in value.splitlines() if len(line) >= _SHORTEST)
    yield "JSON", json.dumps(value)[1:-1].encode()
    yield "JSON", json.dumps(value, ensure_ascii=False)[1:-1].encode()
    yield "repr", repr(value)[1:-1].encode()
    yield "shell", shlex.quote(value)[1:-1].encode()
    yield "URL", quote(raw, safe="").encode()
    yield "URL", quote(raw).encode()
    yield "form", quote_plus(raw).encode()
    yield "hexadecimal", raw.hex().encode()
    for start in range(3):  # wherever it stands in what was encoded
        whole = raw[start : start + (len(raw) - start) // 3 * 3]
        yield "base64", base64.b64encode(whole)
        yield "base64", base64.urlsafe_b64encode(whole)


class Log(logging.Handler):
    """Keeps every line of every logger, tracebacks included."""

    def __init__(self) -> None:
        super().__init__(level=1)
        self.lines: list[str] = []
        self.setFormatter(logging.Formatter("%(name)s %(levelname)s %(message)s"))

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Listen to all loggers, at their most verbose."""
        root, before = logging.getLogger(), logging.getLogger().level
        root.addHandler(self)
        root.setLevel(1)
        try:
            yield
        finally:
            root.setLevel(before)
            root.removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line."""
        self.lines.append(self.format(record))


def _body_without_what_it_must_carry(service: str, record: Record) -> bytes:
    """Give the body; without variables where a step takes them, and without values where flyctl sets them."""
    if service == "fly" and record.method == "POST" and record.path.endswith("/secrets"):
        return b""
    if service == "daytona" and record.path.endswith("/process/execute"):
        sent = json.loads(record.body)
        envs = sent.pop("envs", None) or {}
        carried = envs if b"-set" not in record.body else {}
        token = carried.pop("V0", "")  # Fly's, for the steps that talk to Fly: see `wide_tokens`
        assert isinstance(token, str)
        return json.dumps([sent, carried]).encode()
    return record.body


def _is_of_a_test(path: str) -> bool:
    """Tell whether a frame is one of the tests, which know the value of course."""
    return f"{os.sep}tests{os.sep}" in path


def _and_those_before(pid: int) -> set[int]:
    """Give a process and all that are above it."""
    found = set()
    while pid > 0:
        found.add(pid)
        try:
            fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
        except OSError:
            break
        pid = int(fields[1])
    return found
