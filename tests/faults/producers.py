"""Who adds the jobs of a soak: the real BullMQ in a process of Node, else PyPI's."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    #: Adds a job: its name, data and options.
    Add = Callable[[str, Mapping[str, Any], Mapping[str, Any]], Awaitable[None]]

#: Where the versions of its packages are pinned.
_PACKAGES = Path(__file__).parents[1] / "e2e/node/package.json"
_PROGRAM = Path(__file__).parent / "producer.mjs"
_INSTALL = ("npm", "install", "--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund")


def why_no_node() -> str | None:
    """Say why there is no Node to produce jobs; nothing where there is."""
    missing = [name for name in ("node", "npm") if shutil.which(name) is None]
    return f"not found: {' and '.join(missing)}" if missing else None


@asynccontextmanager
async def node_producer(url: str, queue: str) -> AsyncIterator[Add]:
    """Give what adds jobs by npm's `bullmq`, which is installed for it in a directory that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="flysync-node-") as place:
        for source in (_PACKAGES, _PROGRAM):  # Node looks for packages beside the program
            shutil.copy(source, place)
        await asyncio.to_thread(subprocess.run, _INSTALL, cwd=place, check=True, stdout=subprocess.DEVNULL)
        process = await asyncio.create_subprocess_exec(
            "node",
            _PROGRAM.name,
            queue,
            cwd=place,
            env=os.environ | {"REDIS_URL": url},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        stdin, stdout, turn = process.stdin, process.stdout, asyncio.Lock()

        async def add(name: str, data: Mapping[str, Any], opts: Mapping[str, Any]) -> None:
            async with turn:
                stdin.write(json.dumps({"name": name, "data": data, "opts": opts}).encode() + b"\n")
                assert await stdout.readline(), "the producer has ended"

        try:
            yield add
        finally:
            stdin.close()
            await process.wait()


@asynccontextmanager
async def python_producer(url: str, queue: str) -> AsyncIterator[Add]:
    """Give what adds jobs where there is no Node."""
    from bullmq import Queue

    jobs = Queue(queue, {"connection": url})
    try:
        yield lambda name, data, opts: jobs.add(name, data, dict(opts))
    finally:
        await jobs.close()
