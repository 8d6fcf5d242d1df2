"""Fly.io in memory: apps with versions of secrets, and machines that run with one of them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from flysync.errors import (
    AppNotFound,
    DaytonaUnavailable,
    DeployIncomplete,
    FlysyncError,
    InvalidCredential,
    OutcomeUnknown,
)
from flysync.model.fly import Flyctl, FlySecret, FlyStatus, Machine, Machines, Reach, Rollout, Token, TokenKind
from flysync.ports import RolloutFailed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from doubles.sandboxes import InMemorySandbox
    from flysync.model.core import AppName, SecretName
    from flysync.ports import OnProgress, SecretStore
    from flysync.secret import Secret


@dataclass
class InMemoryApp:
    """An app: what is stored, and what its machines run with."""

    machines: int = 1
    stored: dict[str, str] = field(default_factory=dict)
    running: dict[str, str] = field(default_factory=dict)
    #: How often all machines were restarted.
    restarts: int = 0
    #: How many of the next roll-outs crash.
    crashes: int = 0
    #: How many have crashed.
    crashed: int = 0
    sets: int = 0


class InMemoryFly:
    """Fly.io: `apps` by name, and what is to go wrong: `failures[call]`, one per call; `lost[call]` after the work."""

    def __init__(self) -> None:
        self.apps: dict[str, InMemoryApp] = {}
        self.failures: dict[str, list[FlysyncError]] = {}
        self.lost: dict[str, list[FlysyncError]] = {}
        self.calls: list[str] = []
        #: Names that Fly refuses though they look like names.
        self.refused: set[str] = set()
        #: What a sandbox reaches of it and of others, and what the token says of itself.
        self.reach: Reach | None = Reach(fly={"GraphQL API": True, "Machines API": True, "releases API": True})
        self.token = Token(kind=TokenKind.OAUTH)
        self.flyctl = Flyctl(version="0.4.87", was_there=False)

    def add_app(self, name: str, *, machines: int = 1) -> InMemoryApp:
        """Make an app."""
        self.apps[name] = InMemoryApp(machines=machines)
        return self.apps[name]

    def begin(self, call: str) -> None:
        """Note a call, and fail where that is asked for."""
        self.calls.append(call)
        if self.failures.get(call):
            raise self.failures[call].pop(0)

    def end(self, call: str) -> None:
        """Lose the answer of a call that has done its work."""
        if self.lost.get(call):
            raise self.lost[call].pop(0)


class InMemorySecrets:
    """The secrets of one app (port `SecretStore`), reached from a sandbox that has to be there."""

    def __init__(self, fly: InMemoryFly, sandbox: InMemorySandbox, app: str) -> None:
        self._fly = fly
        self._sandbox = sandbox
        self._name = app

    async def prepare(self, like: SecretStore | None = None) -> str:
        """Give a version."""
        if like is None:
            self._enter("prepare")
        return "0.4.87"

    def batches(self, values: Mapping[SecretName, Secret]) -> Sequence[Sequence[SecretName]]:
        """Put everything into one batch."""
        return [list(values)] if values else []

    async def stage(self, values: Mapping[SecretName, Secret]) -> None:
        """Store the values."""
        self._enter("set")
        app = self._app()
        if refused := next((name for name in values if not name.isidentifier() or name in self._fly.refused), None):
            raise InvalidCredential(f"Fly.io refuses {refused!r} as the name of a secret", service="fly", phase="set")
        app.stored.update({name: secret.reveal() for name, secret in values.items()})
        app.sets += 1
        self._fly.end("set")

    async def unset(self, names: Sequence[SecretName]) -> None:
        """Remove secrets."""
        self._enter("unset")
        app = self._app()
        for name in names:
            app.stored.pop(name, None)
        app.sets += 1
        self._fly.end("unset")

    async def machines(self) -> Sequence[Machine]:
        """Give the machines; all of them are started."""
        self._enter("machines")
        app = self._app()
        return [Machine(id=f"m{number}", state="started", release=app.restarts) for number in range(app.machines)]

    async def list(self) -> Sequence[FlySecret]:
        """Give name, digest and status of what is stored."""
        self._enter("list")
        app = self._app()
        found = [
            FlySecret(name=name, digest=_digest(self._name, name, value), status=self._status(app, name))
            for name, value in sorted(app.stored.items())
        ]
        self._fly.end("list")
        return found

    async def deploy(self, *, wait: bool, timeout_s: float, on_progress: OnProgress | None = None) -> Rollout:
        """Let the machines run with what is stored."""
        try:
            self._enter("deploy")
        except FlysyncError as error:
            raise RolloutFailed(DeployIncomplete(error.message, service="fly", phase="deploy"), touched=False) from None
        app = self._app()
        if not app.machines:
            return Rollout(no_machines=True)
        app.restarts += 1
        if app.crashes:
            app.crashes -= 1
            app.crashed += 1
            crash = DeployIncomplete("the app crashes", service="fly", phase="deploy")
            raise RolloutFailed(crash, touched=True, machines=Machines(updated=0, total=app.machines))
        app.running = dict(app.stored)
        if on_progress is not None:
            on_progress(Machines(updated=app.machines, total=app.machines))
        try:
            self._fly.end("deploy")
        except OutcomeUnknown as error:
            raise RolloutFailed(error, touched=True) from None
        return Rollout(release=app.restarts, machines=Machines(updated=app.machines, total=app.machines))

    async def clean(self) -> None:
        """Leave nothing behind."""
        self._fly.calls.append("clean")

    def _enter(self, call: str) -> None:
        if self._sandbox.is_gone:
            raise DaytonaUnavailable("the sandbox is gone", service="daytona", phase=call)
        self._fly.begin(call)

    def _app(self) -> InMemoryApp:
        if self._name not in self._fly.apps:
            raise AppNotFound(f"Fly.io knows no app {self._name}", service="fly")
        return self._fly.apps[self._name]

    @staticmethod
    def _status(app: InMemoryApp, name: str) -> FlyStatus:
        is_running = app.machines and app.running.get(name) == app.stored[name]
        return FlyStatus.DEPLOYED if is_running else FlyStatus.STAGED


class InMemoryAccess:
    """The way from a sandbox that has to be there to Fly (port `FlyAccess`)."""

    def __init__(self, fly: InMemoryFly, sandbox: InMemorySandbox) -> None:
        self._fly = fly
        self._sandbox = sandbox

    async def reach(self) -> Reach | None:
        """Give what is reached."""
        self._enter("reach")
        return self._fly.reach

    async def prepare(self) -> Flyctl:
        """Give a version."""
        self._enter("prepare")
        return self._fly.flyctl

    async def token(self) -> Token:
        """Give what the token says."""
        self._enter("token")
        return self._fly.token

    async def sign_in(self) -> None:
        """Accept the token."""
        self._enter("sign-in")

    async def see(self, app: AppName) -> None:
        """Show an app."""
        self._enter("see")
        if app not in self._fly.apps:
            raise AppNotFound(f"Fly.io knows no app {app}", service="fly")

    def _enter(self, call: str) -> None:
        if self._sandbox.is_gone:
            raise DaytonaUnavailable("the sandbox is gone", service="daytona", phase=call)
        self._fly.begin(call)


def _digest(app: str, name: str, value: str) -> str:
    return hashlib.sha256(f"{app}\0{name}\0{value}".encode()).hexdigest()[:16]
