from __future__ import annotations

import inspect
import re
import shlex
from typing import Any

import pytest
import typer

from flysync.cli import options
from flysync.cli.main import app
from flysync.model.core import Origin, SyncOptions

COMMON = {"--env-file", "--json", "-q", "--quiet", "-v", "--verbose"}


def commands(group: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """Give every command and group by its words."""
    found = {path: group}
    for name, one in getattr(group, "commands", {}).items():
        found |= commands(one, (*path, name))
    return found


def help_of(path: tuple[str, ...], one: Any) -> list[str]:
    """Give what a command says of itself on a terminal of 80 columns."""
    context = typer.Context(one, info_name=" ".join(("flysync", *path)), terminal_width=80, max_content_width=80)
    lines: list[str] = one.get_help(context).splitlines()
    return lines


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90.0), ("90s", 90.0), ("10m", 600.0), ("1.5h", 5400.0), (7.0, 7.0)]
)
def test_a_duration_is_read(text: str | float, seconds: float) -> None:
    """With and without its unit; a default is a number already."""
    assert (seconds, seconds) == (options.read_duration(text), options.read_positive(text))


@pytest.mark.parametrize(
    "text", ["-1", "nan", "inf", "1e999", "9" * 400, "", "10 m", "1d", "25h", "1_0", "٣", "10m\n", "m"]
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    """No sign, no exponent, no unit of one's own, and no more than a day."""
    for read in (options.read_duration, options.read_positive):
        with pytest.raises(typer.BadParameter, match="90s, 10m or 1h"):
            read(text)


def test_no_time_is_a_wait_but_no_limit() -> None:
    """`--lock-wait 0` does not wait; `--timeout 0` could do nothing."""
    assert options.read_duration("0") == 0

    with pytest.raises(typer.BadParameter, match="more than zero"):
        options.read_positive("0s")


def test_every_command_takes_the_common_options() -> None:
    """Before its name and after it; only the demo has a world of its own."""
    found = commands(typer.main.get_command(app))
    lacking = {
        path
        for path, one in found.items()
        if not COMMON <= {name for parameter in one.params for name in parameter.opts}
    }

    assert {("demo",)} == lacking


def test_sync_and_sync_project_differ_by_names_and_projects_alone() -> None:
    """What one can do the other can."""
    found = commands(typer.main.get_command(app))
    one, all_ = ({p.name for p in found[name,].params} for name in ("sync", "sync-project"))

    pruning = {"prune", "prune_after_s", "yes"}
    assert ({"name", "value_stdin"}, {"all_projects", "concurrency", *pruning}) == (one - all_, all_ - one)


def test_help_is_readable_at_80_columns() -> None:
    """No line is longer or ends in a blank, no sentence is cut off, and each option has a text."""
    for path, one in commands(typer.main.get_command(app)).items():
        lines = help_of(path, one)

        assert [] == [line for line in lines if len(line) > 80 or line != line.rstrip()], path
        assert [] == [line for line in lines if line.endswith("...") and not line.startswith("Usage: ")], path
        assert [] == [p.name for p in one.params if not getattr(p, "help", None)], path


def test_every_command_has_examples_that_it_understands() -> None:
    """Up to three, a line each, with the command's own name and options."""
    for path, one in commands(typer.main.get_command(app)).items():
        if hasattr(one, "commands"):
            continue
        text = "\n".join(help_of(path, one))
        (block,) = re.findall(r"^  Examples?:\n((?:      .+\n)+)\n", text, re.MULTILINE)
        examples = [shlex.split(line.split("|")[-1].split("<")[0]) for line in block.splitlines()]

        assert 1 <= len(examples) <= 3, path
        for words in examples:
            assert ["flysync", *path] == words[: len(path) + 1]
            one.make_context("flysync", words[len(path) + 1 :])


def test_the_options_of_a_sync_are_those_that_were_given() -> None:
    """Each by its name; what was not given is as it is without a command line."""
    given: dict[str, Any] = {
        "dry_run": True,
        "force": True,
        "take_over": True,
        "lock_wait_s": 1.0,
        "timeout_s": 2.0,
        "reason": "why",
    }
    more: dict[str, Any] = {"verify": True, "stage": True, "sandbox": "s"}

    assert SyncOptions(origin=Origin.CLI) == options.sync_options() == options.unset_options()
    assert SyncOptions(origin=Origin.CLI, wait=False, **given, **more) == options.sync_options(
        no_wait=True, **given, **more
    )
    assert SyncOptions(origin=Origin.CLI, retry=True, **given) == options.unset_options(retry=True, **given)


def test_a_bundle_becomes_an_argument() -> None:
    """Its options come after the command's own, under their names and with their defaults."""

    def bundle(size: int = 3, colour: str = "red") -> str:
        return f"{size} {colour}"

    told: list[object] = []

    @options.takes(bundle)
    def command(made: str, name: str) -> None:
        """Say something."""
        told.extend((made, name))

    assert ["name", "size", "colour"] == list(inspect.signature(command).parameters)
    assert ("command", "Say something.") == (command.__name__, command.__doc__)
    command(name="x", size=4, colour="blue")
    assert ["4 blue", "x"] == told
