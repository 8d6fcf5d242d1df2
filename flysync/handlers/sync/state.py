"""What is known of a sync at any moment of it; in the end, its report."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from flysync.errors import ConfigError, Interrupted, UsageError
from flysync.model.core import Outcome, RunId
from flysync.model.reports import PRUNE, CredentialReport, NextStep, Note, SyncReport
from flysync.ports import RunEnd

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from flysync.errors import FlysyncError
    from flysync.model.core import AppName, ProjectId, Reason, SecretName
    from flysync.model.fly import Machines
    from flysync.plan import Plan
    from flysync.ports import Clock, OnProgress, ProgressListener


class Ledger:
    """
    The bookkeeping of one sync.

    Whoever is about to do what may go wrong writes down the worst first, and the truth when it is known: so the
    report is right whenever the run is cut short.
    """

    def __init__(self, project: ProjectId, clock: Clock, listener: ProgressListener | None) -> None:
        self.project = project
        self.run_id = RunId(clock.new_id())
        self.app: AppName | None = None
        self.release: int | None = None
        self.machines: Machines | None = None
        self.recorded: bool | None = None
        self.covered_by: RunId | None = None
        self.dry_run = False
        self.seconds: dict[str, float] = {}
        self.phase = "read"
        self._clock = clock
        self._listener = listener
        self._lines: dict[SecretName, CredentialReport] = {}
        self._errors: dict[SecretName | None, FlysyncError] = {}
        self._notes: dict[tuple[str, tuple[str, ...]], Note] = {}
        self._next: list[NextStep] = []

    @contextmanager
    def step(self, phase: str) -> Iterator[None]:
        """Time a step, and tell whoever watches."""
        self.phase = phase
        if self._listener is not None:
            self._listener.step(phase)
        start = self._clock.monotonic()
        try:
            yield
        finally:
            self.seconds[phase] = self.seconds.get(phase, 0.0) + self._clock.monotonic() - start

    @property
    def on_progress(self) -> OnProgress | None:
        """Give who wants to be told how far a roll-out has come."""
        return None if self._listener is None else self._listener.on_progress

    def put(
        self,
        names: Iterable[SecretName],
        outcome: Outcome | None,
        reason: Reason | None = None,
        error: FlysyncError | None = None,
    ) -> None:
        """Say what has happened to *names*; the reason stays where none is given."""
        for name in names:
            before = self._lines.get(name)
            kept = reason or (before.reason if before else None)
            code = error.code if error else None
            self._lines[name] = CredentialReport(name=name, outcome=outcome, reason=kept, code=code)
            if error:
                self._errors[name] = error
            else:
                self._errors.pop(name, None)

    def expect(self, planned: Plan) -> None:
        """Write down what is planned, in the place of an earlier plan: reasons, what is unchanged, what cannot be."""
        self._lines.clear()
        # What made the run as a whole fail stays: the lock may be lost while the plan is being made.
        self._errors = {name: error for name, error in self._errors.items() if name is None}
        for name, error in planned.failures:
            self.put([name], Outcome.FAILED, error=error)
        for change in planned.changes:
            self.put([change.name], None if change.is_work else Outcome.UNCHANGED, change.reason)
        if planned.superseded:
            self.note("superseded", "the stored value differs from the one given, and was taken", planned.superseded)

    def fail(self, error: FlysyncError) -> None:
        """Note that the run as a whole has failed."""
        self._errors[None] = error

    def note(self, code: str, message: str, names: Iterable[str] = ()) -> None:
        """Add a warning, once; a later one of the same code and names takes its place."""
        note = Note(code=code, message=message, names=tuple(names))
        self._notes[code, note.names] = note

    def leave_sandbox(self, name: str, why: str) -> None:
        """Note that a sandbox of ours is there, and how to get rid of it; until `deleted_sandbox`."""
        self.note("sandbox_left", f"sandbox {name} {why}; it ends by itself", [name])
        self._next = [*(step for step in self._next if step != PRUNE), PRUNE]

    def deleted_sandbox(self, name: str) -> None:
        """Note that the sandbox was deleted."""
        del self._notes["sandbox_left", (name,)]
        self._next.remove(PRUNE)

    def suggest(self, command: str, why: str) -> None:
        """Add a command that is worth running next."""
        step = NextStep(command=command, why=why)
        if step not in self._next:
            self._next.append(step)

    def lines(self) -> tuple[CredentialReport, ...]:
        """Give what is known of each credential."""
        return tuple(self._lines.values())

    def outcome_of(self, name: SecretName) -> Outcome | None:
        """Give what is known of one credential."""
        return self._lines[name].outcome if name in self._lines else None

    def is_failed(self, names: Iterable[SecretName]) -> bool:
        """Tell whether any of *names* has failed."""
        return any(name in self._errors for name in names)

    def settle(self, names: Iterable[SecretName]) -> None:
        """Let those that nothing is known of, of *names* too, share the failure of the run."""
        error = self._errors.get(None)
        if error is None or self.dry_run:
            return
        for name in dict.fromkeys((*self._lines, *names)):
            if self.outcome_of(name) is None:
                reason = self._lines[name].reason if name in self._lines else None
                line = CredentialReport(name=name, outcome=Outcome.FAILED, reason=reason, code=error.code)
                self._lines[name] = line

    @property
    def error(self) -> FlysyncError | None:
        """The gravest failure: an interruption, misuse, a temporary one, a permanent one; the run's before a name's."""
        found = max(self._errors.items(), key=lambda item: (_gravity(item[1]), item[0] is None), default=None)
        return found[1] if found else None

    def run_end(self) -> RunEnd:
        """Give how the run has ended, for its row."""
        report = self.report()
        return RunEnd(
            outcome=report.outcome or Outcome.UNKNOWN,
            error_code=report.error.code if report.error else None,
            release=self.release,
            seconds={phase: round(seconds, 3) for phase, seconds in self.seconds.items()},
        )

    def report(self) -> SyncReport:
        """Give the report as of now."""
        return SyncReport(
            run_id=self.run_id,
            project=self.project,
            app=self.app,
            credentials=self.lines(),
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


def _gravity(error: FlysyncError) -> int:
    if isinstance(error, Interrupted):
        return 3
    if isinstance(error, UsageError | ConfigError):
        return 2
    return int(error.temporary)
