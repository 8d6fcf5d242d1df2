"""Everything that a sync needs, looked at in order: each thing with its way out, and the command to run next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from flysync.errors import AmbiguousDeployment, ConfigError, FlysyncError
from flysync.extras import how_to_add
from flysync.handlers.doctor.findings import Findings
from flysync.handlers.doctor.fly_checks import SandboxLook
from flysync.handlers.prune import list_sandboxes
from flysync.model.core import is_app_name
from flysync.model.reports import PRUNE, NextStep, command

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from flysync.model.core import AppName, ProjectId
    from flysync.model.reports import ConfigReport, Finding
    from flysync.ports import JobQueue, ProgressListener, Services

#: Seconds by which two clocks may differ.
_SKEW_S = 30.0
#: How many apps are looked for where none is named.
_APPS = 3

#: The settings that each part of the world is found by. One that is broken must not count as not set: a credential
#: would go to the place that is the default.
_FOUND_BY = {
    "database": ("DATABASE_URL", "FLYSYNC_DB_SCHEMA"),
    "daytona": ("DAYTONA_", "FLYSYNC_SNAPSHOT"),
    "fly": ("FLY_API_BASE_URL", "FLY_FLAPS_BASE_URL", "FLY_UIEX_BASE_URL", "FLYSYNC_FLYCTL_"),
    "redis": ("REDIS_URL", "FLYSYNC_QUEUE"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class DoctorReport:
    """What was found, in order."""

    findings: tuple[Finding, ...]
    next: tuple[NextStep, ...]
    #: What failed: the code is that of the first; absent where nothing has.
    error: FlysyncError | None = None

    @property
    def exit_code(self) -> int:
        """1 where anything failed; a warning alone is fine."""
        return int(self.error is not None)


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """What a doctor is asked."""

    #: What the process is set to.
    settings: ConfigReport
    #: The settings that a sync needs.
    needs: Sequence[str]
    #: Whose app is looked for at Fly; or which.
    project: ProjectId | None = None
    app: AppName | None = None
    #: Make no sandbox, and do without a token of Fly's.
    offline: bool = False
    #: Gives the worker's queue, where there is an address of Redis; ImportError says what the worker lacks.
    queue: Callable[[], JobQueue] | None = None


async def doctor(question: Question, *, services: Services, listener: ProgressListener) -> DoctorReport:
    """Look at everything; whatever goes wrong is a finding, and what hangs on it is not looked at."""
    checkup = _Checkup(question, services, listener)
    checkup.settings()
    await checkup.database()
    await checkup.daytona()
    await checkup.leftovers()
    await checkup.sandbox()
    await checkup.redis()
    return checkup.report()


class _Checkup:
    """One look at everything; each part says whether those that follow can hang on it."""

    def __init__(self, question: Question, services: Services, listener: ProgressListener) -> None:
        self._asked = question
        self._services = services
        self._listener = listener
        self._findings = Findings()
        self._next: list[NextStep] = []
        self._has_database = self._has_daytona = False

    def settings(self) -> None:
        """Every problem, and where what a sync needs comes from."""
        settings = self._asked.settings
        for problem in settings.problems:
            self._findings.fail("settings", ConfigError(problem, hint="`flysync config show` shows them all"))
        for note in settings.warnings:
            self._findings.warn("settings", note.message)
        for name in (*self._asked.needs, "DAYTONA_API_URL"):
            line = settings.line(name)
            if line.shown is not None:
                self._findings.ok(name, f"{line.source}: {line.shown}")
            elif line.is_usable:
                hint = f"set it in the environment or in .env, or: flysync config set {name}"
                if self._asked.offline and name.startswith("FLY_"):
                    self._findings.warn(name, "not set: a sync needs it", hint)
                else:
                    self._findings.fail(name, ConfigError("not set", hint=hint, setting=name))

    async def database(self) -> None:
        """Where it is, what `db check` says, and the clocks."""
        if why := self._unusable("database"):
            self._findings.skip("database", why)
            return
        self._listener.step("database")
        clock, admin = self._services.clock, self._services.admin
        with self._findings.of("database"):
            before = clock.now()
            server = await admin.server()
            after = clock.now()
            where = f"{server.database} at {server.host}:{server.port}"
            self._findings.ok("database", f"connected to {where} as {server.user}")
            self._has_database = self._findings.add(await admin.check())
            behind_s = max((server.now - after).total_seconds(), 0.0) - max((before - server.now).total_seconds(), 0.0)
            if abs(behind_s) > _SKEW_S:
                side = "behind" if behind_s > 0 else "ahead of"
                message = f"this machine's clock is {abs(behind_s):.0f} s {side} Postgres'; no decision hangs on it"
                self._findings.warn("clock", message, "let NTP set it, for the sake of the logs")
            else:
                self._findings.ok("clock", "this machine's agrees with Postgres'")

    async def daytona(self) -> None:
        """Whether the key is accepted."""
        if why := self._unusable("daytona"):
            self._findings.skip("daytona", why)
            return
        self._listener.step("daytona")
        with self._findings.of("daytona"):
            await self._services.sandboxes.list()
            self._has_daytona = True
            url, target = (self._asked.settings.line(f"DAYTONA_{name}").shown for name in ("API_URL", "TARGET"))
            self._findings.ok("daytona", f"{url} accepts the key, target {target or 'its own default'}")

    async def leftovers(self) -> None:
        """Sandboxes that nobody needs, and runs that died in the middle."""
        if not (self._has_database and self._has_daytona):
            why = "the database is not ready" if self._has_daytona else "Daytona cannot be asked"
            self._findings.skip("leftovers", why)
            return
        self._listener.step("leftovers")
        with self._findings.of("leftovers"):
            found = [line for line in (await list_sandboxes(services=self._services)).lines if line.is_left]
            dead = await self._dead_runs()
            if found:
                names = ", ".join(line.sandbox.name for line in found)
                self._findings.warn("sandboxes", f"{len(found)} left that nobody needs: {names}", PRUNE.command)
            if dead:
                message = f"{len(dead)} never ended, and the process is gone: {', '.join(dead)}"
                self._findings.warn("runs", message, f"the next sync of the app sees to it, or: {PRUNE.command}")
            if found or dead:
                self._next.append(PRUNE)
            else:
                self._findings.ok("leftovers", "no sandbox was left, and no run has died")

    async def _dead_runs(self) -> list[str]:
        """Give the runs without an end whose app nobody holds: a process that lives has its lock."""
        records = self._services.records
        ids = [run.run_id for run in (await records.overview(None, values=False)).open_runs]
        dead = []
        for run_id, run in (await records.runs(ids)).known.items():
            hold = None if run.finished or run.app is None else await self._services.lock.try_acquire(run.app)
            if hold is not None:
                await hold.release()
                dead.append(f"{run_id} ({run.app})")
        return dead

    async def sandbox(self) -> None:
        """What can be seen from nowhere else."""
        why = "--offline" if self._asked.offline else self._unusable("fly")
        if why or not self._has_daytona:
            self._findings.skip("sandbox", why or "Daytona cannot be asked")
            return
        has_token = self._asked.settings.line("FLY_API_TOKEN").shown is not None
        apps = await self._apps() if has_token else []
        look = SandboxLook(self._findings, self._services, self._listener, has_token=has_token)
        is_asked_for = (self._asked.project, self._asked.app) != (None, None)
        snapshot = self._asked.settings.line("FLYSYNC_SNAPSHOT").shown
        self._next += await look.run(apps, all_of_them=is_asked_for, snapshot=snapshot)

    async def _apps(self) -> list[AppName]:
        """Give the apps that the token has to show."""
        if self._asked.app is not None:
            return [self._asked.app]
        found: Sequence[AppName] = ()
        if not self._has_database:
            self._findings.skip("app", "the database is not ready; --app names one")
        elif self._asked.project is None:
            with self._findings.of("app"):
                found = await self._services.records.newest_apps(_APPS)
                if not found:
                    self._findings.skip("app", "no project is deployed yet")
        else:
            with self._findings.of("app"):
                view = await self._services.records.view(self._asked.project, [], app=None, values=False)
                if len(view.apps) > 1:
                    told = f"the newest deployments of {view.project} name several apps: {', '.join(view.apps)}"
                    raise AmbiguousDeployment(told)
                if view.app is None:
                    self._findings.warn("app", f"project {view.project} is not deployed yet", "--app names one")
                else:
                    found = [view.app]
        return [app for app in found if is_app_name(app)]

    async def redis(self) -> None:
        """What the worker asks before it takes a job."""
        if self._asked.queue is None:
            return
        if why := self._unusable("redis"):
            self._findings.skip("redis", why)
            return
        self._listener.step("redis")
        with self._findings.of("redis"):
            try:
                queue = self._asked.queue()
            except ImportError:
                self._findings.warn("redis", "the worker needs more packages", how_to_add("worker"))
                return
            try:
                await queue.check()
                name = self._asked.settings.line("FLYSYNC_QUEUE").shown
                self._findings.ok("redis", f"jobs are safe there, and the queue {name} is BullMQ's")
            finally:
                await queue.close()

    def report(self) -> DoctorReport:
        """Give all of it, and what to run next."""
        found, first = self._findings.all, self._findings.error
        if first is None:
            steps = self._next or [self._all_well()]
            return DoctorReport(findings=tuple(found), next=tuple(dict.fromkeys(steps)))
        failed = {one.subject: one.hint or "" for one in found if one.verdict == "failed"}
        told = f"{len(failed)} check{'s' * (len(failed) > 1)} failed: {', '.join(failed)}"
        error = type(first)(told, hint=first.hint, service=first.service, setting=first.setting)
        is_bare = any(hint.startswith(f"run `{_INIT.command}`") for hint in failed.values())
        again = NextStep(command=self._command(offline=self._asked.offline), why="looks again, once that is mended")
        steps = [*self._next, _INIT if is_bare else again]
        return DoctorReport(findings=tuple(found), next=tuple(dict.fromkeys(steps)), error=error)

    def _all_well(self) -> NextStep:
        if self._asked.offline:
            return NextStep(command=self._command(offline=False), why="looks at Fly too, from a sandbox")
        if self._asked.project is not None:
            words = ("sync-project", "--project", self._asked.project, "--dry-run")
            return NextStep(command=command(*words), why="shows what a sync would do")
        return NextStep(command="flysync status", why="shows what there is to bring")

    def _command(self, *, offline: bool) -> str:
        """Give the command that looks at the same."""
        words = ["doctor"]
        if self._asked.project is not None:
            words += ["--project", self._asked.project]
        if self._asked.app is not None:
            words += ["--app", self._asked.app]
        return command(*words, *(["--offline"] if offline else []))

    def _unusable(self, part: str) -> str:
        """Say why a part of the world cannot be found; nothing where it can."""
        settings = self._asked.settings
        if settings.unread:
            return f"any setting may have stood in what cannot be read ({settings.unread[0].split(' ')[0]})"
        lines = [line for line in settings.lines if line.name.startswith(_FOUND_BY[part])]
        lacking = [
            line.name for line in lines if not line.is_usable or (line.name in self._asked.needs and line.shown is None)
        ]
        return f"{lacking[0]} is needed" if lacking else ""


_INIT = NextStep(command="flysync db init", why="creates the tables that are missing")
