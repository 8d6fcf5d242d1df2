"""
The same work without flysync, as anybody would write it with Daytona's SDK: what the benchmarks compare with.

    bare.py deliver APP NAME=VALUE …        a sandbox for all: set, deploy, list
    bare.py first-plan APP NAME=VALUE …     for each name a sandbox, an installation of flyctl, and a set that restarts

No lock, no record, no check, no second try.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import TYPE_CHECKING

from daytona import AsyncDaytona, CreateSandboxFromSnapshotParams, DaytonaConfig

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: What a sandbox has installed flyctl as.
_INSTALLED = "$HOME/.fly/bin/flyctl"


def client() -> AsyncDaytona:
    """Give the SDK's client, made of the environment."""
    return AsyncDaytona(DaytonaConfig(api_key=os.environ["DAYTONA_API_KEY"], api_url=os.environ["DAYTONA_API_URL"]))


async def deliver(daytona: AsyncDaytona, app: str, values: Mapping[str, str]) -> None:
    """Set all *values* in one sandbox that has flyctl, deploy them, and list what is there."""
    words = " ".join(f'{name}="${name}"' for name in values)
    commands = (
        f"flyctl secrets set --stage --app {app} {words}",
        f"flyctl secrets deploy --app {app} --dns-checks=false",
        f"flyctl secrets list --app {app} --json",
    )
    await _run(daytona, commands, values)


async def first_plan(daytona: AsyncDaytona, app: str, values: Mapping[str, str]) -> None:
    """Set each value in a sandbox of its own, where flyctl is installed first; Fly restarts the app each time."""
    install = f"curl -sL {os.environ['FLYSYNC_FLYCTL_INSTALL_URL']} | sh"
    for name, value in values.items():
        await _run(daytona, (install, f'{_INSTALLED} secrets set --app {app} {name}="${name}"'), {name: value})


async def _run(daytona: AsyncDaytona, commands: Sequence[str], values: Mapping[str, str]) -> None:
    """Run *commands* in a sandbox, and delete it."""
    fly = {name: value for name, value in os.environ.items() if name.startswith("FLY_")}
    params = CreateSandboxFromSnapshotParams(snapshot=os.environ.get("FLYSYNC_SNAPSHOT"), ephemeral=True)
    sandbox = await daytona.create(params)
    try:
        for command in commands:
            answer = await sandbox.process.exec(command, env={**fly, **values}, timeout=300)
            assert 0 == answer.exit_code, answer.result
    finally:
        await daytona.delete(sandbox)


async def main() -> None:
    """Do what the arguments say."""
    way, app, *words = sys.argv[1:]
    async with client() as daytona:
        work = {"deliver": deliver, "first-plan": first_plan}[way]
        await work(daytona, app, dict(word.split("=", 1) for word in words))


if __name__ == "__main__":
    asyncio.run(main())
