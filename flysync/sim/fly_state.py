"""
What the simulated Fly.io knows: apps with their secrets, machines and releases, and the tokens it honours.

Pure: no network; the clock is an argument. Each rule says where it comes from; "flyctl" is flyctl ad0172fac.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets as random
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from flysync.sim import macaroon
from flysync.sim.fly_machine import IMAGE, Machine, Refusal, stamp
from flysync.sim.flyctl_client import is_managed

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

#: Letters, digits and underscores, no digit first (measured: `"1A" is not a valid secret name`, flyctl.md 1.6).
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, kw_only=True, slots=True)
class Token:
    """A token that Fly honours: for one organization, or for one app of it."""

    org: str = "personal"
    #: The only app it may touch; empty for all apps of the organization.
    app: str = ""
    #: The numbers of the apps that its caveats name; absent where they name none.
    numbers: Collection[int] | None = None

    def serves(self, app: App) -> bool:
        """Tell whether it may touch *app*."""
        is_named = self.numbers is None or app.number in self.numbers
        return self.org == app.org and self.app in ("", app.name) and is_named


@dataclass(kw_only=True, slots=True)
class Release:
    """A release of an app, as flyctl creates one with each deploy."""

    id: str
    version: int
    created_at: datetime
    image: str
    definition: object
    status: str = "pending"

    @property
    def metadata(self) -> dict[str, str]:
        """What the config of a machine says that is on it."""
        return {"fly_release_id": self.id, "fly_release_version": str(self.version)}


@dataclass(frozen=True, kw_only=True, slots=True)
class Secret:
    """A secret as Fly holds it; the digest is opaque: equal for equal app, name and value in one world."""

    value: str
    digest: str
    at: datetime


class Vault:
    """
    The secrets of one app; each update makes a new version, and none is forgotten.

    An update that changes nothing makes a version too (measured: flyctl.md 6; it sets `updated_at` again: assumed).
    """

    def __init__(self, app: str, key: bytes) -> None:
        self._app, self._key = app, key
        #: What was held at each version, from when on; the first one is version 1.
        self._versions: list[tuple[datetime, dict[str, Secret]]] = [(datetime.min.replace(tzinfo=UTC), {})]

    @property
    def version(self) -> int:
        """The number of the newest version."""
        return len(self._versions)

    @property
    def current(self) -> Mapping[str, Secret]:
        """The secrets of the newest version, by name."""
        return self._versions[-1][1]

    def listed(self, moment: datetime) -> list[dict[str, object]]:
        """List those that were the newest ones at that *moment*, by name and without values (order: assumed)."""
        held = [secrets for made_at, secrets in self._versions if made_at <= moment][-1]
        return [
            {"name": name, "digest": one.digest, "created_at": stamp(one.at), "updated_at": stamp(one.at)}
            for name, one in sorted(held.items())
        ]

    def environment(self, version: int) -> dict[str, str]:
        """Give what a machine started on *version* finds in its environment."""
        return {name: secret.value for name, secret in self._versions[version - 1][1].items()}

    def update(self, values: Mapping[str, str | None], *, at: datetime) -> int:
        """
        Set the secrets that have a value, remove those that have none, and give the new version's number.

        A bad name is refused and then nothing is stored (that it is all or nothing: assumed).
        """
        held = dict(self.current)
        for name, value in values.items():
            if not _NAME.fullmatch(name):
                raise Refusal(400, f'"{name}" is not a valid secret name')
            held.pop(name, None)
            if value is not None:
                # 16 hexadecimal digits (measured: their number; keyed with app and name: assumed, flyctl.md 6).
                message = f"{self._app}\0{name}\0{value}".encode("utf-8", "surrogatepass")
                digest = hmac.new(self._key, message, hashlib.sha256).hexdigest()[:16]
                held[name] = Secret(value=value, digest=digest, at=at)
        self._versions.append((at, held))
        return self.version


@dataclass(kw_only=True, eq=False)
class App:
    """An app: its secrets, machines and releases."""

    name: str
    number: int
    org: str
    #: Whether it was ever deployed.
    deployed: bool
    vault: Vault
    now: Callable[[], datetime]
    machines: list[Machine] = field(default_factory=list)
    releases: list[Release] = field(default_factory=list)
    #: How old the list of secrets is that the Machines API gives (seen lagging by seconds: reported).
    list_lag_s: float = 0.0

    @property
    def secrets(self) -> dict[str, str]:
        """The values that are stored now, by name."""
        return self.vault.environment(self.vault.version)

    @property
    def restarts(self) -> dict[str, int]:
        """How often each machine was restarted by an update."""
        return {machine.id: machine.restarts for machine in self.machines}

    def machine(self, machine_id: str) -> Machine:
        """Give the machine *machine_id*, or refuse as the Machines API does (text: assumed)."""
        known = {machine.id: machine for machine in self.machines}
        if machine_id not in known:
            raise Refusal(404, "machine not found")
        return known[machine_id]

    def deployed_env(self, machine: Machine | str) -> dict[str, str]:
        """Give the secrets that *machine* runs with."""
        return dict((machine if isinstance(machine, Machine) else self.machine(machine)).env)

    def running(self) -> dict[str, dict[str, str]]:
        """Give the secrets that each machine whose app is up runs with."""
        return {machine.id: dict(machine.env) for machine in self.machines if machine.runs}

    def add_machine(
        self,
        machine_id: str = "",
        *,
        group: str = "app",
        state: str = "started",
        managed: bool = True,
        checks: bool = False,
        standbys: Sequence[str] = (),
        **metadata: str,
    ) -> Machine:
        """
        Give the app one more machine, running with the secrets of now.

        flyctl's secrets commands see only a *managed* one, one that `fly launch` or `fly deploy` made
        (read: fly-go machine_types.go IsFlyAppsPlatform). *standbys* are the machines it stands by for; *metadata*
        is what else its config says of it, such as `fly_canary="true"`.
        """
        machine_id = machine_id or hashlib.sha256(f"{self.name}/{len(self.machines)}".encode()).hexdigest()[:14]
        ours = {"fly_flyctl_version": "0.4.80", "fly_platform_version": "v2", "fly_process_group": group}
        ours |= self.releases[-1].metadata if self.releases else {}
        config: dict[str, Any] = {
            "init": {},
            "guest": {"cpu_kind": "shared", "cpus": 1, "memory_mb": 256},
            "metadata": {**(ours if managed else {}), **metadata},
            "image": IMAGE,
            **({"checks": {"alive": {"type": "tcp", "port": 8080}}} if checks else {}),
            **({"standbys": list(standbys)} if standbys else {}),
        }
        version = self.vault.version
        machine = Machine(id=machine_id, config=config, secrets_version=version, env=self.secrets, now=self.now)
        machine.state = state
        self.machines.append(machine)
        return machine

    def update_machine(
        self, machine: Machine, *, config: dict[str, Any], min_secrets_version: int, skip_launch: bool
    ) -> None:
        """
        Give *machine* a new config and start it again.

        It gets the oldest secrets that it may: those of *min_secrets_version*, but none older than it had. Fly
        promises no more (read: flyctl internal/command/secrets/sync.go), so the simulator gives no more (assumed).
        """
        if machine.update_failures > 0:
            machine.update_failures -= 1
            raise Refusal(500, "could not update machine")
        if min_secrets_version > self.vault.version:
            raise Refusal(400, f"secrets version {min_secrets_version} does not exist")  # assumed
        version = max(machine.secrets_version, min_secrets_version)
        machine.update(config, version=version, env=self.vault.environment(version), launch=not skip_launch)

    def deploy(self) -> Release:
        """Do what somebody's `fly deploy` does: a release, and each machine on it, with the newest secrets."""
        release = self.add_release(definition=self.releases[-1].definition, at=self.now())
        release.status = "complete"
        for machine in (one for one in self.machines if is_managed(one.shown())):
            config = {**machine.config, "metadata": {**machine.metadata, **release.metadata}}
            is_down = machine.state not in ("started", "starting", "failed")
            self.update_machine(machine, config=config, min_secrets_version=self.vault.version, skip_launch=is_down)
        return release

    def add_release(self, *, image: str = IMAGE, definition: object, at: datetime, version: int = 0) -> Release:
        """Create the app's next release, pending; its first one may have a *version*."""
        version = version or (self.releases[-1].version + 1 if self.releases else 1)
        name = f"{self.name}-r{version}"
        self.releases.append(Release(id=name, version=version, created_at=at, image=image, definition=definition))
        return self.releases[-1]


class World:
    """All of Fly.io: its apps and the tokens it honours; without *key* its digests are those of no other world."""

    def __init__(self, *, now: Callable[[], datetime] | None = None, key: bytes = b"") -> None:
        self.now = now or (lambda: datetime.now(UTC))
        self.apps: dict[str, App] = {}
        self.tokens: dict[str, Token] = {"test-token": Token()}
        self._key = key or random.token_bytes(32)

    def add_app(
        self,
        name: str,
        *,
        machines: int | Sequence[str] = 1,
        deployed: bool = True,
        org: str = "personal",
        secrets: Mapping[str, str] | None = None,
        release: int = 1,
        config: Mapping[str, object] | None = None,
        checks: bool = False,
    ) -> App:
        """
        Make an app with some *machines* (how many, or their ids), all running with *secrets*.

        *deployed* tells whether it ever was deployed; then *release* is its release so far, with *config* (a
        `fly.toml` as a mapping) as its definition.
        """
        before = self.now() - timedelta(hours=1)
        vault = Vault(name, self._key)
        if secrets:
            vault.update(secrets, at=before)
        app = App(name=name, number=len(self.apps) + 1, org=org, deployed=deployed, vault=vault, now=self.now)
        if deployed:
            app.add_release(definition={"app": name, **(config or {})}, at=before, version=release).status = "complete"
        for machine_id in [""] * machines if isinstance(machines, int) else machines:
            app.add_machine(machine_id, checks=checks)
        self.apps[name] = app
        return app

    def add_token(self, value: str, *, org: str = "personal", app: str = "") -> None:
        """Honour the token *value*, for all apps of *org* or for *app* alone."""
        self.tokens[value] = Token(org=org, app=app)

    def refuse_token(self, value: str) -> None:
        """Honour the token *value* no longer."""
        self.tokens.pop(value, None)

    def honoured(self, value: str) -> Token | None:
        """Give the token *value*, or the macaroon that it narrows, with what that leaves; nothing once it is over."""
        known = self.tokens.get(value)
        if not value.startswith("fm2_"):
            return known
        known = known or next((token for one, token in self.tokens.items() if macaroon.narrows(one, value)), None)
        if known is None or macaroon.ends(value) <= self.now().timestamp():
            return None
        return replace(known, numbers=macaroon.apps(value))

    def app_for(self, name: str, tokens: Sequence[Token]) -> App:
        """Give the app *name*, or refuse as the Machines API does (403: read, flaps_apps.go; its text: assumed)."""
        if not tokens:
            raise Refusal(401, "unauthorized")
        if name not in self.apps:
            raise Refusal(404, "app not found")
        if not any(token.serves(self.apps[name]) for token in tokens):
            raise Refusal(403, "not authorized to access this app")
        return self.apps[name]
