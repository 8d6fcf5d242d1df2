"""
Every call of a sync x every way it can go wrong, and what has to come of it, by rule.

    python tests/faults/matrix.py          prints the table
    python tests/faults/matrix.py --write  puts it into docs/errors.md

`rules` says what must happen (design 6), never what was seen; `test_matrix` plays the cells and compares.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import rules
from calls import CALLS, Call

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rules import Expected

DOCS = Path(__file__).parents[2] / "docs/errors.md"
_BEGIN, _END = "<!-- faults: made by tests/faults/matrix.py -->\n", "<!-- faults: end -->\n"

#: The whole product; without it, each call meets a share of the faults, and all calls together meet each of them.
IS_FULL = bool(os.environ.get("FLYSYNC_TEST_FULL_MATRIX"))
_SHARE = {"daytona": 2, "fly": 7}


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """One call, one fault, once or for good."""

    call: Call
    fault: str
    lasting: bool

    @property
    def name(self) -> str:
        """What it is called where it fails."""
        return f"{self.call.key}: {self.fault} {'for good' if self.lasting else 'once'}"

    @property
    def expected(self) -> Expected:
        """What has to come of it."""
        return rules.expected(self.call, self.fault, lasting=self.lasting)


def cells(*, full: bool = IS_FULL) -> Iterator[Cell]:
    """Give all cells, or a half of Daytona's and a seventh of Fly's, each call beginning at another place."""
    for number, call in enumerate(CALLS):
        for place, fault in enumerate(call.faults):
            for lasting in (False, True):
                # At Daytona each call meets each fault: once, or for good where its neighbour meets it once.
                if full or (number + 2 * place + lasting + place // 2) % _SHARE[call.service] == 0:
                    yield Cell(call=call, fault=fault, lasting=lasting)


def table() -> str:
    """Give the tables for docs/errors.md: faults of a call that have the same end share a line."""
    lines = []
    for service, title in (("daytona", "Calls of Daytona"), ("fly", "Requests of flyctl to Fly.io")):
        lines += [f"### {title}", "", "| step: call | fault | once | for good |", "|---|---|---|---|"]
        for call in CALLS:
            if call.service == service:
                lines += [f"| {call.title} | {faults} | {once} | {good} |" for faults, once, good in _rows(call)]
        lines.append("")
    return "\n".join(lines)


def _rows(call: Call) -> Iterable[tuple[str, str, str]]:
    ends = {
        fault: tuple(Cell(call=call, fault=fault, lasting=lasting).expected.text() for lasting in (False, True))
        for fault in call.faults
    }
    for (once, good), group in groupby(sorted(ends, key=lambda fault: ends[fault]), key=lambda fault: ends[fault]):
        yield ", ".join(sorted(group, key=call.faults.index)), once, good


def documented(text: str) -> str:
    """Give the text of docs/errors.md with the tables as they are now."""
    before, _, rest = text.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    return f"{before}{_BEGIN}\n{table()}\n{_END}{after}"


if __name__ == "__main__":
    if "--write" in sys.argv:
        DOCS.write_text(documented(DOCS.read_text("utf-8")), "utf-8")
    else:
        print(table())  # noqa: T201 - that is what it is called for
