from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from mutations import MUTATIONS, Mutation

import flysync

PACKAGE = Path(flysync.__file__).parent
TESTS = Path(__file__).parents[1]
#: pytest's own word for "some tests failed"; that nothing could be run is another.
_SOME_FAILED = 1
#: The doubles are loaded first, from the copy: the folder of the tests comes before it afterwards.
_LEAST = ("-q", "-x", "-p", "doubles", "-p", "no:cacheprovider", "-p", "no:hypothesispytest", "-p", "no:xdist")


@pytest.mark.mutations
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda one: one.name)
def test_a_guard_cannot_be_taken_out_unnoticed(mutation: Mutation, tmp_path: Path) -> None:
    """Each named test fails where its guard is missing, in a copy of the package."""
    shutil.copytree(PACKAGE, tmp_path / "flysync", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(TESTS / "doubles", tmp_path / "tests/doubles", ignore=shutil.ignore_patterns("__pycache__"))
    file = tmp_path / mutation.file
    text = file.read_text()
    assert 1 == text.count(mutation.text), "what is to be replaced must be found, once"
    file.write_text(text.replace(mutation.text, mutation.instead))
    # Not measured: the copy is no part of the project.
    env = {name: value for name, value in os.environ.items() if not name.startswith(("COVERAGE_", "PYTEST_"))}

    paths = f"pythonpath={tmp_path / 'tests'} {TESTS / 'e2e'}"
    for test in mutation.tests:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *_LEAST, "-o", paths, "-c", TESTS.parent / "pyproject.toml", TESTS / test],
            cwd=tmp_path,  # whose package comes before the installed one
            env={**env, "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert _SOME_FAILED == done.returncode, f"{test}: {done.stdout[-2000:]}"
