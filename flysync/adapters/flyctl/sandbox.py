"""The flyctl of one sandbox, for one run."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from typing_extensions import override

from flysync.adapters.flyctl import install
from flysync.adapters.flyctl.access import CONTROLS, FlyctlAccess
from flysync.adapters.flyctl.script import Part
from flysync.adapters.flyctl.secrets import FlyctlSecrets
from flysync.ports import SandboxFlyctl

if TYPE_CHECKING:
    from flysync.adapters.flyctl.install import Source
    from flysync.adapters.flyctl.steps import Steps
    from flysync.model.core import AppName
    from flysync.model.fly import Flyctl


class FlyctlSandbox(SandboxFlyctl):
    """
    flyctl where *steps* run, from *source* where there is none that is new enough.

    *controls* are addresses to try where Fly does not answer.
    """

    def __init__(self, steps: Steps, *, source: Source, controls: tuple[str, str] = CONTROLS) -> None:
        self._steps = steps
        self._source = source
        self._controls = controls
        self._found: Flyctl | None = None
        self._preparing = asyncio.Lock()

    @override
    async def prepare(self) -> Flyctl:
        async with self._preparing:
            if self._found is None:
                self._steps.program, self._found = await install.prepared(self._steps, self._source)
        return self._found

    @override
    def secrets(self, app: AppName) -> FlyctlSecrets:
        return FlyctlSecrets(app, self._steps)

    @override
    def access(self) -> FlyctlAccess:
        return FlyctlAccess(self._steps, self._controls)

    @override
    async def clean(self) -> None:
        limit_s = self._steps.limits.clean_s
        await self._steps.once(Part("clean", '{ cd / && rm -rf "$d"; }', limit_s, has_token=False))
