"""
What is known of a sync at any moment of it; in the end, its report.

One table says it all: a stage per secret gives the state of its row, the outcome to tell, and whether something may
still be at work. `mark` and `sending` are the only ways to change it.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from flysync.errors import DeployFailed, FlysyncError, OutcomeUnknown
from flysync.handlers.sandbox import end_of_it
from flysync.handlers.sync.stage import Line, Stage, cut_short, gravest
from flysync.model.core import AppName, Outcome, ProjectView, Reason, RunId, SecretName, SecretRecord, State
from flysync.model.reports import PRUNE, CredentialReport, NextStep, Note, RunRow, SyncReport
from flysync.ports import LOCAL, Intent, RunEnd

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from flysync.handlers.sync.request import SyncRequest
    from flysync.model.fly import AppAtFly, Machines
    from flysync.plan import Change, Plan

#: Seconds that a sandbox outlives the time limit of its run, should nobody delete it: a step may begin in it up to 20 s
#: after the limit, and the longest that writes looks for flyctl (30 s) and lists (45 s) before it does so (95 s).
TTL_MARGIN_S = 200.0


class SyncState:
    """
    The state of one sync.

    Whoever is about to do what may go wrong marks the worst first, and the truth when it is known: so the report is
    right whenever the run is cut short.
    """

    def __init__(self, request: SyncRequest) -> None:
        self.request = request
        self.run_id = request.run_id = RunId(request.services.clock.new_id())
        self.view: ProjectView | None = None  #: What was read last.
        self.release: int | None = None
        self.machines: Machines | None = None
        self.recorded: bool | None = None
        self.covered_by: RunId | None = None
        self.dry_run = False
        self.seconds: dict[str, float] = {}
        self.phase = "read"
        self.has_begun = False  #: Whether the run's row is written.
        self.all_up = False  #: Whether every machine runs that was not down before our first roll-out.
        #: Rows of secrets that others had asked for, and that this run's roll-out has brought to the machines as well.
        self.settled: dict[SecretName, State] = {}
        #: What was sent before this run, with the digest (as HMAC) that Fly showed of it.
        self.before: dict[SecretName, tuple[str | None, str | None]] = {}
        #: The fingerprints that Fly has of this run, or that were found there as they are.
        self.at_fly: dict[SecretName, str | None] = {}
        self.judged: dict[SecretName, SecretRecord] = {}  #: Records, by what a look says that their roll-outs came to.
        self.shown: AppAtFly | None = None  #: What Fly showed right after the last change, until somebody looks.
        #: What an earlier run had brought without being able to say so: no action tells of it yet.
        self.confirmed: list[SecretName] = []
        self._lines: dict[SecretName, Line] = {}
        self._touched: dict[SecretName, None] = {}  #: Secrets whose rows are this run's to write.
        #: Failures of the run as a whole; secrets of which nothing is known share the first.
        self._errors: list[FlysyncError] = []
        self._notes: dict[tuple[str, tuple[str, ...]], Note] = {}
        self._next: list[NextStep] = []

    @property
    def app(self) -> AppName:
        """The app; nobody asks for it before it is known."""
        assert self.view is not None
        assert self.view.app is not None
        return self.view.app

    @property
    def sandbox_name(self) -> str:
        """The sandbox of the run: made up before it is created, or the id of one that is borrowed."""
        return self.request.options.sandbox or f"flysync-{self.run_id}{self.request.services.sandboxes.place}"

    @contextmanager
    def step(self, phase: str) -> Iterator[None]:
        """Time a step, and tell whoever listens."""
        self.phase = phase
        self.request.listener.step(phase)
        clock = self.request.services.clock
        start = clock.monotonic()
        try:
            yield
        finally:
            self.seconds[phase] = self.seconds.get(phase, 0.0) + clock.monotonic() - start

    def mark(
        self, names: Iterable[SecretName], stage: Stage, error: FlysyncError | None = None, reason: Reason | None = None
    ) -> None:
        """Say how far *names* have come; the reason stays where none is given."""
        for name in names:
            before = self._lines.get(name)
            self._lines[name] = Line(stage, reason or (before.reason if before else None), error)
            if stage not in {Stage.PLANNED, Stage.UNCHANGED}:
                self._touched[name] = None

    @contextmanager
    def sending(self, names: Iterable[SecretName], phase: str, stage: Stage = Stage.SENDING) -> Iterator[None]:
        """
        Mark the worst of *names* while something is sent; an answer that is lost leaves it so.

        A known failure takes them back to where they were, with the error. Whoever sends marks what has succeeded.
        """
        before = {name: self._lines[name] for name in names}
        self.mark(before, stage, cut_short(phase))
        with self.step(phase):
            try:
                yield
            except OutcomeUnknown as error:
                self.mark(before, stage, error)
                raise
            except FlysyncError as error:
                for name, line in before.items():
                    self._lines[name] = replace(line, error=error)
                raise

    async def announce(self, changes: Iterable[Change], seen: ProjectView) -> None:
        """Commit the intent, and that these values are about to be sent (or removed)."""
        records, options = self.request.services.records, self.request.options
        fingerprints = {change.name: change.fingerprint for change in changes}
        self._touched |= dict.fromkeys(fingerprints)
        insists = options.retry if self.request.removes else options.force
        await records.begin(self.intent, fingerprints, seen=seen, insists=insists, take_over=options.take_over)
        self.has_begun = True

    @property
    def intent(self) -> Intent:
        """What this run is about to do."""
        request, options = self.request, self.request.options
        return Intent(
            run_id=self.run_id,
            project=request.project,
            app=self.view.app if self.view else None,
            names=tuple(dict.fromkeys((*(request.names or ()), *self._touched, *self._lines))),
            origin=options.origin,
            actor=options.actor or "",
            reason=options.reason,
            sandbox=self.sandbox_name,
            borrowed=request.is_borrowed,
            deadline_s=request.left_s + TTL_MARGIN_S,
            removes=request.removes,
        )

    def expect(self, planned: Plan, *, joined: bool = False) -> None:
        """Note what is planned, in the place of an earlier plan; of those that have *joined*, what is not known yet."""
        known, self._lines = self._lines if joined else {}, {}
        self._notes = {key: note for key, note in self._notes.items() if joined or note.code != "superseded"}
        for name, error in planned.failures:
            stage = Stage.STORED if isinstance(error, DeployFailed) else Stage.PLANNED
            self._lines[name] = Line(stage, Reason.UNCHANGED if stage is Stage.STORED else None, error)
        for change in planned.changes:
            self._lines[change.name] = Line(Stage.PLANNED if change.is_work else Stage.UNCHANGED, change.reason)
        self._lines = known | self._lines | known
        if superseded := [change.name for change in planned.changes if change.superseded]:
            self.supersede(superseded)

    def supersede(self, names: Sequence[SecretName]) -> None:
        """Note that the rows decide against the caller: with other values, or by being there."""
        message = "the stored value differs from the one given, and was used"
        if self.request.removes:
            self.mark(names, Stage.UNCHANGED, reason=Reason.UNCHANGED)
            message = f"still in cloud_credentials, and not removed: {', '.join(names)}"
        self.note("superseded", message, names)

    def fail(self, error: FlysyncError) -> None:
        """Note that the run as a whole has failed."""
        self._errors.append(error)

    def note(self, code: str, message: str, names: Iterable[str] = ()) -> None:
        """Add a warning, once; a later one of the same code and names takes its place."""
        self.warn(Note(code=code, message=message, names=tuple(names)))

    def warn(self, *notes: Note) -> None:
        """Add warnings that are made already; see `note`."""
        self._notes |= {(note.code, note.names): note for note in notes}

    def leave_sandbox(self, name: str, why: str) -> None:
        """Note that a sandbox of ours is there, and how to get rid of it; until `deleted_sandbox`."""
        self.note("sandbox_left", f"sandbox {name} {why}; {end_of_it(is_local=LOCAL in name)}", [name])
        self._next = [*(step for step in self._next if step != PRUNE), PRUNE]

    def deleted_sandbox(self, name: str) -> None:
        """Note that the sandbox was deleted."""
        del self._notes["sandbox_left", (name,)]
        self._next.remove(PRUNE)

    def cover(self, run: RunRow) -> None:
        """Note that another run has done the work."""
        self.covered_by, self.release, self.recorded = run.run_id, run.release, True

    def suggest(self, command: str, why: str) -> None:
        """Add a command that is worth running next, once."""
        self._next = [*dict.fromkeys((*self._next, NextStep(command=command, why=why)))]

    def is_old(self, name: SecretName, mac: str | None) -> bool:
        """Tell whether a digest is that of another value than the one that this run has sent."""
        fingerprint, old = self.before.get(name, (None, None))
        return mac is not None and mac == old and fingerprint != self.at_fly.get(name)

    @property
    def may_be_at_work(self) -> bool:
        """Whether a command may still be running in the sandbox."""
        return any(line.stage.may_be_at_work for line in self._lines.values())

    @property
    def rows(self) -> Mapping[SecretName, State]:
        """What becomes of the rows of the secrets that this run has touched."""
        lines = {name: self._lines[name].stage.row for name in self._touched if name in self._lines}
        return self.settled | {name: row for name, row in lines.items() if row is not None}

    @property
    def arrived(self) -> Mapping[SecretName, Outcome]:
        """What has arrived at Fly, for the action: outcomes by name."""
        mine = {
            name: line.outcome
            for name, line in self._lines.items()
            if name in self._touched and line.outcome in {Outcome.SYNCED, Outcome.STAGED} and line.error is None
        }
        return {**dict.fromkeys((*self.settled, *self.confirmed), Outcome.SYNCED), **mine}

    def at(self, stage: Stage) -> tuple[SecretName, ...]:
        """Give the secrets that this run has brought to *stage*, without a failure."""
        there = (name for name, line in self._lines.items() if line.stage is stage and line.error is None)
        return tuple(filter(self.is_touched, there))

    def is_touched(self, name: SecretName) -> bool:
        """Tell whether the row of a secret is this run's to write."""
        return name in self._touched

    def outcome_of(self, name: SecretName) -> Outcome | None:
        """Give what is known of one secret."""
        return self._lines[name].outcome if name in self._lines else None

    def _credentials(self) -> Iterator[CredentialReport]:
        """Give a line for each secret; those of which nothing is known share the failure of the run."""
        for name in dict.fromkeys((*self._lines, *((self.request.names or ()) if self._errors else ()))):
            line = self._lines.get(name, Line(Stage.PLANNED))
            if line.outcome is None and self._errors and not self.dry_run:
                line = replace(line, error=self._errors[0])
            yield CredentialReport(name=name, outcome=line.outcome, reason=line.reason, error=line.error)

    @property
    def failure(self) -> FlysyncError | None:
        """The first failure of the run as a whole."""
        return next(iter(self._errors), None)

    @property
    def error(self) -> FlysyncError | None:
        """The gravest failure; the run's before a name's."""
        return gravest(self._errors, (line.error for line in self._lines.values()))

    def run_end(self) -> RunEnd:
        """Give how the run has ended, for its row."""
        report, error = self.report(), self.error
        return RunEnd(
            outcome=report.outcome or Outcome.UNKNOWN,
            error_code=error.code if error else None,
            release=self.release,
            seconds={phase: round(seconds, 3) for phase, seconds in self.seconds.items()},
            results={line.name: line.result for line in report.credentials},
        )

    def report(self) -> SyncReport:
        """Give the report as of now."""
        return SyncReport(
            run_id=self.run_id,
            project=self.request.project,
            app=self.view.app if self.view else None,
            credentials=tuple(self._credentials()),
            release=self.release,
            machines=self.machines,
            recorded=self.recorded,
            covered_by=self.covered_by,
            dry_run=self.dry_run,
            timings_ms={phase: round(seconds * 1000) for phase, seconds in self.seconds.items()},
            warnings=tuple(self._notes.values()),
            error=self.error,
            next=tuple(self._next),
        )
