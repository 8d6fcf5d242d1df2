from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from mutant import ENDED
from mutations import MUTATIONS, Mutation
from warm import WarmProcess

import flysync
from flysync.sim.sandboxes import kill_started_in

PACKAGE = Path(flysync.__file__).parent
TESTS = Path(__file__).parents[1]
#: The doubles are loaded first, from the copy: the folder of the tests comes before it afterwards.
_PLUGINS = ("doubles", "pytest_asyncio.plugin", "pytest_timeout", "no:cacheprovider")
_LEAST = ("-q", "-x", "--tb=native", "--timeout=0", *(part for name in _PLUGINS for part in ("-p", name)))
#: How long a test may take. It is ended from outside: pytest-timeout's exception can meet pytest where it fails of it.
_HANGS_S = 60
#: pytest's words for "all have passed" and "some tests failed"; that nothing could be run is another.
_PASSED, _FAILED = ENDED, ENDED + 1


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the package and of the doubles, with what Python has compiled of them."""
    shutil.copytree(PACKAGE, tmp_path / "flysync")
    shutil.copytree(TESTS / "doubles", tmp_path / "tests/doubles")
    return tmp_path


def ended(copy: Path, postgres: Any, *tests: str) -> tuple[int, str]:
    """Run tests with a copy of the package, on the server that is there; give the exit code, and what they printed."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("COVERAGE_", "PYTEST_"))}
    env |= {"PYTHONPATH": str(copy), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    env |= {"FLYSYNC_TEST_DATABASE_URL": postgres.dsn("postgres")}
    settings = ("-c", str(TESTS.parent / "pyproject.toml"), "-o", f"pythonpath={copy / 'tests'} {TESTS / 'e2e'}")
    arguments = [*_LEAST, *settings, *(str(TESTS / test) for test in tests)]
    with WarmProcess(arguments, env, copy, {"copy": str(copy)}, module="mutant") as process:
        try:
            stdout, stderr = process.communicate(timeout=_HANGS_S)
        except subprocess.TimeoutExpired:
            process.kill()
            kill_started_in(copy)
            return _FAILED, ""  # nobody misses a test that hangs
    return process.returncode or 0, (stdout + stderr)[-2000:].decode(errors="replace")


@pytest.mark.timeout(600)  # for some name several tests, and each may hang
@pytest.mark.mutations
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda one: one.name)
def test_a_guard_cannot_be_taken_out_unnoticed(mutation: Mutation, copy: Path, postgres: Any) -> None:
    """Each named test fails where its guard is missing, in a copy of the package."""
    file = copy / mutation.file
    text = file.read_text()
    assert 1 == text.count(mutation.text), "what is to be replaced must be found, once"
    file.write_text(text.replace(mutation.text, mutation.instead))

    for test in mutation.tests:
        code, printed = ended(copy, postgres, test)
        assert _FAILED == code, f"{test}: {printed}"


def test_a_copy_with_all_its_guards_passes(copy: Path, postgres: Any) -> None:
    """It is the missing guard that the tests notice, and not the copy: a test of each kind."""
    code, printed = ended(
        copy,
        postgres,
        "unit/test_handlers.py::test_a_dead_run_is_fenced_first",
        "contract/test_records.py::TestOwnerInPostgres",
        "contract/test_daytona.py::TestWhatIsSent",
        "contract/test_bullmq_odd_jobs.py::test_fields_that_are_not_bullmqs",
        "e2e/test_bounds.py::test_standard_input_has_an_end",
    )

    assert _PASSED == code, printed
