"""
Every error that flysync raises on purpose: one root, a stable code, and whether to try again (docs/errors.md).

Nothing here prints or exits. A message is one sentence in lower case that names the thing; a hint says what to do.
Anything else that is raised is a bug.
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

#: sysexits.h EX_TEMPFAIL: "temporary failure; user is invited to retry".
EXIT_TEMPORARY = 75


class Scope(StrEnum):
    """Whom an error concerns; from this and `temporary` follows what a caller does with its other calls."""

    CALL = "call"  #: This call alone, whatever it is about.
    SETUP = "setup"  #: Every project of this installation, until somebody fixes it.
    SERVICE = "service"  #: Every project, until an outside service works again.
    APP = "app"  #: One project and its app.
    CREDENTIAL = "credential"  #: One credential.


_CALL, _SETUP, _SERVICE, _, _CREDENTIAL = Scope
_LATER, _SAFE = "run the same command again later", "run the same command again; that is safe"


class FlysyncError(Exception):
    """
    An error raised on purpose.

    *message* says what and which, *hint* what to do; *service* is the outside service at fault, *phase* the step of
    the run, *setting* the setting to change, *name* the credential that Fly refuses, *retry_after_s* the seconds that
    a service asked us to wait; *for_now* makes it temporary, though its kind is not.
    """

    code: ClassVar[str] = "error"  #: Stable name for callers.
    temporary: bool = False  #: Whether the same call may succeed later.
    scope: Scope = Scope.APP  #: Whom it concerns, unless the one who raised it knew better.
    service: str | None = None  #: The outside service at fault, unless the one who raised it knew better.
    setting: str | None = None  #: The setting to change, unless the one who raised it knew better.
    default_hint: ClassVar[str | None] = None  #: What to do where the one who raised it knew nothing better.
    exit_code: int = 1  #: The exit status of a command that ends with this error.
    may_be_one_projects: bool = False  #: Whether one project alone may meet it, though its scope is the setup.
    needs_another_flysync: bool = False  #: Whether this process can never go on, whatever is fixed: it has to end.

    def __init_subclass__(
        cls,
        *,
        code: str,
        scope: Scope = Scope.APP,
        temporary: bool = False,
        exit_code: int = 1,
        service: str | None = None,
        setting: str | None = None,
        hint: str | None = None,
    ) -> None:
        assert cls.__bases__ == (FlysyncError,), "each kind is looked up one level down"
        cls.code, cls.scope, cls.temporary, cls.service, cls.setting = code, scope, temporary, service, setting
        cls.default_hint = hint or cls.default_hint
        cls.exit_code = EXIT_TEMPORARY if temporary else exit_code

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        service: str | None = None,
        phase: str | None = None,
        setting: str | None = None,
        name: str | None = None,
        retry_after_s: float | None = None,
        scope: Scope | None = None,
        for_now: bool = False,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint or self.default_hint
        self.service = service or self.service
        self.phase = phase
        self.setting = setting or self.setting
        self.name = name
        self.retry_after_s = retry_after_s and min(retry_after_s, 3600.0)  # a service's header may hold anything
        self.scope = scope or self.scope
        if for_now:
            self.temporary, self.exit_code = True, EXIT_TEMPORARY

    @property
    def is_shared(self) -> bool:
        """Whether every other project would meet it as well."""
        return self.scope in {Scope.SETUP, Scope.SERVICE}


class UsageError(FlysyncError, code="usage", scope=_CALL, exit_code=2):
    """A command or a call that makes no sense."""


class ConfigError(FlysyncError, code="config", scope=_SETUP, exit_code=2):
    """Settings or a database that flysync cannot work with; all problems in one message."""


class Interrupted(FlysyncError, code="interrupted", scope=_CALL, temporary=True, hint=_SAFE):
    """Ctrl-C or SIGTERM ended the run, after cleaning up."""

    def __init__(self, message: str, *, signal_number: int = 2, phase: str | None = None) -> None:
        super().__init__(message, phase=phase)
        self.exit_code = 128 + signal_number  # as a shell would say


class Locked(FlysyncError, code="locked", temporary=True):
    """Another run holds the app's lock."""

    default_hint = "run the same command again later, or wait longer with --lock-wait"


class TimedOut(FlysyncError, code="timeout", temporary=True):
    """A time limit ran out: of one call of *service*, or of the run."""

    default_hint = "run the same command again, or allow more time with --timeout"

    def __init__(
        self, message: str, *, hint: str | None = None, service: str | None = None, phase: str | None = None
    ) -> None:
        super().__init__(message, hint=hint, service=service, phase=phase, scope=_SERVICE if service else None)


class RateLimited(FlysyncError, code="rate_limited", scope=_SERVICE, temporary=True, hint=_LATER):
    """A service asks for fewer requests."""


class AccessDenied(FlysyncError, code="access_denied", scope=_SETUP):
    """A service refuses the token it was given."""


class DatabaseUnavailable(
    FlysyncError, code="database_unavailable", service="postgres", scope=_SERVICE, temporary=True
):
    """Postgres is out of reach."""

    default_hint = "check DATABASE_URL and whether the server runs; `flysync db check` tries it"


class NotRecorded(FlysyncError, code="not_recorded", scope=_SERVICE, temporary=True):
    """The work is done, but the state or the action could not be written."""

    default_hint = "run the same command again; it repairs the record"


class ProjectNotFound(FlysyncError, code="project_not_found"):
    """The project has neither a credential nor a deployment."""

    default_hint = "check the project's id; `flysync status` lists those that are known"


class AmbiguousDeployment(FlysyncError, code="ambiguous_deployment"):
    """The two newest deployments of a project name different apps."""

    default_hint = "name the app with --app, or repair project_deployments"


class CredentialNotFound(FlysyncError, code="credential_not_found", scope=_CREDENTIAL):
    """The project has no credential of this name."""


class RunNotFound(FlysyncError, code="run_not_found", scope=_CALL):
    """No run has this id, or more than one begins so."""

    default_hint = "`flysync history --project ID` lists them; those past FLYSYNC_KEEP_RUNS_DAYS are gone"


class InvalidCredential(FlysyncError, code="invalid_credential", scope=_CREDENTIAL):
    """A name or a value that cannot be carried to Fly as it is; *name*, where it is Fly that refuses it."""


class DecryptFailed(FlysyncError, code="decrypt_failed", scope=_CREDENTIAL, setting="FLYSYNC_DECRYPT"):
    """The platform's command could not decrypt a value; where it failed *for_now*, any value."""

    default_hint = "save the credential again, or look into the command of FLYSYNC_DECRYPT"


class TokenFailed(FlysyncError, code="token_failed", setting="FLYSYNC_TOKEN_COMMAND"):
    """The platform's command gave no token for an app that can be used; or it failed *for_now*."""

    default_hint = "look into the command of FLYSYNC_TOKEN_COMMAND: it has to give a token that reaches the app"


class DaytonaUnavailable(
    FlysyncError, code="daytona_unavailable", service="daytona", scope=_SERVICE, temporary=True, hint=_LATER
):
    """Daytona is out of reach, or lost the sandbox."""


class QuotaReached(FlysyncError, code="quota_reached", scope=_SERVICE, temporary=True, service="daytona"):
    """Daytona's quota is used up: sandboxes that end give some of it back."""

    default_hint = "`flysync sandbox prune` deletes leftovers; or ask Daytona for a higher limit"


class DaytonaRefused(FlysyncError, code="daytona_refused", scope=_SETUP, service="daytona"):
    """Daytona makes no sandbox for this account or with these settings, and the key is not the reason."""

    default_hint = "Daytona's dashboard says more; correct what the message names"


class SandboxNotFound(FlysyncError, code="sandbox_not_found", scope=_CALL):
    """The sandbox or the snapshot that was asked for does not exist."""


class FlyUnavailable(FlysyncError, code="fly_unavailable", service="fly", scope=_SERVICE, temporary=True, hint=_LATER):
    """Fly.io's API is out of reach, or answers with an error of its own."""


class FlyRefused(FlysyncError, code="fly_refused", scope=_SETUP, service="fly"):
    """Fly does nothing for the organization of an app, and the token is not the reason."""


class FlyctlFailed(FlysyncError, code="flyctl_failed", temporary=True):
    """flyctl failed, before anything was stored or for a reason that is not known."""

    default_hint = "run the same command again; if it persists, try flyctl by hand in a sandbox (`--sandbox ID`)"


class FlyctlChanged(FlysyncError, code="flyctl_changed", scope=_SETUP):
    """The flyctl that was downloaded has another sum than those that are set; it was not run."""

    default_hint = "set FLYSYNC_FLYCTL_SHA256 to sums of programs you trust"


class AppNotFound(FlysyncError, code="app_not_found", exit_code=0):
    """Fly knows no such app; the entrance tells it as a warning, the outcome is `skipped`."""


class AppNotVisible(FlysyncError, code="app_not_visible"):
    """Fly says that an app does not exist that flysync has deployed to before, or that a deploy token may not see."""


class AppMoved(FlysyncError, code="app_moved", temporary=True, hint="run the same command again"):
    """The project's app changed while the run was under way, and then again."""


class NotOwner(FlysyncError, code="not_owner"):
    """The app's secrets belong to another project."""

    default_hint = "check project_deployments; `--take-over` makes the app this project's"


class NotAllowed(FlysyncError, code="not_allowed", hint="to allow it, change the setting: `flysync config show`"):
    """By the settings, flysync does not touch the app, or no secret of this name."""


class PruneRefused(FlysyncError, code="prune_refused"):
    """So many rows are gone that it may be a mistake: no secret was removed."""

    default_hint = "compare `flysync status --project ID` with what is meant to be there; --yes removes them"


class NotProven(FlysyncError, code="not_proven", scope=_CALL):
    """A proof has found a promise that does not hold here, or could not begin."""

    default_hint = "each line says what was seen; docs/prove.md says what to do about it"


class DeployIncomplete(FlysyncError, code="deploy_incomplete", temporary=True):
    """The values are stored, but the roll-out failed or ran out of time."""

    default_hint = "run the same command again; the roll-out is tried once more"


class DeployFailed(FlysyncError, code="deploy_failed"):
    """The same value has been rolled out twice, and twice the app failed, or the time ran out."""

    default_hint = "look at the app's own logs (`fly logs`); with --force the change is rolled out once more"


class OutcomeUnknown(FlysyncError, code="outcome_unknown", temporary=True, hint=_SAFE):
    """The answer was lost, and looking it up failed."""


class RedisUnavailable(FlysyncError, code="redis_unavailable", service="redis", scope=_SERVICE, temporary=True):
    """Redis is out of reach."""
