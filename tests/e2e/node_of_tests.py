"""The backend in Node: its packages, and its side of the queue."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from parts import need

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from flysync.sim.valkey import EmbeddedValkey

T = TypeVar("T")

_SOURCE = Path(__file__).parent / "node"
_INSTALL = ("npm", "install", "--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline")


def until(condition: Callable[[], T | None], *, within_s: float = 240) -> T:
    """Wait for what is about to happen, and give what it has come to."""
    end = time.monotonic() + within_s
    while not (found := condition()):
        assert time.monotonic() < end, "it has not happened"
        time.sleep(0.05)
    return found


class Backend:
    """The backend's side of a queue, in the process of a real Node."""

    def __init__(self, process: subprocess.Popen[str], queue: str) -> None:
        self._process = process
        self.queue = queue

    def add(self, data: object, *, name: str = "sync-flyio-secrets", **opts: object) -> str:
        """Add a job and give its id."""
        return str(self._ask("add", name=name, data=data, opts=opts))

    def job(self, job_id: str) -> dict[str, Any]:
        """Give what is known of a job, with its `state` and `logs`."""
        found: dict[str, Any] = self._ask("job", id=job_id)
        return found

    def ended(self, job_id: str, *states: str) -> dict[str, Any]:
        """Wait until a job is completed or failed, or in one of *states*."""
        expected = states or ("completed", "failed")
        return until(lambda: job if (job := self.job(job_id))["state"] in expected else None)

    def _ask(self, what: str, **more: object) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"what": what, "queue": self.queue, **more}) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the backend's packages, installed once for all processes of a run of the tests."""
    base = tmp_path_factory.getbasetemp()
    place = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "node"
    problem = place / "problem"
    try:
        place.mkdir()
    except FileExistsError:
        until(problem.exists, within_s=180)
    else:
        written = place / "problem.part"
        written.write_text(_install(place))
        written.rename(problem)
    need(problem.read_text())
    return place


def _install(place: Path) -> str:
    """Install the packages, and say why that is not possible."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        return "there is no Node here, or no npm"
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout
    if int(version.removeprefix("v").split(".")[0]) < 20:
        return f"this Node is too old: {version}"
    for path in _SOURCE.iterdir():
        shutil.copy(path, place)
    done = subprocess.run(_INSTALL, cwd=place, capture_output=True, text=True, check=False, timeout=170)
    return f"npm cannot install the packages: {done.stderr[-500:]}" if done.returncode else ""


@pytest.fixture(scope="module")
def backend_process(node: Path, valkey: EmbeddedValkey) -> Iterator[subprocess.Popen[str]]:
    """The process that is the backend in all tests of a file."""
    environ = {**os.environ, "REDIS_URL": valkey.url}
    pipe = subprocess.PIPE
    command = ["node", "backend.mjs"]
    with subprocess.Popen(command, cwd=node, env=environ, stdin=pipe, stdout=pipe, text=True) as process:
        yield process
        process.kill()


@pytest.fixture
def backend(backend_process: subprocess.Popen[str], request: pytest.FixtureRequest) -> Backend:
    """The backend with an empty queue."""
    return Backend(backend_process, f"queue of {request.node.name}")
