"""
What the simulated Fly.io knows: apps with their secrets, machines and releases, and the tokens it honours.

Pure: no network; the clock is an argument. Each rule says where it comes from; "flyctl" is flyctl ad0172fac.
"""

from __future__ import annotations

import hashlib
import secrets as random
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from flysync.sim import macaroon
from flysync.sim.fly_machine import IMAGE, Machine, Refusal, stamp
from flysync.sim.fly_vault import Vault

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence


@dataclass(frozen=True, kw_only=True, slots=True)
class Token:
    """A token that Fly honours: for one organization, or for one app of it."""

    value: str
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
    image: str = IMAGE
    status: str = "complete"
    definition: object = None

    def shown(self) -> dict[str, object]:
        """Give it as api.fly.io lists it (names read: flyctl internal/uiex/releases.go)."""
        return {
            "id": self.id,
            "version": self.version,
            "stable": self.status == "complete",
            "in_progress": self.status in ("pending", "running"),
            "status": self.status,
            "strategy": "ROLLING",
            "user": "dev@example.test",
            "created_at": stamp(self.created_at),
            "image_ref": self.image,
        }


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

    def compact(self) -> dict[str, object]:
        """Give what GetAppCompact asks for (types read: fly-go types.go AppCompact)."""
        return {
            "id": self.name,
            "internalNumericId": self.number,
            "name": self.name,
            "hostname": f"{self.name}.fly.dev",
            "cnameTarget": "",
            "deployed": self.deployed,
            "network": "default",
            "status": "deployed" if self.deployed else "pending",
            "appUrl": f"https://{self.name}.fly.dev",
            "platformVersion": "machines",
            "organization": {"id": "o1", "internalNumericId": "9", "slug": self.org, "paidPlan": False},
            "postgresAppRole": None,
        }

    def shown(self) -> dict[str, object]:
        """Give it as the Machines API does."""
        return {
            "id": self.name,
            "name": self.name,
            "internal_numeric_id": self.number,
            "status": "deployed" if self.deployed else "pending",
            "machine_count": len(self.machines),
            "organization": {"name": self.org, "slug": self.org},
        }

    @property
    def restarts(self) -> dict[str, int]:
        """How often each machine was restarted by an update."""
        return {machine.id: machine.restarts for machine in self.machines}

    def machine(self, machine_id: str) -> Machine:
        """Give the machine *machine_id*, or refuse as the Machines API does (text: assumed)."""
        for machine in self.machines:
            if machine.id == machine_id:
                return machine
        raise Refusal(404, "machine not found")

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
        if not machine_id:
            machine_id = hashlib.sha256(f"{self.name}/{len(self.machines)}".encode()).hexdigest()[:14]
        newest = self.releases[-1] if self.releases else None
        ours = {
            "fly_flyctl_version": "0.4.80",
            "fly_platform_version": "v2",
            "fly_process_group": group,
            "fly_release_id": newest.id if newest else "",
            "fly_release_version": str(newest.version) if newest else "",
        }
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
        release = self.add_release(image=IMAGE, definition=self.releases[-1].definition, at=self.now())
        release.status = "complete"
        for machine in self.machines:
            if machine.is_managed:
                ours = {"fly_release_id": release.id, "fly_release_version": str(release.version)}
                self.update_machine(
                    machine,
                    config={**machine.config, "metadata": {**machine.metadata, **ours}},
                    min_secrets_version=self.vault.version,
                    skip_launch=machine.state not in ("started", "starting", "failed"),
                )
        return release

    def add_release(self, *, image: str, definition: object, at: datetime) -> Release:
        """Create the app's next release, pending."""
        version = self.releases[-1].version + 1 if self.releases else 1
        release = Release(id=f"{self.name}-r{version}", version=version, created_at=at, image=image, status="pending")
        release.definition = definition
        self.releases.append(release)
        return release


class World:
    """All of Fly.io: its apps and the tokens it honours; without *key* its digests are those of no other world."""

    def __init__(self, *, now: Callable[[], datetime] | None = None, key: bytes = b"") -> None:
        self.now = now or (lambda: datetime.now(UTC))
        self.apps: dict[str, App] = {}
        self.tokens: dict[str, Token] = {"test-token": Token(value="test-token")}
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
            definition = {"app": name, **(config or {})}
            first = Release(id=f"{name}-r{release}", version=release, created_at=before, definition=definition)
            app.releases.append(first)
        for machine_id in [""] * machines if isinstance(machines, int) else machines:
            app.add_machine(machine_id, checks=checks)
        self.apps[name] = app
        return app

    def add_token(self, value: str, *, org: str = "personal", app: str = "") -> Token:
        """Honour the token *value*, for all apps of *org* or for *app* alone."""
        self.tokens[value] = Token(value=value, org=org, app=app)
        return self.tokens[value]

    def refuse_token(self, value: str) -> None:
        """Honour the token *value* no longer."""
        self.tokens.pop(value, None)

    def honoured(self, value: str) -> Token | None:
        """Give the token *value*, or the macaroon that it narrows, with what that leaves; nothing once it is over."""
        known = self.tokens.get(value)
        if not value.startswith("fm2_"):
            return known
        if known is None:
            known = next((one for one in self.tokens.values() if macaroon.narrows(one.value, value)), None)
        if known is None or macaroon.ends(value) <= self.now().timestamp():
            return None
        return replace(known, value=value, numbers=macaroon.apps(value))

    def visible_app(self, name: str, tokens: Sequence[Token]) -> App | None:
        """Give the app *name* if one of *tokens* may see it."""
        app = self.apps.get(name)
        return app if app and any(token.serves(app) for token in tokens) else None

    def app_for(self, name: str, tokens: Sequence[Token]) -> App:
        """Give the app *name*, or refuse as the Machines API does (403: read, flaps_apps.go; its text: assumed)."""
        if not tokens:
            raise Refusal(401, "unauthorized")
        if name not in self.apps:
            raise Refusal(404, "app not found")
        app = self.visible_app(name, tokens)
        if app is None:
            raise Refusal(403, "not authorized to access this app")
        return app
