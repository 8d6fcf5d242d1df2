"""
Every error that flysync raises on purpose: one root, a stable code, and whether to try again.

    FlysyncError
      UsageError                exit 2    usage
      ConfigError               exit 2    config
      Interrupted               exit 130  interrupted (143 after SIGTERM)
      Locked                    exit 75   locked
      TimedOut                  exit 75   timeout
      RateLimited               exit 75   rate_limited
      AccessDenied              exit 1    access_denied
      DatabaseUnavailable       exit 75   database_unavailable
      NotRecorded               exit 75   not_recorded
      ProjectNotFound           exit 1    project_not_found
      AmbiguousDeployment       exit 1    ambiguous_deployment
      CredentialNotFound        exit 1    credential_not_found
      RunNotFound               exit 1    run_not_found
      InvalidCredential         exit 1    invalid_credential
      DaytonaUnavailable        exit 75   daytona_unavailable
      SandboxNotFound           exit 1    sandbox_not_found
      FlyUnavailable            exit 75   fly_unavailable
      FlyctlFailed              exit 75   flyctl_failed
      AppNotFound               exit 0    app_not_found (a warning; the outcome is skipped)
      AppNotVisible             exit 1    app_not_visible
      AppMoved                  exit 75   app_moved
      NotOwner                  exit 1    not_owner
      DeployIncomplete          exit 75   deploy_incomplete
      DeployFailed              exit 1    deploy_failed
      OutcomeUnknown            exit 75   outcome_unknown
      RedisUnavailable          exit 75   redis_unavailable

Nothing here prints or exits. A message is one sentence in lower case that names the thing; a hint says what to do.
Anything else that is raised is a bug.
"""

from __future__ import annotations

from typing import ClassVar

#: sysexits.h EX_TEMPFAIL: "temporary failure; user is invited to retry".
EXIT_TEMPORARY = 75


class FlysyncError(Exception):
    """
    An error raised on purpose.

    *message* says what and which, *hint* what to do; *service* is the outside service at fault, *phase* the step
    of the run, *setting* the setting to change, *retry_after_s* the seconds that a service asked us to wait.
    """

    #: Stable name for callers.
    code: ClassVar[str] = "error"
    #: Whether the same call may succeed later.
    temporary: ClassVar[bool] = False
    #: The exit status of a command that ends with this error; see `exit_code`.
    permanent_exit_code: ClassVar[int] = 1
    #: What to do where the one who raised it knew nothing better.
    default_hint: ClassVar[str | None] = None

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        service: str | None = None,
        phase: str | None = None,
        setting: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint or self.default_hint
        self.service = service
        self.phase = phase
        self.setting = setting
        self.retry_after_s = retry_after_s

    @property
    def exit_code(self) -> int:
        """The exit status of a command that ends with this error."""
        return EXIT_TEMPORARY if self.temporary else self.permanent_exit_code


class UsageError(FlysyncError):
    """A command or a call that makes no sense."""

    code = "usage"
    permanent_exit_code = 2


class ConfigError(FlysyncError):
    """Settings or a database that flysync cannot work with; all problems in one message."""

    code = "config"
    permanent_exit_code = 2


class Interrupted(FlysyncError):
    """Ctrl-C or SIGTERM ended the run, after cleaning up."""

    code = "interrupted"
    default_hint = "run the same command again; it sets and deploys what is missing"

    def __init__(self, message: str, *, signal_number: int = 2, phase: str | None = None) -> None:
        super().__init__(message, phase=phase)
        self.signal_number = signal_number

    @property
    def exit_code(self) -> int:
        """128 and the signal's number, as a shell would say."""
        return 128 + self.signal_number


class Locked(FlysyncError):
    """Another run holds the app's lock."""

    code = "locked"
    temporary = True
    default_hint = "run the same command again later, or wait longer with --lock-wait"


class TimedOut(FlysyncError):
    """A time limit ran out."""

    code = "timeout"
    temporary = True
    default_hint = "run the same command again, or allow more time with --timeout"


class RateLimited(FlysyncError):
    """A service asks for fewer requests."""

    code = "rate_limited"
    temporary = True
    default_hint = "run the same command again later"


class AccessDenied(FlysyncError):
    """A service refuses the token it was given."""

    code = "access_denied"


class DatabaseUnavailable(FlysyncError):
    """Postgres is out of reach."""

    code = "database_unavailable"
    temporary = True
    default_hint = "check DATABASE_URL and whether the server runs; `flysync db check` tries it"


class NotRecorded(FlysyncError):
    """The work is done, but the state or the action could not be written."""

    code = "not_recorded"
    temporary = True
    default_hint = "run the same command again; it repairs the record"


class ProjectNotFound(FlysyncError):
    """The project has neither a credential nor a deployment."""

    code = "project_not_found"
    default_hint = "check the project's id; `flysync status` lists those that are known"


class AmbiguousDeployment(FlysyncError):
    """The two newest deployments of a project name different apps."""

    code = "ambiguous_deployment"
    default_hint = "name the app with --app, or repair project_deployments"


class CredentialNotFound(FlysyncError):
    """The project has no credential of this name."""

    code = "credential_not_found"


class RunNotFound(FlysyncError):
    """No run has this id, or more than one begins so."""

    code = "run_not_found"
    default_hint = "`flysync history --project ID` lists them; those past FLYSYNC_KEEP_RUNS_DAYS are gone"


class InvalidCredential(FlysyncError):
    """A name or a value that cannot be carried to Fly as it is; *name*, where it is Fly that refuses it."""

    code = "invalid_credential"

    def __init__(
        self,
        message: str,
        *,
        name: str | None = None,
        hint: str | None = None,
        service: str | None = None,
        phase: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint, service=service, phase=phase)
        self.name = name


class DaytonaUnavailable(FlysyncError):
    """Daytona is out of reach, or lost the sandbox."""

    code = "daytona_unavailable"
    temporary = True
    default_hint = "run the same command again later"


class SandboxNotFound(FlysyncError):
    """The sandbox or the snapshot that was asked for does not exist."""

    code = "sandbox_not_found"


class FlyUnavailable(FlysyncError):
    """Fly.io's API is out of reach, or answers with an error of its own."""

    code = "fly_unavailable"
    temporary = True
    default_hint = "run the same command again later"


class FlyctlFailed(FlysyncError):
    """flyctl failed, before anything was stored or for a reason that is not known."""

    code = "flyctl_failed"
    temporary = True
    default_hint = "run the same command again; if it stays, try flyctl by hand in a sandbox (`--sandbox ID`)"


class AppNotFound(FlysyncError):
    """Fly knows no such app; the entrance tells it as a warning, the outcome is `skipped`."""

    code = "app_not_found"
    permanent_exit_code = 0


class AppNotVisible(FlysyncError):
    """flysync has deployed to the app before, and Fly now says that it does not exist."""

    code = "app_not_visible"
    default_hint = "was it deleted, or is FLY_API_TOKEN one of another organisation?"


class AppMoved(FlysyncError):
    """The project's app changed while the run was under way, and then again."""

    code = "app_moved"
    temporary = True
    default_hint = "run the same command again"


class NotOwner(FlysyncError):
    """The app's secrets belong to another project."""

    code = "not_owner"
    default_hint = "check project_deployments; `--take-over` makes the app this project's"


class DeployIncomplete(FlysyncError):
    """The values are stored, but the roll-out failed or ran out of time."""

    code = "deploy_incomplete"
    temporary = True
    default_hint = "run the same command again; the roll-out is tried once more"


class DeployFailed(FlysyncError):
    """The same value has been rolled out twice, and twice the app failed, or the time ran out."""

    code = "deploy_failed"
    default_hint = "look at the app's own logs (`fly logs`); with --force the change is rolled out once more"


class OutcomeUnknown(FlysyncError):
    """The answer was lost, and looking it up failed."""

    code = "outcome_unknown"
    temporary = True
    default_hint = "run the same command again; that is safe"


class RedisUnavailable(FlysyncError):
    """Redis is out of reach."""

    code = "redis_unavailable"
    temporary = True
