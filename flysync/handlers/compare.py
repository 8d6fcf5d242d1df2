"""What Fly shows of an app, compared with our own record. Pure."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from flysync.errors import AmbiguousDeployment, AppNotVisible, DeployFailed, OutcomeUnknown
from flysync.model.core import AppName, Outcome, ProjectView, Reason, SecretName, SecretRecord, State, SyncOptions
from flysync.model.fly import AppAtFly, Condition, FlyStatus, Machine
from flysync.model.reports import Note, StatusRow
from flysync.model.summary import several_apps
from flysync.plan import Change, given_up, is_given_up
from flysync.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Collection, Container, Iterable

_ON_MACHINES = frozenset({FlyStatus.DEPLOYED, FlyStatus.PARTIAL})
_WAITING = frozenset({FlyStatus.STAGED, FlyStatus.PARTIAL})
#: flyctl shows no status of secrets where an app has more machines than these (read: secrets/list.go).
_MOST_MACHINES = 100
_TOO_MANY = f"flyctl shows no status of secrets where an app has more than {_MOST_MACHINES} machines"


class Live(StrEnum):
    """How a secret stands at Fly, in words for a person."""

    RUNNING = "running"  #: The machines run with what we wrote last.
    AT_REST = "on stopped machines"  #: They have it, and are stopped or suspended: they start with it.
    #: They have it, and one of them does not run: it has crashed, or a health check is critical.
    DOWN = "machines down"
    PARTLY = "on some machines"  #: Some of them have it.
    NOT_DEPLOYED = "not deployed"  #: Fly has what we wrote last, and no machine runs with it.
    NO_MACHINES = "no machines"  #: Fly has it, and the app has no machine.
    MISSING = "missing"  #: Fly has it no more.
    CHANGED = "changed at Fly"  #: Somebody else has set it since.
    UNKNOWN = "unknown"  #: Fly has what we wrote, and does not show what the machines run with.
    ORPHANED = "orphaned"  #: Fly has what we wrote, and the table has it no more.
    GONE = "gone"  #: Neither Fly nor the table has what we wrote.
    FOREIGN = "foreign"  #: It is at Fly, and we never wrote it.
    NO_APP = "no app"  #: There is no such app.


def not_visible(app: AppName, phase: str | None, setting: str) -> AppNotVisible:
    """
    Give the error for an app that has secrets of ours, and that Fly does not know any more.

    Fly says the same of an app that was deleted and of one that the token of *setting* may not see.
    """
    message = f"flysync has deployed to {app} before, and Fly.io now says that it does not exist"
    hint = (
        f"it was deleted, or belongs to an organization that {setting} does not reach: Fly.io says the same of"
        " both. If the project has another app now, project_deployments has to name it in a newer row"
    )
    return AppNotVisible(message, hint=hint, service="fly", phase=phase, setting=setting)


def ambiguous(view: ProjectView) -> AmbiguousDeployment:
    """Give the error for a project that is deployed to several apps."""
    return AmbiguousDeployment(several_apps(view.project, view.apps).message)


def not_found(view: ProjectView) -> Note:
    """Warn of an app that Fly does not know; where a caller has named it, the project's own may be meant."""
    message = f"Fly.io knows no app {view.app}: it does not exist, or the token cannot see it"
    if own := [app for app in view.apps if app != view.app]:
        message += f"; the newest deployment of {view.project} names {' and '.join(own)}"
    return Note(code="app_not_found", message=message)


def lost_apps(deployed: Collection[tuple[AppName, Live | None]], setting: str) -> list[Note]:
    """Warn of apps to which secrets were *deployed*, and that Fly does not show now, or shows without any of these."""
    notes = []
    for app in dict(deployed):
        shown = {live for its_app, live in deployed if its_app == app}
        if Live.NO_APP in shown:
            error = not_visible(app, None, setting)
            notes.append(Note(code=error.code, message=f"{error.message}: {error.hint}", names=(app,)))
        elif shown == {Live.MISSING}:
            message = f"{app} has nothing of what flysync deployed to it: was it deleted and created again?"
            notes.append(Note(code="app_made_again", message=message, names=(app,)))
    return notes


def managed(machines: Iterable[Machine]) -> list[Machine]:
    """Give the machines that a roll-out of secrets reaches."""
    return [machine for machine in machines if machine.is_managed]


class LiveSecrets:
    """One look at *app*; digests are compared as HMAC under *key*, and machines have to stay up for *smoke_s*."""

    def __init__(self, shown: AppAtFly, app: AppName, key: Secret, smoke_s: float) -> None:
        self._secrets = {secret.name: secret for secret in shown.secrets}
        self._app = app
        self._key = key
        self._smoke_s = smoke_s
        self.machines = shown.machines
        self._managed = managed(shown.machines or ())
        self.error = shown.error

    def require_machines(self) -> None:
        """Make sure that the machines are shown: what kept them from being listed is raised."""
        if self.machines is None:
            raise self.error or OutcomeUnknown("the machines could not be listed", service="fly", phase="list")

    def __contains__(self, name: SecretName) -> bool:
        return name in self._secrets

    def mac(self, name: SecretName) -> str | None:
        """Give the HMAC of a secret's digest, which alone is kept: a digest may tell something about the value."""
        shown = self._secrets.get(name)
        return None if shown is None else Secret(shown.digest).fingerprint(self._key, "digest", self._app, name)

    def is_ours(self, record: SecretRecord) -> bool:
        """Tell whether Fly has what it had right after our last write."""
        mac = self.mac(record.name)
        return mac is not None and mac == record.fly_digest_mac

    def is_deployed(self, record: SecretRecord) -> bool:
        """Tell whether every machine has what we wrote last, whether it runs or not."""
        return self.is_ours(record) and self._secrets[record.name].status is FlyStatus.DEPLOYED

    def is_on_machines(self, name: SecretName) -> bool:
        """Tell whether a machine has what is shown of a secret; of one that has just been written, it is what was."""
        return name in self._secrets and self._secrets[name].status in _ON_MACHINES

    def down(self, known: Collection[str] = ()) -> list[Machine]:
        """Give the managed machines that are down, but for those that are *known* to be."""
        return self._in(Condition.DOWN, known)

    def has_put_down(self, record: SecretRecord, known: Collection[str]) -> bool:
        """Tell whether the open roll-out of a value has reached a machine that is down: it has a newer release then."""
        after = record.rollout_after
        return after is not None and any(one.release is None or one.release > after for one in self.down(known))

    def unclear(self, known: Collection[str] = ()) -> list[Machine]:
        """Give the managed machines of which nobody can say yet whether they run, but for those *known* to be down."""
        return self._in(Condition.UNCLEAR, known)

    def not_up(self, known: Collection[str]) -> list[Machine]:
        """Give the managed machines that are down, with those *known* to be down of which nobody can say it now."""
        return [*self.down(), *(machine for machine in self.unclear() if machine.id in known)]

    def may_change(self, known: Collection[str] = ()) -> bool:
        """Tell whether a machine may soon be seen otherwise: it is unclear, or started and not healthy yet."""
        return bool(self.unclear(known)) or any(not machine.has_ended for machine in self.down(known))

    def _in(self, condition: Condition, known: Collection[str]) -> list[Machine]:
        return [one for one in self._managed if one.condition(self._smoke_s) is condition and one.id not in known]

    @property
    def release(self) -> int | None:
        """The newest release that a managed machine has."""
        return max((machine.release for machine in self._managed if machine.release), default=None)

    def is_confirmed(self, record: SecretRecord, known_down: Collection[str]) -> bool:
        """
        Tell whether the machines run with what we wrote last, by what Fly shows alone.

        `Deployed` is about their configuration; so they have to run as well, but for those that were down before we
        came. After a roll-out that the app failed with, somebody has to have deployed it again.
        """
        if not self.is_deployed(record) or self.machines is None:
            return False
        if self.down(known_down) or self.unclear(known_down):
            return False
        failed = record.failed_release
        return failed is None or all((machine.release or 0) > failed for machine in self._managed)

    def is_still_deployed(self, record: SecretRecord) -> bool:
        """
        Tell whether nothing speaks against our record, which says that the machines run with it.

        `Staged` proves nothing where every secret is: flyctl says so too where it cannot see the machines, or where
        there are none (flyctl.md, top). Then the record counts.
        """
        if record.state is not State.DEPLOYED or not self.is_ours(record):
            return False
        return self._secrets[record.name].status is FlyStatus.DEPLOYED or not self._sees_machines

    @property
    def _sees_machines(self) -> bool:
        """Whether flyctl could tell what the machines run with: it says `Staged` of all where it could not."""
        return any(secret.status in _ON_MACHINES for secret in self._secrets.values())

    def settle(
        self, change: Change, record: SecretRecord, options: SyncOptions, known_down: Collection[str]
    ) -> tuple[Outcome | None, Reason, DeployFailed | None]:
        """Say what becomes of a change that depends on what Fly shows; no outcome where it has to be set (again)."""
        if self.is_still_deployed(record) or self.is_confirmed(record, known_down):
            return Outcome.UNCHANGED, Reason.CONFIRMED, None
        if is_given_up(record, options):
            return Outcome.STAGED, Reason.UNCHANGED, given_up(record)
        if options.stage and self.is_ours(record):
            return Outcome.STAGED, Reason.CONFIRMED, None
        if change.name not in self:
            return None, Reason.MISSING, None
        if record.fly_digest_mac and not self.is_ours(record):
            return None, Reason.DRIFTED, None
        return None, Reason.REQUESTED, None

    def live(self, name: SecretName, record: SecretRecord | None) -> tuple[Live, str | None]:
        """Say how a secret stands; and why nobody can tell, where nobody can."""
        if name not in self._secrets:
            return Live.MISSING, None
        if record is None or record.fingerprint is None:
            return Live.FOREIGN, None
        if record.fly_digest_mac is None:
            if record.state is State.FAILED:
                return Live.UNKNOWN, "the last run failed before it set it"
            return Live.UNKNOWN, "the run that wrote it could not look at it afterwards"
        if not self.is_ours(record):
            return Live.CHANGED, None
        live = self._on_machines(self._secrets[name].status, record)
        return live, self._why_unknown() if live is Live.UNKNOWN else None

    def _on_machines(self, status: FlyStatus, record: SecretRecord) -> Live:
        """Say how the machines stand to a secret of ours."""
        if status is FlyStatus.PARTIAL:
            return Live.PARTLY
        if status is not FlyStatus.DEPLOYED:
            if self.machines is not None and not self._managed:
                return Live.NO_MACHINES
            is_told = self._sees_machines or (record.state is State.STORED and self.machines)
            return Live.NOT_DEPLOYED if is_told else Live.UNKNOWN
        if self.down():
            return Live.DOWN
        if self.machines is None or self.unclear():
            return Live.UNKNOWN
        return Live.RUNNING if any(one.state == "started" for one in self._managed) else Live.AT_REST

    def _why_unknown(self) -> str:
        if self.machines is None:
            return "the machines could not be listed" + (f": {self.error.message}" if self.error else "")
        if len(self._managed) > _MOST_MACHINES:
            return _TOO_MANY
        if unclear := self.unclear():
            return f"it is not known yet whether these run: {', '.join(sorted(machine.id for machine in unclear))}"
        return "Fly.io does not show what the machines run with"

    def warnings(self) -> list[Note]:
        """Give what is to be said of the app's machines, whatever is done."""
        notes = []
        if loose := sorted(machine.id for machine in self.machines or () if not machine.is_managed):
            message = f"no command for secrets reaches machines that `fly deploy` did not make: {', '.join(loose)}"
            notes.append(Note(code="loose_machines", message=message, names=tuple(loose)))
        if len(self._managed) > _MOST_MACHINES:
            notes.append(Note(code="machines_not_seen", message=_TOO_MANY))
        return notes

    def staged_by_others(self, known: Container[str]) -> Note | None:
        """Warn of secrets that a deploy rolls out as well: staged by somebody else, and not *known*."""
        staged = sorted(one.name for one in self._secrets.values() if one.status in _WAITING and one.name not in known)
        message = f"a deploy also rolls out what somebody else has staged: {', '.join(staged)}"
        return Note(code="foreign_staged", message=message, names=tuple(staged)) if staged else None


def machines_down(machines: Iterable[Machine]) -> Note:
    """Give the warning about machines that are down, and that a roll-out of ours has not put down."""
    names = tuple(sorted(machine.id for machine in machines))
    message = f"down, and not by a roll-out of flysync's: {', '.join(names)}; look at `fly logs`"
    return Note(code="machines_down", message=message, names=names)


def left_out(rows: Iterable[StatusRow]) -> Iterable[Note]:
    """Say that values were not compared, because there is so much of them."""
    if number := sum(row.credential is not None and row.credential.left_out for row in rows):
        message = (
            f"{number:,} of the largest values were not compared: together they are too large; ask for one project"
        )
        yield Note(code="values_not_compared", message=message)
