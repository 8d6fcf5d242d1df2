"""All settings: name, reader and default of each."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from flysync.settings import readers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from flysync.model.core import SyncOptions, ValueSource
    from flysync.model.reports import Note
    from flysync.secret import Secret


@dataclass(frozen=True, kw_only=True, slots=True)
class Variable:
    """The variable of a setting, and how it is read."""

    name: str
    read: Callable[[str], Any]
    #: Ignored in `.env` of the working directory: a file of somebody else's could redirect token and values.
    guarded: bool = False
    #: May be in the keyring, and is never shown.
    secret: bool = False


def _setting(
    name: str, read: Callable[[str], object], default: object = None, *, guarded: bool = False, secret: bool = False
) -> Any:
    return field(default=default, metadata={"variable": Variable(name=name, read=read, guarded=guarded, secret=secret)})


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """All settings, checked; made by `load`."""

    fly_api_token: Secret | None = _setting("FLY_API_TOKEN", readers.fly_token, secret=True)
    daytona_api_key: Secret | None = _setting("DAYTONA_API_KEY", readers.key, secret=True)
    database_url: Secret | None = _setting("DATABASE_URL", readers.database, secret=True)
    redis_url: Secret | None = _setting("REDIS_URL", readers.redis, secret=True)
    daytona_api_url: str = _setting("DAYTONA_API_URL", readers.base_url, "https://app.daytona.io/api", guarded=True)
    #: The region at Daytona; by default its own default.
    daytona_target: str | None = _setting("DAYTONA_TARGET", readers.plain, guarded=True)
    #: The Daytona snapshot that sandboxes start from.
    snapshot: str | None = _setting("FLYSYNC_SNAPSHOT", readers.plain)
    #: Installed if the sandbox has no flyctl that is new enough.
    flyctl_version: str = _setting("FLYSYNC_FLYCTL_VERSION", readers.version, "0.4.87")
    #: The sum of that version's archive; with it, flyctl is downloaded and checked, not installed by a script.
    flyctl_sha256: str | None = _setting("FLYSYNC_FLYCTL_SHA256", readers.sha256)
    flyctl_install_url: str = _setting(
        "FLYSYNC_FLYCTL_INSTALL_URL", readers.script_url, "https://fly.io/install.sh", guarded=True
    )
    #: The schema of the backend's tables; by default the connection's search_path.
    db_schema: str | None = _setting("FLYSYNC_DB_SCHEMA", readers.plain)
    #: Where policies apply to our role: nothing is read ("refuse"), or they show it every row ("complete").
    row_security: str = _setting("FLYSYNC_ROW_SECURITY", readers.row_security, "refuse")
    #: Where values come from: the table ("database") or the caller ("caller").
    value_source: ValueSource = _setting("FLYSYNC_VALUE_SOURCE", readers.value_source, "database")
    #: The queue that the backend adds its jobs to.
    queue: str = _setting("FLYSYNC_QUEUE", readers.queue, "flyio-secrets")
    #: Who acts, for the record; by default the system's user.
    actor: str = _setting("FLYSYNC_ACTOR", readers.plain, "unknown")
    keep_runs_days: int = _setting("FLYSYNC_KEEP_RUNS_DAYS", readers.days, 90)
    no_keyring: bool = _setting("FLYSYNC_NO_KEYRING", readers.flag, default=False)
    #: Whether an empty value is synced; else it is invalid.
    allow_empty: bool = _setting("FLYSYNC_ALLOW_EMPTY", readers.flag, default=False)
    # These three are passed on to flyctl.
    fly_api_base_url: str | None = _setting("FLY_API_BASE_URL", readers.script_url, guarded=True)
    fly_flaps_base_url: str | None = _setting("FLY_FLAPS_BASE_URL", readers.script_url, guarded=True)
    fly_uiex_base_url: str | None = _setting("FLY_UIEX_BASE_URL", readers.script_url, guarded=True)

    notes: tuple[Note, ...] = ()

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """The settings that must never be shown."""
        found = (self.fly_api_token, self.daytona_api_key, self.database_url, self.redis_url)
        return tuple(secret for secret in found if secret is not None)

    @property
    def flyctl_base_urls(self) -> dict[str, str]:
        """The addresses that are passed to flyctl, by the name of its variable."""
        urls = {
            "FLY_API_BASE_URL": self.fly_api_base_url,
            "FLY_FLAPS_BASE_URL": self.fly_flaps_base_url,
            "FLY_UIEX_BASE_URL": self.fly_uiex_base_url,
        }
        return {name: url for name, url in urls.items() if url is not None}

    def complete(self, options: SyncOptions) -> SyncOptions:
        """Fill in what *options* leave open."""
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

#: The settings that may be in the keyring.
SECRETS: Sequence[str] = tuple(name for name, (_, variable) in VARIABLES.items() if variable.secret)
