"""The flyctl of one sandbox, for one run."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from flysync.adapters.flyctl import install
from flysync.adapters.flyctl.access import CONTROLS, FlyctlAccess
from flysync.adapters.flyctl.script import Part
from flysync.adapters.flyctl.secrets import FlyctlSecrets
from flysync.adapters.flyctl.steps import Limits, Steps

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flysync.adapters.flyctl.install import Source
    from flysync.model.core import AppName, RunId
    from flysync.model.fly import Flyctl
    from flysync.ports import Clock, Sandbox
    from flysync.secret import Secret


class FlyctlSandbox:
    """
    flyctl in *sandbox* (port `SandboxFlyctl`), from *source* where there is none that is new enough.

    *base_urls* are handed on to flyctl (`FLY_API_BASE_URL`, ...). The run is over at *end_at* of *clock*'s monotonic
    seconds: nothing is tried again that would begin later. *controls* are addresses to try where Fly does not answer.
    """

    def __init__(
        self,
        sandbox: Sandbox,
        run_id: RunId,
        token: Secret,
        *,
        source: Source,
        base_urls: Mapping[str, str],
        clock: Clock,
        end_at: float,
        controls: tuple[str, str] = CONTROLS,
        limits: Limits | None = None,
    ) -> None:
        self._source = source
        self._controls = controls
        self._found: Flyctl | None = None
        self._preparing = asyncio.Lock()
        self._steps = Steps(
            sandbox, run_id, token, base_urls=base_urls, clock=clock, end_at=end_at, limits=limits or Limits()
        )

    async def prepare(self) -> Flyctl:
        """Look for one on the PATH and where Fly's installer puts it, else install the pinned version."""
        async with self._preparing:
            if self._found is None:
                self._steps.program, self._found = await install.prepared(self._steps, self._source)
        return self._found

    def secrets(self, app: AppName) -> FlyctlSecrets:
        """Give the secrets of *app*."""
        return FlyctlSecrets(app, self._steps)

    def access(self) -> FlyctlAccess:
        """Give the way to Fly."""
        return FlyctlAccess(self._steps, self._controls)

    async def clean(self) -> None:
        """Remove the run's directory; the last step in a borrowed sandbox."""
        limit_s = self._steps.limits.clean_s
        await self._steps.once(Part("clean", '{ cd / && rm -rf "$d"; }', limit_s, has_token=False))
