"""
Transcripts of real commands in the docs: recorded by tests, compared with what the commands print today.

What differs from run to run (ids, moments, seconds, ports) is left out of the comparison. `nox -s docs` records again.
"""

from __future__ import annotations

import io
import os
import re
import shlex
from html import unescape
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from flysync.cli.output import coloured

if TYPE_CHECKING:
    from platform_of_tests import Done, Platform

DOCS = Path(__file__).parents[2] / "docs"

#: What no two runs have in common.
_VARIES = (
    (re.compile(r"\b01[0-9a-hjkmnp-tv-z]{24}\b"), "RUN"),
    (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"), "MOMENT"),
    (re.compile(r"\b\d+(\.\d+)? s\b"), "SECONDS"),
    (re.compile(r"\b\d\d:\d\d:\d\d\b"), "TIME"),
    (re.compile(r"127\.0\.0\.1:\d+"), "PLACE"),
    (re.compile(r"\bplatform\d+\b"), "DATABASE"),
    (re.compile(r"\(\d+ bytes\)"), "SIZE"),
    (re.compile(r"Postgres [\d.]+|flyctl: .*"), "VERSION"),
)


class Transcript:
    """What somebody sees who runs some commands on *platform*, one after the other."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._lines: list[str] = []

    def run(self, *arguments: str, **environ: str) -> Done:
        """Run a command, and note it with all that it prints and how it exits."""
        done = self._platform.flysync(*arguments, environ=environ)
        self.note(done, *arguments)
        return done

    def note(self, done: Done, *arguments: str) -> None:
        """Note a command that was run, with its lines in the order of a terminal: warnings, result, error, next."""
        aside = done.stderr.splitlines()
        warnings = [line for line in aside if line.startswith("warning: ")]
        lines = [*warnings, *done.stdout.splitlines(), *(line for line in aside if line not in warnings)]
        steps = [line for line in lines if line.startswith("next: ")]
        self._lines += [f"$ flysync {shlex.join(arguments)}", *(line for line in lines if line not in steps), *steps]
        self._lines += [f"(exit {done.code})", ""] if done.code else [""]

    def say(self, comment: str) -> None:
        """Note what happens beside the commands."""
        self._lines += [f"# {comment}", ""]

    @property
    def text(self) -> str:
        """All of it."""
        return "\n".join(self._lines).strip()


def is_recording() -> bool:
    """Tell whether the docs are to be written, instead of compared."""
    return bool(os.environ.get("FLYSYNC_TEST_RECORD"))


def same_as_in(page: str, name: str, text: str) -> None:
    """Compare *text* with the block *name* of a page of the docs; or write it there."""
    path = DOCS / page
    before = path.read_text()
    block = re.compile(rf"(<!-- recorded: {name} -->\n\n)((?:(?:    .*)?\n)+?)(?=\n?(?:\S|\Z))")
    found = block.search(before)
    assert found is not None, f"{page} has no block for {name}"
    shown = "".join(f"    {line}".rstrip() + "\n" for line in text.splitlines())
    if not is_recording():
        assert masked(found[2].rstrip()) == masked(shown.rstrip()), f"`nox -s docs` records {page} again"
    elif masked(found[2].rstrip()) != masked(shown.rstrip()):  # else only ids and times would change
        path.write_text(before[: found.start(2)] + shown + before[found.end(2) :])


def masked(text: str) -> str:
    """Give *text* without what no two runs have in common."""
    for pattern, word in _VARIES:
        text = pattern.sub(word, text)
    return text


def same_picture(name: str, text: str) -> None:
    """Compare *text* with what the picture *name* shows; or draw it."""
    path = DOCS / "pictures" / f"{name}.svg"
    if is_recording():
        path.parent.mkdir(exist_ok=True)
        path.write_text(drawn(text))
    assert masked(text_in(path.read_text())) == masked(text), f"`nox -s docs` draws {path.name} again"


def drawn(text: str) -> str:
    """Give a picture of a terminal that shows *text* in the colours it has there, as SVG that loads nothing."""
    lines = text.splitlines()
    console = Console(
        record=True, file=io.StringIO(), width=max(map(len, lines)) + 1, color_system="truecolor", force_terminal=True
    )
    console.print(Text.from_ansi(coloured(text)), soft_wrap=True)
    svg = console.export_svg(title="flysync", unique_id="flysync")
    return re.sub(r"\s*@font-face \{.*?\}", "", svg, flags=re.DOTALL) + "\n"


def text_in(svg: str) -> str:
    """Give what a picture shows."""
    rows: dict[float, str] = {}
    place = r'<text class="flysync-r\d+" x="([\d.]+)" y="([\d.]+)"[^>]*>(.*?)</text>'
    width, height = 12.2, 24.4
    for x, y, shown in re.findall(place, svg, re.DOTALL):  # blanks alone have no place
        before = rows.get(float(y), "").ljust(round(float(x) / width))
        rows[float(y)] = before + unescape(shown).replace("\xa0", " ")
    first = min(rows)
    found = {round((y - first) / height): line.rstrip() for y, line in rows.items()}
    return "\n".join(found.get(number, "") for number in range(max(found) + 1)).strip("\n")
