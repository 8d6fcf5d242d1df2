"""How one credential stands: in the table, by our own record, at Fly where it was asked, and what mends it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from flysync.handlers.compare import Live, LiveSecrets
from flysync.model.core import State, is_app_name, value_problem
from flysync.model.reports import NextStep, command
from flysync.plan import MOST_BAD_TRIES

if TYPE_CHECKING:
    from datetime import datetime

    from flysync.handlers.fly_view import LiveApp
    from flysync.model.core import AppName, ProjectId, RunId, SecretName
    from flysync.model.reports import Overview, StatusRow


@dataclass(frozen=True, kw_only=True, slots=True)
class StatusLine:
    """One credential of a project, and how far it has come."""

    project: ProjectId
    app: AppName | None
    name: SecretName | None
    in_table: bool = False
    state: State | None = None
    #: In plain words, by our own record; see `condition_of`.
    condition: str
    #: What Fly shows; absent where it was not asked.
    live: Live | None = None
    updated_at: datetime | None = None
    written_at: datetime | None = None
    deployed_at: datetime | None = None
    run_id: RunId | None = None
    actor: str | None = None
    origin: str | None = None
    #: The command that mends it; absent where nothing is to be done, or no command does it.
    next: NextStep | None = None

    @property
    def is_drift(self) -> bool:
        """Whether Fly has something else than the table, as far as Fly was asked."""
        if self.live is None or (self.live is Live.NO_APP and self.deployed_at is None):
            return False
        return self.live in _ASTRAY or (self.in_table and self.condition in _BEHIND)


def line_of(row: StatusRow, overview: Overview, shown: LiveApp | None, *, empty_allowed: bool) -> StatusLine:
    """Give the line of *row*; *shown* is what Fly shows of its app, where it was asked."""
    record = row.record
    condition = condition_of(row, overview, empty_allowed=empty_allowed)
    live = None if shown is None else _live(row, overview, shown)
    return StatusLine(
        project=row.project,
        app=row.app,
        name=row.name,
        in_table=row.credential is not None,
        state=record.state if record else None,
        condition=condition,
        live=live,
        updated_at=row.updated_at,
        written_at=record.written_at if record else None,
        deployed_at=record.deployed_at if record else None,
        run_id=record.run_id if record else None,
        actor=row.actor,
        origin=row.origin,
        next=_next(row, condition, live),
    )


def foreign(project: ProjectId, app: AppName, name: SecretName) -> StatusLine:
    """Give the line of a secret that Fly has and flysync never wrote."""
    return StatusLine(project=project, app=app, name=name, condition="never sent", live=Live.FOREIGN)


def condition_of(row: StatusRow, overview: Overview, *, empty_allowed: bool) -> str:
    """Say in words how the stored value stands to the one last sent, by our own record."""
    if row.name is None:
        return "no credentials"
    if row.app is None:
        return "project not deployed"
    credential, record = row.credential, row.record
    if credential is None:
        return "orphaned"
    secret = credential.secret
    if credential.problem or (secret and value_problem(row.name, secret, empty_allowed=empty_allowed)):
        return "cannot be sent"
    if record is None or record.fingerprint is None:
        return "never sent"
    if secret and secret.fingerprint(overview.key, row.app, row.name) != record.fingerprint:
        return "changed since"
    if record.bad_tries >= MOST_BAD_TRIES and record.state is not State.DEPLOYED:
        return "roll-out fails"
    return _WORDS[record.state]


def _live(row: StatusRow, overview: Overview, shown: LiveApp) -> Live | None:
    """Say what Fly shows of the credential of *row*; nothing where it has none."""
    if row.name is None or row.app is None:
        return None
    if not shown.exists:
        return Live.NO_APP
    if shown.shown is None:
        return Live.UNKNOWN
    live = LiveSecrets(shown.shown, row.app, overview.key, shown.smoke_s).live(row.name, row.record)
    if row.credential is None:
        return Live.GONE if live is Live.MISSING else Live.ORPHANED
    return Live.CHANGED if live is Live.FOREIGN else live


def _next(row: StatusRow, condition: str, live: Live | None) -> NextStep | None:
    if row.name is None or row.app is None or not is_app_name(row.app):
        return None
    one, all_of_it = ("sync", "--project", row.project, "--name", row.name), ("sync-project", "--project", row.project)
    if row.credential is None:
        unset = command("unset", *one[1:], "--app", row.app)
        return NextStep(command=unset, why="removes it from the app") if live is Live.ORPHANED else None
    if condition == "cannot be sent":
        return NextStep(command=command(*one, "--dry-run"), why="says what is wrong with it")
    if condition == "roll-out fails":
        return NextStep(command=command(*one, "--force"), why="rolls it out again, once the app starts with it")
    verify = ("--verify",) if live in _ASTRAY and condition not in _MENDED else ()
    if condition not in _MENDED and not verify:
        return None
    if row.credential.secret is not None:
        return NextStep(command=command(*all_of_it, *verify), why="brings what is not deployed")
    return NextStep(command=command(*one, "--value-stdin", *verify), why="takes the value from standard input")


_WORDS = {
    State.DEPLOYED: "deployed",
    State.STORED: "stored, not deployed",
    State.WRITING: "being written, or interrupted",
    State.FAILED: "failed",
    State.REQUESTED: "requested",
}
#: The table has another value than the one last sent.
_BEHIND = {"never sent", "changed since", "cannot be sent"}
#: What the next sync changes for the better.
_MENDED = {"never sent", "changed since", *_WORDS.values()} - {"deployed"}
#: Fly has something else than what was last sent.
_ASTRAY = {Live.MISSING, Live.CHANGED, Live.NOT_DEPLOYED, Live.PARTLY, Live.ORPHANED, Live.NO_APP}
