"""
Every error that flysync raises on purpose: one root, a stable code, and whether to try again (docs/errors.md).

Nothing here prints or exits. A message is one sentence in lower case that names the thing; a hint says what to do.
Anything else that is raised is a bug.
"""

from __future__ import annotations

from typing import ClassVar

#: sysexits.h EX_TEMPFAIL: "temporary failure; user is invited to retry".
_EXIT_TEMPORARY = 75


class FlysyncError(Exception):
    """
    An error raised on purpose.

    *message* says what and which, *hint* what to do; *service* is the outside service at fault, *phase* the step of
    the run, *setting* the setting to change, *name* the credential that Fly refuses, *retry_after_s* the seconds that
    a service asked us to wait.
    """

    #: Stable name for callers.
    code: ClassVar[str] = "error"
    #: Whether the same call may succeed later.
    temporary: ClassVar[bool] = False
    #: What to do where the one who raised it knew nothing better.
    default_hint: ClassVar[str | None] = None
    #: The exit status of a command that ends with this error.
    exit_code: int = 1

    def __init_subclass__(
        cls, *, code: str, temporary: bool = False, exit_code: int = 1, hint: str | None = None
    ) -> None:
        assert cls.__bases__ == (FlysyncError,), "each kind is looked up one level down"
        cls.code, cls.temporary, cls.default_hint = code, temporary, hint
        cls.exit_code = _EXIT_TEMPORARY if temporary else exit_code

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
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint or self.default_hint
        self.service = service
        self.phase = phase
        self.setting = setting
        self.name = name
        self.retry_after_s = retry_after_s


class UsageError(FlysyncError, code="usage", exit_code=2):
    """A command or a call that makes no sense."""


class ConfigError(FlysyncError, code="config", exit_code=2):
    """Settings or a database that flysync cannot work with; all problems in one message."""


class Interrupted(
    FlysyncError, code="interrupted", hint="run the same command again; it sets and deploys what is missing"
):
    """Ctrl-C or SIGTERM ended the run, after cleaning up."""

    def __init__(self, message: str, *, signal_number: int = 2, phase: str | None = None) -> None:
        super().__init__(message, phase=phase)
        self.exit_code = 128 + signal_number  # as a shell would say


class Locked(
    FlysyncError,
    code="locked",
    temporary=True,
    hint="run the same command again later, or wait longer with --lock-wait",
):
    """Another run holds the app's lock."""


class TimedOut(
    FlysyncError, code="timeout", temporary=True, hint="run the same command again, or allow more time with --timeout"
):
    """A time limit ran out."""


class RateLimited(FlysyncError, code="rate_limited", temporary=True, hint="run the same command again later"):
    """A service asks for fewer requests."""


class AccessDenied(FlysyncError, code="access_denied"):
    """A service refuses the token it was given."""


class DatabaseUnavailable(
    FlysyncError,
    code="database_unavailable",
    temporary=True,
    hint="check DATABASE_URL and whether the server runs; `flysync db check` tries it",
):
    """Postgres is out of reach."""


class NotRecorded(
    FlysyncError, code="not_recorded", temporary=True, hint="run the same command again; it repairs the record"
):
    """The work is done, but the state or the action could not be written."""


class ProjectNotFound(
    FlysyncError, code="project_not_found", hint="check the project's id; `flysync status` lists those that are known"
):
    """The project has neither a credential nor a deployment."""


class AmbiguousDeployment(
    FlysyncError, code="ambiguous_deployment", hint="name the app with --app, or repair project_deployments"
):
    """The two newest deployments of a project name different apps."""


class CredentialNotFound(FlysyncError, code="credential_not_found"):
    """The project has no credential of this name."""


class RunNotFound(
    FlysyncError,
    code="run_not_found",
    hint="`flysync history --project ID` lists them; those past FLYSYNC_KEEP_RUNS_DAYS are gone",
):
    """No run has this id, or more than one begins so."""


class InvalidCredential(FlysyncError, code="invalid_credential"):
    """A name or a value that cannot be carried to Fly as it is; *name*, where it is Fly that refuses it."""


class DaytonaUnavailable(
    FlysyncError, code="daytona_unavailable", temporary=True, hint="run the same command again later"
):
    """Daytona is out of reach, or lost the sandbox."""


class SandboxNotFound(FlysyncError, code="sandbox_not_found"):
    """The sandbox or the snapshot that was asked for does not exist."""


class FlyUnavailable(FlysyncError, code="fly_unavailable", temporary=True, hint="run the same command again later"):
    """Fly.io's API is out of reach, or answers with an error of its own."""


class FlyctlFailed(
    FlysyncError,
    code="flyctl_failed",
    temporary=True,
    hint="run the same command again; if it stays, try flyctl by hand in a sandbox (`--sandbox ID`)",
):
    """flyctl failed, before anything was stored or for a reason that is not known."""


class AppNotFound(FlysyncError, code="app_not_found", exit_code=0):
    """Fly knows no such app; the entrance tells it as a warning, the outcome is `skipped`."""


class AppNotVisible(
    FlysyncError, code="app_not_visible", hint="was it deleted, or is FLY_API_TOKEN one of another organisation?"
):
    """flysync has deployed to the app before, and Fly now says that it does not exist."""


class AppMoved(FlysyncError, code="app_moved", temporary=True, hint="run the same command again"):
    """The project's app changed while the run was under way, and then again."""


class NotOwner(
    FlysyncError, code="not_owner", hint="check project_deployments; `--take-over` makes the app this project's"
):
    """The app's secrets belong to another project."""


class DeployIncomplete(
    FlysyncError,
    code="deploy_incomplete",
    temporary=True,
    hint="run the same command again; the roll-out is tried once more",
):
    """The values are stored, but the roll-out failed or ran out of time."""


class DeployFailed(
    FlysyncError,
    code="deploy_failed",
    hint="look at the app's own logs (`fly logs`); with --force the change is rolled out once more",
):
    """The same value has been rolled out twice, and twice the app failed, or the time ran out."""


class OutcomeUnknown(
    FlysyncError, code="outcome_unknown", temporary=True, hint="run the same command again; that is safe"
):
    """The answer was lost, and looking it up failed."""


class RedisUnavailable(FlysyncError, code="redis_unavailable", temporary=True):
    """Redis is out of reach."""
