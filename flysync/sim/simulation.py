"""
The whole world of flysync on loopback: a real Postgres, a Daytona API, a Fly API and an installer of flyctl.

    async with Simulation() as world:
        subprocess.run(["flysync", "db", "init"], env=world.environ())

Nothing of it is reached by, or reaches, anything outside this machine.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Self

from flysync.secret import Secret
from flysync.sim import flyctl as stand_in, macaroon
from flysync.sim.daytona import Daytona
from flysync.sim.fly import Fly
from flysync.sim.postgres import EmbeddedPostgres

if TYPE_CHECKING:
    from collections.abc import Iterable

_DAYTONA_KEY = "dtn_sim_5b21e0c4"


class Simulation:
    """
    The services, started together; `postgres`, `daytona` and `fly` are theirs to be looked at and broken.

    *flyctl* is the executable that the installer installs (the stand-in where it is absent); *shell* runs the
    sandboxes' scripts; *dsn* is a database to use instead of a server of its own.
    """

    def __init__(self, *, flyctl: Path | None = None, shell: str = "", dsn: str | None = None) -> None:
        self.daytona = Daytona(api_key=_DAYTONA_KEY, shell=shell)
        self.fly = Fly(flyctl=flyctl)
        #: A whole organization's.
        self.fly_token = macaroon.macaroon(macaroon.organization(9))
        self.dsn = dsn or ""
        self.postgres: EmbeddedPostgres | None = None
        #: What was found of the watched values in sandboxes, before they were destroyed: value's number, path.
        self.leaks: list[tuple[int, str]] = []
        self.files_searched = 0
        self._watched: list[Secret] = []

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            if not self.dsn:
                self.postgres = EmbeddedPostgres()
                await asyncio.to_thread(self.postgres.__enter__)
                stack.push(self.postgres)
                self.dsn = await asyncio.to_thread(self.postgres.create_database, "platform")
            await stack.enter_async_context(self.daytona)
            await stack.enter_async_context(self.fly)
            self.fly.add_token(self.fly_token)
            self.daytona.before_destroy.append(self.search)
            built = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="flysync-")))
            # What a Dockerfile of ours puts on the PATH, whatever the version.
            self.daytona.snapshots.built_files = {"flyctl": stand_in.launcher(built / "flyctl")}
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._stack.aclose()

    def settings(self) -> dict[str, str]:
        """Give the settings that make flysync work in this world and in no other."""
        return {
            "DATABASE_URL": self.dsn,
            "DAYTONA_API_KEY": _DAYTONA_KEY,
            "DAYTONA_API_URL": self.daytona.api_url,
            "FLY_API_TOKEN": self.fly_token,
            **dict.fromkeys(("FLY_API_BASE_URL", "FLY_FLAPS_BASE_URL", "FLY_UIEX_BASE_URL"), self.fly.url),
            "FLYSYNC_FLYCTL_INSTALL_URL": f"{self.fly.url}/install.sh",
            "FLYSYNC_NO_KEYRING": "1",
        }

    def environ(self, **more: str) -> dict[str, str]:
        """Give this process' environment without anything that belongs to a real world, and with `settings`."""
        real = ("FLY", "DAYTONA_", "DATABASE_URL", "REDIS_URL", "PG")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(real)}
        # aiohttp honours proxies even for loopback (daytona.md 2).
        return kept | self.settings() | {"NO_PROXY": "127.0.0.1,localhost"} | more

    def watch(self, values: Iterable[str]) -> None:
        """Search for *values*, in all their forms, in whatever a sandbox leaves on disk."""
        self._watched += [Secret(value) for value in values]

    def search(self, root: Path) -> None:
        """Search the files under *root* for the watched values."""
        for path in root.rglob("*"):
            if path.is_file() and not path.is_symlink() and not os.access(path, os.X_OK):
                self.files_searched += 1
                self.leaks += [(number, str(path)) for number in self.found_in(path.read_bytes())]

    def found_in(self, data: bytes) -> list[int]:
        """Give the numbers of the watched values that occur in *data* in any form."""
        return [
            number
            for number, secret in enumerate(self._watched)
            if any(piece.encode() in data for piece in secret.encodings() if len(piece.strip()) >= 6)
        ]
