"""The commands of flysync's that a proof runs, each a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from flysync.ports import Begun, Ended
from flysync.secret import Secret
from flysync.settings import VARIABLES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flysync.settings import Settings

#: Settings that say where things are and which way they go; the others are the trial's own, or their defaults.
_KEPT = (
    *("DATABASE_URL", "FLY_", "DAYTONA_", "FLYSYNC_FLYCTL_", "FLYSYNC_SNAPSHOT", "FLYSYNC_RUNNER", "FLYSYNC_EGRESS"),
    *("FLYSYNC_TOKEN_COMMAND", "FLYSYNC_NARROW_TOKEN"),
)
#: Seconds that a command of ours has to clean up.
_END_S = 90.0
#: A command that is told to end (SIGTERM) when the proof is dead: nobody holds the other end of its input then.
_COMMAND = """\
import os, signal, threading
from flysync.__main__ import main
from flysync.cli.signals import SIGNALS

def end():
    os.read(0, 1)
    if not SIGNALS.received:
        os.kill(os.getpid(), signal.SIGTERM)

threading.Thread(target=end, daemon=True).start()
main()
"""


def environment(settings: Settings, **own: str) -> dict[str, str]:
    """Give the environment of a proof's commands: this process', *settings* from wherever, and what is their *own*."""
    others = {name: text for name, text in os.environ.items() if name not in VARIABLES}
    values = {name: getattr(settings, field) for name, (field, _) in VARIABLES.items() if name.startswith(_KEPT)}
    return {
        **others,
        **{name: _text(value) for name, value in values.items() if value is not None},
        "FLYSYNC_ACTOR": "flysync prove",
        "FLYSYNC_NO_KEYRING": "1",
        **own,
    }


def _text(value: Any) -> str:
    if isinstance(value, Secret):
        return value.reveal()
    return " ".join(value) if isinstance(value, tuple) else str(value)


class Commands:
    """Runs commands with *environ*, and keeps how each has ended and what it has printed, under its first words."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        #: Both ends are open for as long as this process lives.
        self._input, _ = os.pipe()
        self.ended: list[Ended] = []
        self.printed: list[tuple[str, bytes]] = []

    async def begin(self, *words: str, settings: Mapping[str, str] | None = None) -> Begun:
        """Start one with JSON; see the port `Trial`."""
        return _Process(self, words, await self._process(*words, "--json", settings=settings))

    async def _process(self, *words: str, settings: Mapping[str, str] | None = None) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", _COMMAND, *words),
            stdin=self._input,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**self._environ, **(settings or {})},
            cwd="/",
            start_new_session=True,  # Ctrl-C is for us, who then tell it
        )

    async def killed(self, step: str, *words: str) -> int:
        """Run one, and kill it as it begins *step*; see the port `Trial`."""
        process = await self._process(*words, "-v")
        lines: list[bytes] = []
        # Twice would be once too often: Popen looks whether it has ended, and asyncio then finds no exit status (255).
        is_killed = False
        try:
            while line := await process.stderr.readline():  # type: ignore[union-attr]
                lines.append(line)
                if line.startswith(f"info: {step} ".encode()) and not is_killed:
                    is_killed = True
                    process.kill()
        except asyncio.CancelledError:
            if not is_killed:
                process.kill()
            raise
        stdout, _ = await process.communicate()
        self.printed.append((words[0], b"".join([stdout, *lines])))
        return process.returncode or 0


class _Process(Begun):
    """One of *commands* that runs."""

    def __init__(self, commands: Commands, words: Sequence[str], process: asyncio.subprocess.Process) -> None:
        self._commands, self._name, self._process = commands, " ".join(words[:2]), process
        self._began = time.monotonic()
        self._output = asyncio.ensure_future(process.communicate())

    @override
    async def ended(self) -> Ended:
        try:
            stdout, stderr = await asyncio.shield(self._output)
        except asyncio.CancelledError:
            self.stop()
            await asyncio.wait({self._output}, timeout=_END_S)
            raise
        finally:
            if not self._output.done():
                self._process.kill()
        self._commands.printed.append((self._name, stdout + stderr))
        report: dict[str, Any] = {}
        with suppress(ValueError):
            report = json.loads(stdout)
        code = self._process.returncode or 0
        self._commands.ended.append(Ended(code=code, report=report, seconds=time.monotonic() - self._began))
        return self._commands.ended[-1]

    @override
    def stop(self) -> None:
        with suppress(ProcessLookupError):
            self._process.terminate()
