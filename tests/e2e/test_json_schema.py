"""The schema of what `--json` prints; every other test holds to it what it reads (`Done.json`)."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from jsonschema import Draft202012Validator, ValidationError
from recording import DOCS, is_recording
from report_schema import SCHEMA, as_json, checked, typescript

from flysync.errors import FlysyncError, Scope
from flysync.handlers.compare import Live
from flysync.handlers.prune import Use
from flysync.handlers.snapshots import Way
from flysync.handlers.status import CredentialCondition
from flysync.model.config import KeyringChange
from flysync.model.core import Outcome, Reason, State
from flysync.model.reports import Report

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from platform_of_tests import Platform

_DEFS = SCHEMA["$defs"]


def test_the_schema_is_printed(platform: Platform) -> None:
    """As it is, and in the envelope that every command has; nothing else has to be there."""
    shown = platform.flysync("schema", without=("DATABASE_URL", "FLY_API_TOKEN", "DAYTONA_API_KEY"))
    with_json = platform.flysync("schema", "--json")

    Draft202012Validator.check_schema(SCHEMA)
    assert (0, "", SCHEMA) == (shown.code, shown.stderr, json.loads(shown.stdout))
    assert (0, "schema", SCHEMA) == (with_json.code, with_json.json["command"], with_json.json["json_schema"])


@pytest.mark.parametrize(
    ("told", "known"),
    [
        (_DEFS["Outcome"], Outcome),
        (_DEFS["Result"]["properties"]["outcome"], [*Outcome, "partial", None]),
        (_DEFS["Reason"], Reason),
        (_DEFS["Failure"]["properties"]["scope"], Scope),
        (_DEFS["StatusLine"]["properties"]["state"], [*(one for one in State if one is not State.UNSET), None]),
        (_DEFS["StatusLine"]["properties"]["condition"], CredentialCondition),
        (_DEFS["StatusLine"]["properties"]["live"], [*Live, None]),
        (_DEFS["Sandbox"]["properties"]["use"], Use),
        (_DEFS["Snapshot"]["properties"]["way"], [*Way, None]),
        (_DEFS["KeyringChange"]["properties"]["keyring"], KeyringChange),
    ],
    ids=lambda given: getattr(given, "__name__", ""),
)
def test_the_schema_knows_every_word(told: dict[str, list[str]], known: Iterable[str]) -> None:
    """No less than the program, and no more."""
    assert list(known) == told["enum"]


def test_the_schema_knows_every_code() -> None:
    """And that of a bug."""
    kinds = [kind for kind in FlysyncError.__subclasses__() if kind.__module__ == "flysync.errors"]

    assert [*(kind.code for kind in kinds), "internal_error"] == _DEFS["Code"]["enum"]


@pytest.mark.parametrize(
    "odd", [{"new": 1}, {"ok": 1}, {"outcome": "done"}, {"history": [{}]}, {"warnings": [{}]}], ids=str
)
def test_what_the_schema_does_not_know_is_refused(odd: dict[str, object]) -> None:
    """By the tests: a key that is not in it, and a value that cannot be."""
    report = as_json("sync", Report())

    with pytest.raises(ValidationError):
        checked(report | odd)


def test_the_types_of_the_docs_are_made_from_it() -> None:
    """`nox -s docs` writes them."""
    path = DOCS / "flysync.d.ts"
    if is_recording():
        path.write_text(typescript())

    assert typescript() == path.read_text()


def test_the_processor_reads_only_what_there_is(node: Path, tmp_path: Path) -> None:
    """TypeScript's compiler holds it to the types, and notices where it does not keep to them."""
    for name in ("processor.mjs", "flysync.d.ts"):
        shutil.copy(DOCS / name, tmp_path)
    (tmp_path / "node_modules").symlink_to(node / "node_modules")
    kinds = ("--target", "es2024", "--module", "nodenext", "--types", "node", "--skipLibCheck")
    compiler = ("node", "node_modules/typescript/bin/tsc", "--noEmit", "--allowJs", "--checkJs", *kinds)

    def problems() -> tuple[int, str]:
        done = subprocess.run([*compiler, "processor.mjs"], cwd=tmp_path, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout

    assert (0, "") == problems()
    path = tmp_path / "processor.mjs"
    path.write_text(re.sub(r"report\.run_id\b", "report.runId", path.read_text()))
    code, told = problems()
    assert code, told
    assert "'runId' does not exist on type 'Report'" in told
