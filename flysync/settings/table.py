"""All settings: name, reader and default of each."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from flysync.errors import ConfigError, UsageError
from flysync.secret import Secret
from flysync.settings import database_url, readers, redis_address

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from flysync.model.core import SyncOptions, ValueSource
    from flysync.model.reports import Note


@dataclass(frozen=True, kw_only=True, slots=True)
class Variable:
    """The variable of a setting, and how it is read."""

    name: str
    read: Callable[[str], Any]
    #: May be in the keyring and in `.env` of the working directory, and is never shown.
    secret: bool = False
    #: An empty text is an error, and does not count as not set: whoever limits something has meant something.
    never_empty: bool = False
    #: Cannot be ignored without harm: in `.env`, where it would be, it is an error.
    limits: bool = False
    #: Gives what is ignored of a text.
    ignored: Callable[[str], Sequence[str]] = lambda _: ()


def _setting(name: str, read: Callable[[str], object], default: object = None, **more: Any) -> Any:
    return field(default=default, metadata={"variable": Variable(name=name, read=read, **more)})


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """All settings, checked; made by `load`."""

    fly_api_token: Secret | None = _setting("FLY_API_TOKEN", readers.fly_token, secret=True)
    daytona_api_key: Secret | None = _setting("DAYTONA_API_KEY", readers.api_key, secret=True)
    database_url: Secret | None = _setting("DATABASE_URL", readers.database, secret=True, ignored=database_url.ignored)
    redis_url: Secret | None = _setting("REDIS_URL", readers.redis, secret=True, ignored=redis_address.ignored)
    daytona_api_url: str = _setting("DAYTONA_API_URL", readers.base_url, "https://app.daytona.io/api")
    #: The region at Daytona; by default its own default.
    daytona_target: str | None = _setting("DAYTONA_TARGET", readers.name)
    #: The Daytona snapshot that sandboxes start from.
    snapshot: str | None = _setting("FLYSYNC_SNAPSHOT", readers.name)
    #: Installed if the sandbox has no flyctl that is new enough.
    flyctl_version: str = _setting("FLYSYNC_FLYCTL_VERSION", readers.version, "0.4.87")
    #: Sums of programs or of that version's archives: no flyctl is run that has none of them.
    flyctl_sha256: tuple[str, ...] | None = _setting("FLYSYNC_FLYCTL_SHA256", readers.sums, limits=True)
    flyctl_install_url: str = _setting("FLYSYNC_FLYCTL_INSTALL_URL", readers.installer, "https://fly.io/install.sh")
    #: Where flyctl runs: in sandboxes at Daytona ("daytona"), or on this machine ("local").
    runner: str = _setting("FLYSYNC_RUNNER", readers.one_of("daytona", "local"), "daytona", limits=True)
    #: What the sandboxes that are created may reach: everything ("open"), or Fly's hosts ("fly").
    egress: str = _setting("FLYSYNC_EGRESS", readers.one_of("open", "fly"), "open", limits=True)
    #: The command that gives each app's own token; by default all share FLY_API_TOKEN.
    token_command: str | None = _setting("FLYSYNC_TOKEN_COMMAND", readers.command, limits=True)
    #: What a sandbox's token serves: the one app ("app"), or all that the token does.
    narrow_token: str | None = _setting("FLYSYNC_NARROW_TOKEN", readers.one_of("app"), limits=True)
    #: The schema of the backend's tables; by default the connection's search_path.
    db_schema: str | None = _setting("FLYSYNC_DB_SCHEMA", readers.name)
    #: The schema of flysync's own tables; by default that of the backend's.
    state_schema: str | None = _setting("FLYSYNC_STATE_SCHEMA", readers.schema)
    #: Where policies apply to our role: nothing is read ("refuse"), or they show it every row ("complete").
    row_security: str = _setting("FLYSYNC_ROW_SECURITY", readers.one_of("refuse", "complete"), "refuse")
    #: Where values come from: the table ("database") or the caller ("caller").
    value_source: ValueSource = _setting("FLYSYNC_VALUE_SOURCE", readers.one_of("database", "caller"), "database")
    #: The command that decrypts what the table has; by default that is the value.
    decrypt: str | None = _setting("FLYSYNC_DECRYPT", readers.command, limits=True)
    #: Patterns of the apps that may be touched, and of the names that may not.
    apps: tuple[str, ...] = _setting("FLYSYNC_APPS", readers.app_patterns, ("*",), never_empty=True, limits=True)
    reserved_names: tuple[str, ...] = _setting(
        "FLYSYNC_RESERVED_NAMES", readers.name_patterns, (), never_empty=True, limits=True
    )
    #: The queue that the backend adds its jobs to.
    queue: str = _setting("FLYSYNC_QUEUE", readers.queue, "flyio-secrets")
    #: What the keys of all queues begin with, there as here.
    queue_prefix: str = _setting("FLYSYNC_QUEUE_PREFIX", readers.name, "bull")
    #: Who acts, for the record; by default the system's user.
    actor: str = _setting("FLYSYNC_ACTOR", readers.plain, "unknown")
    keep_runs_days: int = _setting("FLYSYNC_KEEP_RUNS_DAYS", readers.days, 90)
    no_keyring: bool = _setting("FLYSYNC_NO_KEYRING", readers.flag, default=False)
    #: Whether an empty value is synced; else it is invalid.
    allow_empty: bool = _setting("FLYSYNC_ALLOW_EMPTY", readers.flag, default=False)
    # These three are passed on to flyctl.
    fly_api_base_url: str | None = _setting("FLY_API_BASE_URL", readers.script_url)
    fly_flaps_base_url: str | None = _setting("FLY_FLAPS_BASE_URL", readers.script_url)
    fly_uiex_base_url: str | None = _setting("FLY_UIEX_BASE_URL", readers.script_url)

    notes: tuple[Note, ...] = ()

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """The settings that must never be shown."""
        return tuple(secret for name in SECRETS if (secret := getattr(self, VARIABLES[name][0])) is not None)

    @property
    def shared_token(self) -> Secret:
        """The token of all apps; an empty one where there is none, or each has its own."""
        return (None if self.token_command else self.fly_api_token) or Secret("")

    @property
    def flyctl_base_urls(self) -> dict[str, str]:
        """The addresses that are passed to flyctl, by the name of its variable."""
        urls = [name for name in HOSTS if name.endswith("_BASE_URL")]
        return {name: url for name in urls if (url := getattr(self, VARIABLES[name][0])) is not None}

    def missing(self, needs: Sequence[str]) -> list[str]:
        """Give those of *needs* that are not set."""
        names = needed(needs, has_command=self.token_command is not None, is_local=self.runner == "local")
        return [name for name in names if getattr(self, VARIABLES[name][0]) is None]

    def complete(self, options: SyncOptions) -> SyncOptions:
        """Fill in what *options* leave open; UsageError: they name a sandbox, and flyctl runs in none."""
        if options.sandbox and self.runner == "local":
            hint = "leave one of the two out"
            raise UsageError("--sandbox names a sandbox at Daytona, and FLYSYNC_RUNNER is local", hint=hint)
        return replace(
            options,
            actor=options.actor or self.actor,
            value_source=options.value_source or self.value_source,
            empty_allowed=options.empty_allowed or self.allow_empty,
        )


#: The field of `Settings` and the variable, by the variable's name.
VARIABLES: Mapping[str, tuple[str, Variable]] = {
    variable.name: (one.name, variable) for one in fields(Settings) if (variable := one.metadata.get("variable"))
}

#: The settings that may be in the keyring, and in `.env` of the working directory.
SECRETS: Sequence[str] = tuple(name for name, (_, variable) in VARIABLES.items() if variable.secret)

#: The one by which each app has a token of its own.
OWN = "FLYSYNC_TOKEN_COMMAND"

#: The addresses that a sandbox is told to go to.
HOSTS = ("FLYSYNC_FLYCTL_INSTALL_URL", "FLY_API_BASE_URL", "FLY_FLAPS_BASE_URL", "FLY_UIEX_BASE_URL")


def needed(names: Sequence[str], *, has_command: bool, is_local: bool) -> Sequence[str]:
    """
    Give the settings that are needed in fact.

    A command that gives tokens stands for FLY_API_TOKEN; where flyctl runs on this machine, Daytona needs no key.
    """
    names = [name for name in names if name != "DAYTONA_API_KEY" or not is_local]
    return [OWN if has_command and name == "FLY_API_TOKEN" else name for name in names]


def read_secret(name: str, text: str, *, where: str = "keyring") -> Secret | None:
    """Check a secret from the keyring, or one to be stored there; an empty one is none; ConfigError: it is invalid."""
    stripped = text.rstrip("\r\n")
    try:
        value = VARIABLES[name][1].read(stripped) if stripped else None
    except ValueError as problem:
        hint = f"save it again: flysync config set {name}"
        raise ConfigError(f"{name} ({where}) {problem}", hint=hint, setting=name) from None
    return value if isinstance(value, Secret) else None
