"""
Recorded runs of an unmodified flyctl, a file for each module of contract tests; `nox -s record` makes them.

A run is known by its test, without the kind of flyctl, and by its number among the calls of the test. What is by chance
(ports, moments, versions, directories, random names) is the same in all recordings; requests that are the same are
stored once.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flysync.sim.loopback import Record

DIRECTORY = Path(__file__).parent / "contract/recordings"
#: Whether the real one's runs are written down, rather than compared with what was.
IS_RECORDING = bool(os.environ.get("FLYSYNC_TEST_RECORD"))

#: What stands in recordings for what is by chance, and how that is found.
_CHANCE = {
    "127.0.0.1:<port>": r"127\.0\.0\.1:\d+",
    "BogusDummySecret_<random>": r"BogusDummySecret_[0-9a-f]{16}",
    "<version>": r"(?<!\d)(\d{4}\.\d+\.\d+-dev\.\d+|0\.4\.87)\b",
}
#: Moments are replaced by one that is read as one.
_MOMENTS = {
    "2026-01-01T00:00:00Z": r"\b20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z",
    r"\g<1>1767225600000": r'("timestamp": ?)\d{13}\b',
    r"\g<1>1767225600": r'("expires_at": ?)\d{10}\b',
}


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class Request:
    """A request as flyctl sent it, and the status of its answer: 0 for none."""

    method: str
    path: str
    authorization: str
    nonce: str
    body: str
    status: int

    @classmethod
    def of(cls, record: Record, directory: Path) -> Request:
        """Give that of a record, without what is by chance."""
        return cls(
            method=record.method,
            path=normal_run(record.path + (f"?{record.query}" if record.query else ""), directory),
            authorization=record.headers.get("Authorization", ""),
            nonce=record.headers.get("fly-machine-lease-nonce", ""),
            body=normal_run(record.body.decode(), directory),
            status=record.status,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Recording:
    """A run: what was sent in its order, what was printed, how it ended, and how long it took (0 below two seconds)."""

    code: int
    stdout: str
    stderr: str
    seconds: int
    requests: tuple[Request, ...]


def without_chance(text: str) -> str:
    """Replace in *text* what is different each time and nobody reads: ports, versions, random names."""
    for shown, pattern in _CHANCE.items():
        text = re.sub(pattern, shown, text)
    return text


def normal_run(text: str, directory: Path) -> str:
    """Replace in *text* all that is by chance in a run whose files are in *directory*."""
    text = without_chance(text).replace(str(directory), "<directory>")
    text = re.sub(r"(?s)(?<=\n)\[signal SIG.*", "", text)  # where in memory flyctl fell
    for shown, pattern in _MOMENTS.items():
        text = re.sub(pattern, shown, text)
    return text


def filled(text: str, *, url: str, directory: Path) -> str:
    """Put into *text* what was taken out of it; *url* is where Fly is now."""
    words = {
        "<port>": url.rpartition(":")[2],
        "<random>": "0" * 16,
        "<version>": "0.4.87",
        "<directory>": str(directory),
    }
    for word, value in words.items():
        text = text.replace(word, value)
    return text


def key_of(node_id: str, kind: str) -> tuple[str, str]:
    """Give the module of a test, and its name there without the *kind* of flyctl."""
    path, _, test = node_id.partition("::")
    return Path(path).stem, re.sub(rf"\[{kind}\]|(?<=\[){kind}-|-{kind}(?=[-\]])", "", test, count=1)


class Book:
    """The recordings of a test module, by test and number."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.runs: dict[str, Recording] = {}
        if path.exists():
            told: dict[str, Any] = json.loads(path.read_text("utf-8"))
            table = [Request(**one) for one in told["requests"]]
            for key, run in told["runs"].items():
                self.runs[key] = Recording(**{**run, "requests": tuple(table[place] for place in run["requests"])})

    def write(self) -> None:
        """Write all of them; each request and each run is a line."""
        table = sorted({request for run in self.runs.values() for request in run.requests})
        places = {request: place for place, request in enumerate(table)}
        runs = {
            key: {**asdict(run), "requests": [places[request] for request in run.requests]}
            for key, run in sorted(self.runs.items())
        }
        requests = ",\n".join(_line(asdict(request)) for request in table)
        shown = ",\n".join(f"{json.dumps(key, ensure_ascii=False)}: {_line(run)}" for key, run in runs.items())
        self.path.parent.mkdir(exist_ok=True)
        self.path.write_text(f'{{"requests": [\n{requests}\n],\n"runs": {{\n{shown}\n}}}}\n', "utf-8")


def _line(told: Mapping[str, Any]) -> str:
    return json.dumps(told, ensure_ascii=False, sort_keys=True)


@cache
def book(module: str) -> Book:
    """Give the recordings of a test module."""
    return Book(DIRECTORY / f"{module}.json")
