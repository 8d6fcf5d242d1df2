# /// script
# dependencies = ["nox[uv]"]
# ///
"""The project's tasks: `nox -s demo`, `nox -s tests`, `nox -s tests-slow`, `nox -s lint types imports`."""

from __future__ import annotations

import json
import os
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_existing_virtualenvs = True
nox.options.error_on_external_run = True
nox.options.sessions = ["tests", "lint", "types", "imports"]

PYTHONS = [version for version in nox.project.python_versions(nox.project.load_toml()) if version >= "3.11"]
TEST = nox.project.dependency_groups(nox.project.load_toml(), "test")
#: Three processes per core, for the tests mostly wait; who has run out of tests takes from the others.
PARALLEL = ("-n", str(3 * (os.cpu_count() or 1)), "--dist", "worksteal")
COVERAGE = bool(os.environ.get("COVERAGE"))
LINT = nox.project.dependency_groups(nox.project.load_toml(), "lint")
SUPPLY = nox.project.dependency_groups(nox.project.load_toml(), "supply")
#: All that runs beside flysync, with the sums of its files.
RUNTIME = "docs/deploy/requirements.txt"


def _install(session: nox.Session, *more: str, extras: str = "demo,worker") -> None:
    """Install flysync as it is here, with the pinned versions of all that it needs."""
    # Where Python is told to write no bytecode, each process of a demo or a test would compile the SDK again: 2 s.
    session.env.update(UV_COMPILE_BYTECODE="1", PYTHONDONTWRITEBYTECODE="")
    session.install("-c", "constraints.txt", "-e", f".[{extras}]", *more)


@nox.session
def demo(session: nox.Session) -> None:
    """Run the whole job on loopback."""
    _install(session, extras="demo,worker" if "--worker" in session.posargs else "demo")
    session.run("flysync", "demo", *session.posargs)


def _test(session: nox.Session, which: str) -> None:
    """Run the tests with the markers *which*; with COVERAGE set, which takes a third longer, it is measured."""
    measured = ("coverage", "run", "-m") if COVERAGE else ()
    session.run(*measured, "pytest", *PARALLEL, "-m", which, *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """Run the quick tests, which tell nearly all; arguments go to pytest."""
    _install(session, *TEST)
    if COVERAGE:
        session.run("coverage", "erase")
    _test(session, "not slow")


@nox.session(name="tests-slow")
def tests_slow(session: nox.Session) -> None:
    """Run the slow tests: faults, mutations, all other cases; arguments go to pytest."""
    _install(session, *TEST)
    _test(session, "slow")


@nox.session
def coverage(session: nox.Session) -> None:
    """Print how much both kinds of tests have run, each with COVERAGE=1, and fail where that is too little."""
    session.install("-c", "constraints.txt", "coverage")
    session.run("coverage", "combine", "-q")
    session.run("coverage", "report")


@nox.session(python=PYTHONS)
def compat(session: nox.Session) -> None:
    """Run the unit and contract tests on each Python that is there."""
    _install(session, *TEST)
    session.run("pytest", "-q", *PARALLEL, "tests/unit", "tests/contract", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and format."""
    session.install("-c", "constraints.txt", *LINT)
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Check types, strictly, of package, tests and this file; and the example by pyright too, which needs Node."""
    _install(session, *TEST, *LINT, "nox")
    session.run("mypy")
    for path in sorted(path for path in Path("tests").iterdir() if path.is_dir() and list(path.glob("*.py"))):
        session.run("mypy", str(path))  # one by one: each has a conftest of its own
    session.run("pyright")


@nox.session
def imports(session: nox.Session) -> None:
    """Check that imports point inwards."""
    _install(session, *LINT)
    session.run("lint-imports", "--no-cache")


@nox.session
def bench(session: nox.Session) -> None:
    """Measure, side by side, what docs/performance.md quotes; `bench_NAME.py …` alone, with options of theirs."""
    _install(session, *TEST)
    session.run("python", "tests/bench", *session.posargs)


@nox.session
def compare(session: nox.Session) -> None:
    """Print the table of docs/why.md: a plain script and flysync through the same faults; `NUMBER …` for some cases."""
    _install(session, *TEST)
    session.run("python", "tests/bench/compare.py", *session.posargs, env={"PYTHONPATH": "tests/e2e"})


@nox.session
def soak(session: nox.Session) -> None:
    """Sync ten thousand times with faults and kills by chance, and print what is left; `--syncs N`, `--seed N`."""
    _install(session, *TEST)
    session.run("python", "tests/faults/soak.py", *session.posargs)


@nox.session(name="soak-worker")
def soak_worker(session: nox.Session) -> None:
    """Process ten thousand jobs of a Node backend while workers are killed; `--jobs N`, `--projects N`, `--seed N`."""
    _install(session, *TEST)
    session.run("python", "tests/faults/soak_worker.py", *session.posargs, env={"PYTHONPATH": "tests/e2e"})


@nox.session(name="soak-watch")
def soak_watch(session: nox.Session) -> None:
    """Let watchers deliver what jobs do not, some of which are lost; `--jobs N`, `--projects N`, `--seed N`."""
    _install(session, *TEST)
    session.run("python", "tests/faults/soak_watch.py", *session.posargs, env={"PYTHONPATH": "tests/e2e"})


@nox.session
def fuzz(session: nox.Session) -> None:
    """Feed every entrance with odd input for ten minutes; `--seconds N`, `--seed N`, `--case ENTRANCE[:NUMBER]`."""
    _install(session, *TEST)
    session.run("python", "tests/faults/fuzz.py", *session.posargs, env={"PYTHONPATH": "tests"})


@nox.session
def docs(session: nox.Session) -> None:
    """Record the transcripts and draw the pictures of docs/ again, from what the commands print."""
    _install(session, *TEST)
    tests = ("tests/e2e/test_operations.py", "tests/e2e/test_demo.py")
    session.run("pytest", "-q", *tests, env={"FLYSYNC_TEST_RECORD": "1"})


@nox.session
def record(session: nox.Session) -> None:
    """Record again what an unmodified flyctl does, which the tests play: FLYSYNC_TEST_FLYCTL names it."""
    if not os.environ.get("FLYSYNC_TEST_FLYCTL"):
        session.error("FLYSYNC_TEST_FLYCTL names no flyctl")
    _install(session, *TEST)
    recordings = sorted(Path("tests/contract/recordings").glob("*.json"))
    for path in recordings:
        path.unlink()
    tests = [f"tests/contract/{path.stem}.py" for path in recordings]
    session.run("pytest", "-q", "-k", "real", *tests, env={"FLYSYNC_TEST_RECORD": "1"})
    session.run("python", "tests/faults/flyctl_faults.py", env={"PYTHONPATH": "tests"})


@nox.session
def pins(session: nox.Session) -> None:
    """Write all pins, for every platform and without any index address; `--upgrade` takes newer ones."""
    session.install("uv")
    compiled = ("uv", "pip", "compile", "--universal", "--no-emit-index-url", "--no-annotate", "--no-header", "-q")
    groups = (f"--group={group}" for group in ("test", "lint", "supply", "build"))
    everything = ("pyproject.toml", "--extra=demo", "--extra=worker", *groups, *session.posargs)
    session.run(*compiled, *everything, "-o", "constraints.txt")
    hashed = (*compiled, "--constraint=constraints.txt", "--generate-hashes")
    session.run(*hashed, "pyproject.toml", "--extra=worker", "-o", RUNTIME)
    session.run(*hashed, "--group=build", "-o", "docs/deploy/build.txt")


@nox.session
def sbom(session: nox.Session) -> None:
    """Write what the image of docs/deploy holds as CycloneDX (JSON), to sbom.json or the file that is named."""
    session.install("-c", "constraints.txt", *SUPPLY)
    command = ("cyclonedx-py", "requirements", RUNTIME, "--pyproject=pyproject.toml", "--mc-type=application")
    session.run(*command, "--output-reproducible", "-o", *(session.posargs or ["sbom.json"]))


@nox.session
def audit(session: nox.Session) -> None:
    """Ask for known vulnerabilities of all pins; without an answer it fails as well, and says that nobody knows."""
    session.install("-c", "constraints.txt", *SUPPLY)
    told = Path(session.create_tmp()) / "audit.json"
    told.unlink(missing_ok=True)
    # Strictly, else what the service has no answer for would count as sound.
    command = ("pip-audit", "--strict", "--disable-pip", "--no-deps", "-r", "constraints.txt", "-f", "json", "-o", told)
    session.run(*command, "--progress-spinner=off", *session.posargs, success_codes=(0, 1))
    if not told.exists():
        session.error("not checked: without an answer nobody knows whether the pins have known vulnerabilities")
    pinned = json.loads(told.read_text())["dependencies"]
    holes = [f"{one['name']} {one['version']}: {hole['id']}" for one in pinned for hole in one["vulns"]]
    if holes:
        session.error("known vulnerabilities: " + ", ".join(holes))
    session.log(f"no known vulnerability in {len(pinned)} pins")


if __name__ == "__main__":
    nox.main()
