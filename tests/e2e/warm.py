"""
Commands as processes that are forked off one in which the libraries are loaded already.

Daytona's client takes half a second to load, most tests far less for what they are about. flysync itself is loaded by
each process anew. What is about the beginning of a process (its arguments, its modules, a terminal) starts a real one.
"""

from __future__ import annotations

import gc
import importlib
import io
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
from typing import TYPE_CHECKING, Any, Self

from coverage import Coverage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from multiprocessing.connection import Connection
    from pathlib import Path
    from types import TracebackType

_LOADED = [
    "aiohttp",
    "bullmq",
    "coverage",
    "daytona_api_client_async.api.sandbox_api",
    "daytona_api_client_async.api.snapshots_api",
    "daytona_toolbox_api_client_async.api.process_api",
    "prometheus_client",
    "psycopg",
    "pytest",
    "rich.progress",
    "typer.core",
]


class WarmProcess:
    """
    As much of `subprocess.Popen` as the tests need; the three streams are pipes.

    It calls the `main` of *module* with *parts*.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        environ: Mapping[str, str],
        directory: Path,
        parts: Mapping[str, Any],
        *,
        module: str = "entry_point",
    ) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_LOADED)
        stdin, self._stdin = context.Pipe(duplex=False)
        self._stdout, stdout = context.Pipe(duplex=False)
        self._stderr, stderr = context.Pipe(duplex=False)
        theirs = (stdin, stdout, stderr)
        self._process = context.Process(
            target=_run, args=(list(arguments), dict(environ), str(directory), module, dict(parts), theirs)
        )
        self._process.start()
        for pipe in theirs:
            pipe.close()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit code; minus the number of the signal that killed it."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """Give the exit code, if it has ended."""
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self._process.exitcode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it."""
        self.send_signal(signal.SIGKILL)

    def communicate(self, stdin: bytes = b"", timeout: float | None = None) -> tuple[bytes, bytes]:
        """Write to its input, read its outputs to their ends, and wait for its own."""
        found: dict[str, bytes] = {}
        pipes = {"stdout": self._stdout, "stderr": self._stderr}
        readers = [
            threading.Thread(target=lambda name=name, pipe=pipe: found.update({name: _read(pipe)}), daemon=True)
            for name, pipe in pipes.items()
        ]
        for reader in readers:
            reader.start()
        _write(self._stdin, stdin)
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("flysync", timeout or 0.0)
        for reader in readers:
            reader.join(timeout)
        return found["stdout"], found["stderr"]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pipe in (self._stdin, self._stdout, self._stderr):
            pipe.close()
        self._process.join()


def _read(pipe: Connection) -> bytes:
    with open(os.dup(pipe.fileno()), "rb") as stream:  # noqa: PTH123
        return stream.read()


def _write(pipe: Connection, data: bytes) -> None:
    try:
        with open(os.dup(pipe.fileno()), "wb") as stream:  # noqa: PTH123
            stream.write(data)
    except BrokenPipeError:
        pass
    pipe.close()


def _run(
    arguments: list[str],
    environ: dict[str, str],
    directory: str,
    module: str,
    parts: dict[str, Any],
    streams: tuple[Connection, Connection, Connection],
) -> None:
    """Become the command: what a process has from its beginning, and then its `main`."""
    gc.freeze()  # what is loaded already need not be looked through (and copied) at each collection
    for number, stream in enumerate(streams):
        os.dup2(stream.fileno(), number)
        stream.close()
    sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)), encoding="utf-8")
    sys.stdout = io.TextIOWrapper(io.BufferedWriter(io.FileIO(1, "w", closefd=False)), encoding="utf-8")
    sys.stderr = io.TextIOWrapper(
        io.BufferedWriter(io.FileIO(2, "w", closefd=False)), encoding="utf-8", errors="backslashreplace"
    )
    vars(sys).update(__stdin__=sys.stdin, __stdout__=sys.stdout, __stderr__=sys.stderr)
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environ)
    if "COVERAGE_PROCESS_CONFIG" not in environ and (measuring := Coverage.current()):
        measuring.stop()  # as a process is not measured that begins without
    tempfile.tempdir = None
    sys.argv = ["flysync", *arguments]
    importlib.import_module(module).main(**parts)
