"""The story of `flysync demo` with a process beside it that goes on: `flysync worker`, or `flysync watch`."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING

from flysync.sim.demo_story import Story

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from flysync.sim.simulation import Simulation


class ProcessStory(Story):
    """The demo, in which nobody runs a command for a sync: the process that *command* starts does it."""

    command: tuple[str, ...]

    def __init__(self, world: Simulation, say: Callable[[str], None]) -> None:
        super().__init__(world, say)
        self._process: asyncio.subprocess.Process | None = None
        self._copying: asyncio.Task[None] | None = None

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def _begin_ahead(self, *arguments: str) -> None:
        """Leave it to the process."""

    async def _begin(self) -> None:
        """Start the process."""
        self._say(f"\n$ flysync {' '.join(self.command)} &")
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "flysync",
            *self.command,
            stdin=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env=self._world.environ(**self._settings),
            cwd="/",
        )
        began = asyncio.Event()
        self._copying = asyncio.create_task(self._shown(self._process, began))
        await began.wait()

    async def _prove(self) -> None:
        """Let the process end."""
        assert self._process is not None
        assert self._copying is not None
        self._act(f"flysync {self.command[0]} is told to end.")
        self._process.terminate()
        code = await self._process.wait()
        await self._copying
        self._check("it ends with 0", code == 0)
        await super()._prove()

    async def _shown(self, process: asyncio.subprocess.Process, began: asyncio.Event) -> None:
        """Show the log as it comes."""
        assert process.stderr is not None
        async for line in process.stderr:
            self._output += line
            self._say(f"    {self.command[0]}: {json.loads(line)['message']}")
            began.set()
        began.set()
