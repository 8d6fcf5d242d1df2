"""Fly.io in memory: apps with versions of secrets, and the machines of each, which run with one of them."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from doubles.fly_app import InMemoryApp
from flysync.errors import (
    AccessDenied,
    AppNotFound,
    DaytonaUnavailable,
    DeployIncomplete,
    FlyctlFailed,
    FlysyncError,
    InvalidCredential,
    OutcomeUnknown,
    Scope,
    TimedOut,
)
from flysync.model.core import AppName
from flysync.model.fly import (
    AppAtFly,
    Flyctl,
    FlySecret,
    FlyStatus,
    Machines,
    Reach,
    Rollout,
    RolloutEnd,
    Token,
    TokenKind,
    Written,
)
from flysync.ports import FlyctlMissing
from flysync.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from doubles.sandboxes import InMemorySandbox
    from flysync.model.core import SecretName
    from flysync.ports import OnProgress, OwnTokens

#: More machines than these, and flyctl shows no status (internal/command/secrets/list.go).
_MOST_SHOWN = 100


class InMemoryFly:
    """
    Fly.io: `apps` by name, and what is to go wrong.

    `failures[call]` is raised from before the call's work, one per call, `lost[call]` after it. The calls are those of
    the ports: prepare, set, unset, look, deploy, start, reach, token, sign-in, see; `failures["machines"]` is for the
    machines of a look alone. Of a deploy both become a `Rollout`. Where a look is to fail, what changes something sees
    nothing afterwards.
    """

    def __init__(self) -> None:
        self.apps: dict[str, InMemoryApp] = {}
        self.failures: dict[str, list[FlysyncError]] = {}
        self.lost: dict[str, list[FlysyncError]] = {}
        self.calls: list[str] = []
        #: Names that Fly refuses though they look like names.
        self.refused: set[str] = set()
        #: What a sandbox reaches of it and of others, and what the token says of itself.
        self.reach: Reach | None = Reach(fly={"GraphQL API": True, "Machines API": True, "releases API": True})
        self.token = Token(kind=TokenKind.ORG)
        self.flyctl = Flyctl(version="0.4.87", was_there=False)
        self.keys: dict[str, str] = {}  #: The one token that reaches an app, where that is not any.

    def add_app(self, name: str, *, machines: int = 1) -> InMemoryApp:
        """Make an app."""
        self.apps[name] = InMemoryApp(machines=machines)
        return self.apps[name]

    def find(self, name: str, tokens: OwnTokens) -> InMemoryApp:
        """Give an app, where *tokens* have the one that reaches it."""
        if name in self.keys and tokens.get(AppName(name)) != Secret(self.keys[name]):
            raise AccessDenied(f"the token may not see {name}", service="fly", scope=Scope.APP)
        if name not in self.apps:
            raise AppNotFound(f"Fly.io knows no app {name}", service="fly")
        return self.apps[name]

    def begin(self, call: str, sandbox: InMemorySandbox) -> None:
        """Note a call, and fail where that is asked for, or where its sandbox is gone."""
        if sandbox.is_gone:
            raise DaytonaUnavailable("the sandbox is gone", service="daytona", phase=call)
        self.calls.append(call)
        self.fail(call)

    def fail(self, call: str) -> None:
        """Fail where that is asked for."""
        if self.failures.get(call):
            raise self.failures[call].pop(0)

    def end(self, call: str) -> None:
        """Lose the answer of a call that has done its work."""
        if self.lost.get(call):
            raise self.lost[call].pop(0)


class InMemoryFlyctl:
    """The flyctl of a sandbox that has to be there (port `SandboxFlyctl`)."""

    def __init__(self, fly: InMemoryFly, sandbox: InMemorySandbox, tokens: OwnTokens = MappingProxyType({})) -> None:
        self._fly = fly
        self._sandbox = sandbox
        self._tokens = tokens

    @property
    def found(self) -> Flyctl | None:
        """Give a version, once something was done with it."""
        return self._fly.flyctl if self._sandbox.has_flyctl else None

    async def prepare(self) -> Flyctl:
        """Give a version."""
        if not self._sandbox.has_flyctl:
            self._fly.begin("prepare", self._sandbox)
            self._sandbox.has_flyctl = True
        return self._fly.flyctl

    def secrets(self, app: AppName) -> InMemorySecrets:
        """Give the secrets of *app*."""
        return InMemorySecrets(self._fly, self._sandbox, app, self._tokens)

    async def clean(self) -> None:
        """Leave nothing behind."""
        self._fly.calls.append("clean")

    async def reach(self, *, others: bool = False) -> Reach | None:
        """Give what is reached; of others nothing, where nothing else is said."""
        self._fly.begin("reach", self._sandbox)
        reach = self._fly.reach
        return replace(reach, essential=False, other=False) if others and reach and reach.other is None else reach

    async def token(self, app: AppName | None = None) -> Token:
        """Give what the token says; any says the same."""
        self._fly.begin("token", self._sandbox)
        return self._fly.token

    async def sign_in(self, app: AppName | None = None) -> None:
        """Accept the token, or that of an app."""
        self._fly.begin("sign-in", self._sandbox)

    async def see(self, app: AppName, *, alone: bool = False) -> None:
        """Show an app."""
        self._fly.begin("see alone" if alone else "see", self._sandbox)
        self._fly.find(app, self._tokens)


class InMemorySecrets:
    """The secrets of one app (port `SecretStore`), reached from a sandbox that has to be there."""

    def __init__(
        self, fly: InMemoryFly, sandbox: InMemorySandbox, app: str, tokens: OwnTokens = MappingProxyType({})
    ) -> None:
        self._fly = fly
        self._sandbox = sandbox
        self._name = app
        self._tokens = tokens

    def batches(self, values: Mapping[SecretName, Secret]) -> Sequence[Sequence[SecretName]]:
        """Put everything into one batch."""
        return [list(values)] if values else []

    async def stage(self, values: Mapping[SecretName, Secret], *, looks_first: bool = False) -> Written:
        """Store the values."""
        app = self._enter("set")
        before = frozenset(app.shown()) if looks_first else frozenset()
        if refused := next((name for name in values if not name.isidentifier() or name in self._fly.refused), None):
            message = f"Fly.io refuses {refused!r} as the name of a secret"
            raise InvalidCredential(message, name=refused, service="fly", phase="set")
        app.write({name: secret.reveal() for name, secret in values.items()})
        app.sets += 1
        self._fly.end("set")
        return Written(before=before, after=self._after(app))

    async def unset(self, names: Sequence[SecretName]) -> Written:
        """Remove secrets."""
        app = self._enter("unset")
        app.write(dict.fromkeys(names))
        app.sets += 1
        self._fly.end("unset")
        return Written(after=self._after(app))

    async def look(self) -> AppAtFly:
        """Give secrets and machines; without the machines every secret is Staged, or so flyctl says."""
        app = self._enter("look")
        try:
            self._fly.fail("machines")
        except FlysyncError as error:
            return AppAtFly(secrets=self._secrets(app, sees_machines=False), machines=None, error=error)
        at_fly = self._shown(app)
        self._fly.end("look")
        return at_fly

    async def deploy(self, *, wait: bool, timeout_s: float, on_progress: OnProgress | None = None) -> Rollout:
        """Let the machines run with what is stored."""
        try:
            app = self._enter("deploy")
        except FlysyncError as error:
            is_lost = isinstance(error, OutcomeUnknown)
            return Rollout(end=RolloutEnd.UNKNOWN if is_lost else RolloutEnd.UNTOUCHED, error=error)
        total = len(app.managed)
        reached = 0

        def reach() -> None:
            nonlocal reached
            reached += 1
            if on_progress is not None:
                on_progress(Machines(updated=reached, total=total))

        end = app.roll_out(timeout_s if wait else None, reach)
        try:
            self._fly.end("deploy")
        except FlysyncError as error:
            return Rollout(end=RolloutEnd.UNKNOWN, error=error)
        if end is RolloutEnd.UNKNOWN:
            return Rollout(end=end, error=_ERRORS[end])
        is_touched = end not in {RolloutEnd.NO_MACHINES, RolloutEnd.UNTOUCHED}
        return Rollout(
            end=end,
            release=app.release if end is RolloutEnd.SUCCEEDED else None,
            machines=Machines(updated=reached, total=total) if is_touched else None,
            error=_ERRORS.get(end),
            after=self._after(app),
        )

    async def start(self, machines: Sequence[str]) -> None:
        """Start machines."""
        app = self._enter("start")
        by_id = {machine.id: machine for machine in app.machines}
        for machine_id in machines:
            if machine_id not in by_id:
                raise FlyctlFailed("flyctl could not start a machine", service="fly", phase="start")
            by_id[machine_id].start()
        self._fly.end("start")

    def _enter(self, call: str) -> InMemoryApp:
        if not self._sandbox.has_flyctl and not self._sandbox.is_gone and not self._fly.flyctl.was_there:
            raise FlyctlMissing
        self._fly.begin(call, self._sandbox)
        self._sandbox.has_flyctl = True
        return self._fly.find(self._name, self._tokens)

    def _after(self, app: InMemoryApp) -> AppAtFly | None:
        """Give what is seen right after a change; nothing where a look is to fail."""
        fails = any((*self._fly.failures.get(call, ()), *self._fly.lost.get(call, ())) for call in ("look", "machines"))
        return None if fails else self._shown(app)

    def _shown(self, app: InMemoryApp) -> AppAtFly:
        return AppAtFly(secrets=self._secrets(app), machines=tuple(one.shown() for one in app.machines))

    def _secrets(self, app: InMemoryApp, *, sees_machines: bool = True) -> tuple[FlySecret, ...]:
        shown = app.shown()
        if len(app.machines) > _MOST_SHOWN:
            shown = {name: (value, FlyStatus.UNKNOWN) for name, (value, _) in shown.items()}
        return tuple(
            FlySecret(
                name=name,
                digest=_digest(self._name, name, value),
                status=status if sees_machines else FlyStatus.STAGED,
            )
            for name, (value, status) in sorted(shown.items())
        )


#: Why a roll-out did not succeed, by how it ended.
_ERRORS: dict[RolloutEnd, FlysyncError] = {
    RolloutEnd.UNTOUCHED: FlyctlFailed("flyctl failed before it had touched a machine", service="fly", phase="deploy"),
    RolloutEnd.APP_FAILED: DeployIncomplete("a machine of the app did not start", service="fly", phase="deploy"),
    RolloutEnd.OUT_OF_TIME: TimedOut("flyctl ran out of time (deploy)", service="fly", phase="deploy"),
    RolloutEnd.BROKEN_OFF: FlyctlFailed("flyctl broke off", service="fly", phase="deploy"),
    RolloutEnd.UNKNOWN: OutcomeUnknown("the answer to 'deploy' was lost", service="daytona", phase="deploy"),
}


def _digest(app: str, name: str, value: str) -> str:
    return hashlib.sha256(f"{app}\0{name}\0{value}".encode()).hexdigest()[:16]
