"""Checks of everything that a sync needs, in order; each problem with how to fix it, and the command to run next."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from flysync.errors import ConfigError
from flysync.extras import how_to_add
from flysync.handlers.compare import ambiguous
from flysync.handlers.database import CheckReport
from flysync.handlers.doctor.findings import Findings
from flysync.handlers.doctor.fly_checks import SandboxLook
from flysync.handlers.doctor.next_one import SETTINGS, first_sync
from flysync.handlers.prune import list_sandboxes
from flysync.handlers.sandbox import PRUNE_HERE
from flysync.handlers.status_all import Selection, surveyed
from flysync.model.core import AppName, ProjectId, is_app_name
from flysync.model.reports import PRUNE, NextStep, chosen, command
from flysync.model.summary import Summary

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from flysync.model.config import ConfigReport
    from flysync.ports import JobQueue, OwnTokens, ProgressListener, Services
    from flysync.secret import Secret

#: Seconds by which two clocks may differ.
_SKEW_S = 30.0
#: How many apps are checked where none is named, and among how many one is looked for.
_APPS, _ALL = 3, 1_000

#: The settings that lead to each service. A broken one must not count as unset: credentials would go to the default
#: place.
_SETTINGS_OF = {
    "database": ("DATABASE_URL", "FLYSYNC_DB_SCHEMA", "FLYSYNC_STATE_SCHEMA"),
    "daytona": ("FLYSYNC_RUNNER", "DAYTONA_", "FLYSYNC_SNAPSHOT", "FLYSYNC_EGRESS"),
    "fly": ("FLY_API_BASE_URL", "FLY_FLAPS_BASE_URL", "FLY_UIEX_BASE_URL", "FLYSYNC_FLYCTL_"),
    "redis": ("REDIS_URL", "FLYSYNC_QUEUE"),
}


class DoctorReport(CheckReport):
    """What was found, in order; its error names all that failed, and its code is that of the first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DoctorOptions:
    """What to check."""

    settings: ConfigReport  #: The settings of this process.
    needs: Sequence[str]  #: The settings that a sync needs; one of them is where Fly's tokens come from.
    #: The project whose app is checked at Fly, or the app itself.
    project: ProjectId | None = None
    app: AppName | None = None
    offline: bool = False  #: Start no sandbox, and do without Fly's token.
    #: Gives the worker's queue, where Redis has an address; raises ImportError where the worker's packages are missing.
    queue: Callable[[], JobQueue] | None = None


async def doctor(options: DoctorOptions, *, services: Services, listener: ProgressListener) -> DoctorReport:
    """Check everything; whatever goes wrong is a finding, and what depends on it is skipped."""
    return await _Checkup(options, services, listener).run()


class _Checkup:
    """One check of everything."""

    def __init__(self, options: DoctorOptions, services: Services, listener: ProgressListener) -> None:
        self._options = options
        self._services = services
        self._listener = listener
        self._findings = Findings()
        self._next: list[NextStep] = []
        self._summary = Summary()

    async def run(self) -> DoctorReport:
        """Check one part after the other; whatever goes wrong with one ends that one alone."""
        self._settings()
        has_database = await self._part("database", self._unusable("database"), self._database)
        runner, where = ("runner", "this machine") if self._options.settings.is_local else ("daytona", "Daytona")
        has_runner = await self._part(runner, self._unusable("daytona"), self._runner)
        no_runner = "" if has_runner else f"{where} cannot be used"
        no_database = "" if has_database else "the database is not ready"
        await self._part("leftovers", no_runner or no_database, self._leftovers)
        if why := "--offline" if self._options.offline else self._unusable("fly") or no_runner:
            if self._options.project is not None and has_database:
                await self._findings.of("app", self._apps(self._options.project, None))
            self._findings.skip("sandbox", why)
        else:
            await self._sandbox(has_database=has_database)
        if self._options.queue is not None:
            await self._part("redis", self._unusable("redis"), partial(self._redis, self._options.queue))
        return self._report()

    async def _part(self, name: str, why_not: str, check: Callable[[], Awaitable[bool]]) -> bool:
        """Check one part, unless there is a reason why not; tell whether what depends on it can go on."""
        if why_not:
            self._findings.skip(name, why_not)
            return False
        self._listener.step(name)
        return bool(await self._findings.of(name, check()))

    def _settings(self) -> None:
        """Every problem, and the sources of what a sync needs."""
        settings = self._options.settings
        for problem in settings.problems:
            self._findings.fail("settings", ConfigError(problem, hint="`flysync config show` shows all settings"))
        for note in settings.warnings:
            self._findings.warn("settings", note.message)
        for name in (*self._options.needs, "FLYSYNC_RUNNER" if self._options.settings.is_local else "DAYTONA_API_URL"):
            line = settings.line(name)
            if line.shown is not None:
                self._findings.ok(name, f"{line.source}: {line.shown}")
            elif line.is_usable:
                hint = f"set it in the environment or in .env, or: flysync config set {name}"
                if self._options.offline and name.startswith("FLY_"):
                    self._findings.warn(name, "not set: a sync needs it", hint)
                else:
                    error = ConfigError("not set", hint=hint, setting=name)
                    self._findings.fail(name, error, fix=SETTINGS.get(name))

    async def _database(self) -> bool:
        """Its address, the findings of `db check`, and the clocks."""
        clock, admin = self._services.clock, self._services.admin
        before = clock.now()
        server = await admin.server()
        after = clock.now()
        where = f"{server.database} at {server.host}:{server.port}"
        self._findings.ok("database", f"connected to {where} as {server.user}")
        is_ready = self._findings.add(await admin.check())
        behind_s = max((server.now - after).total_seconds(), 0.0) - max((before - server.now).total_seconds(), 0.0)
        if abs(behind_s) > _SKEW_S:
            side = "behind" if behind_s > 0 else "ahead of"
            message = f"this machine's clock is {abs(behind_s):.0f} s {side} Postgres'; no decision depends on it"
            self._findings.warn("clock", message, "let NTP set it, for correct times in the logs")
        else:
            self._findings.ok("clock", "this machine's clock agrees with Postgres'")
        return is_ready

    async def _runner(self) -> bool:
        """Whether Daytona accepts the key; or who else sees what runs on this machine."""
        await self._services.sandboxes.list()
        if self._options.settings.is_local:
            if onlookers := self._services.sandboxes.onlookers:
                message = f"{onlookers} can read the values in flyctl's arguments while it runs"
                self._findings.warn("runner", message, "mount /proc with hidepid=2, or run flysync in a container")
            else:
                self._findings.ok("runner", "flyctl runs on this machine, where only root and this user see it run")
            return True
        url, target = (self._options.settings.line(f"DAYTONA_{name}").shown for name in ("API_URL", "TARGET"))
        self._findings.ok("daytona", f"{url} accepts the key, target {target or 'Daytona default'}")
        return True

    async def _leftovers(self) -> bool:
        """Sandboxes that are no longer needed, and runs that died."""
        sandboxes = [line for line in (await list_sandboxes(services=self._services)).lines if line.is_left]
        survey = await surveyed(Selection(), services=self._services, values=not self._is_from_caller)
        self._summary = survey.summary()
        for note in survey.notes():
            self._findings.warn("deployments", note.message, "correct project_deployments")
        _, died = await self._services.records.unfinished_runs()
        known, _ = await self._services.records.runs([*died])
        dead = [f"{run_id} ({run.app})" for run_id, run in known.items()]
        prune = PRUNE_HERE if self._options.settings.is_local else PRUNE.command
        if sandboxes:
            names = ", ".join(line.sandbox.name for line in sandboxes)
            message = f"{_counted(len(sandboxes), 'leftover sandbox', 'es')}: {names}"
            self._findings.warn("sandboxes", message, prune)
        if dead:
            message = f"{_counted(len(dead), 'run')} died: {', '.join(dead)}"
            self._findings.warn("runs", message, f"the app's next sync closes it, or: {prune}")
        if sandboxes or dead:
            self._next.append(PRUNE)
        else:
            self._findings.ok("leftovers", "no leftover sandboxes, no dead runs")
        return True

    async def _sandbox(self, *, has_database: bool) -> None:
        """All that has to be checked from a sandbox."""
        findings, project, app = self._findings, self._options.project, self._options.app
        source, has_token = self._source, self._options.settings.line(self._source).shown is not None
        no_token = "" if has_token else f"{source} is needed"
        tokens: OwnTokens = {}
        apps: Mapping[AppName, ProjectId] = {}
        if has_token and app is not None and not self._asks:
            apps = {app: ProjectId("")}
        elif has_token and not has_database:
            findings.skip("app", "the database is not ready" + ("" if self._asks else "; --app names one"))
        elif has_token:
            apps = await findings.of("app", self._apps(project, app)) or {}
        if has_token and self._asks:
            tokens = await findings.of("token command", self._own_tokens(apps)) or {}
            no_token = "" if tokens else f"{source} has given none"
        look = SandboxLook(findings, self._services, self._listener, self._options.settings, source)
        all_of_them = (project, app) != (None, None)
        self._next += await look.run([] if no_token else [*apps], tokens, all_of_them=all_of_them, no_token=no_token)

    async def _own_tokens(self, apps: Mapping[AppName, ProjectId]) -> OwnTokens:
        """Ask for the tokens that apps have of their own."""
        self._listener.step("token command")
        tokens: dict[AppName, Secret] = {}
        for app, project in apps.items():
            began = self._services.clock.monotonic()
            tokens |= await self._services.own_token(project, app)
            took_s = self._services.clock.monotonic() - began
            self._findings.ok("token command", f"it gives a token for {app} of {project}, after {took_s:.1f} s")
        return tokens

    async def _apps(self, project: ProjectId | None, app: AppName | None) -> Mapping[AppName, ProjectId]:
        """Give the apps that the token has to show: the one of *project*, *app*, or the newest; one of them its own."""
        if project is None:
            known = await self._services.records.newest_apps(_APPS if app is None else _ALL)
            named = {one: its for one, its in known.items() if is_app_name(one) and app in {None, one}}
            if not named:
                self._findings.skip("app", f"no project is deployed to {app}" if app else "no project is deployed yet")
            return dict([*named.items()][: 1 if self._asks else None])
        view = await self._services.records.view(project, [], app=None, values=False)
        if len(view.apps) > 1:
            raise ambiguous(view)
        if view.app is None:
            self._findings.warn("app", f"project {view.project} is not deployed yet", "--app names one")
            return {}
        return {view.app: view.project} if is_app_name(view.app) else {}

    async def _redis(self, open_queue: Callable[[], JobQueue]) -> bool:
        """What the worker checks before it takes a job."""
        try:
            queue = open_queue()
        except ImportError:
            self._findings.warn("redis", "the worker needs more packages", how_to_add("worker"))
            return False
        try:
            await queue.check()
            name = self._options.settings.line("FLYSYNC_QUEUE").shown
            self._findings.ok("redis", f"jobs are safe there, and the queue {name} is BullMQ's")
        finally:
            await queue.close()
        return True

    def _report(self) -> DoctorReport:
        """Give all of it, and what to run next."""
        findings, first = tuple(self._findings.all), self._findings.error
        if first is None:
            steps = self._next or [self._nothing_to_fix()]
            return DoctorReport(findings=findings, next=tuple(dict.fromkeys(steps)))
        failed = [finding for finding in findings if finding.verdict == "failed"]
        subjects = dict.fromkeys(finding.subject for finding in failed)
        message = f"{_counted(len(subjects), 'check')} failed: {', '.join(subjects)}"
        error = type(first)(message, hint=first.hint, service=first.service, setting=first.setting)
        again = NextStep(command=self._command(offline=self._options.offline), why="run again after fixing this")
        steps = [*self._next, failed[0].fix or again]
        return DoctorReport(findings=findings, next=tuple(dict.fromkeys(steps)), error=error)

    @property
    def _source(self) -> str:
        """The setting that Fly's tokens come from."""
        return next(name for name in self._options.needs if "TOKEN" in name)

    @property
    def _asks(self) -> bool:
        """Whether each app has a token of its own, which a command is asked for."""
        return self._source != "FLY_API_TOKEN"

    @property
    def _is_from_caller(self) -> bool:
        return self._options.settings.line("FLYSYNC_VALUE_SOURCE").shown == "caller"

    def _nothing_to_fix(self) -> NextStep:
        if self._options.offline:
            return NextStep(command=self._command(offline=False), why="checks Fly too, from a sandbox")
        if self._options.project is not None:
            words = ("sync-project", "--project", self._options.project, "--dry-run")
            return NextStep(command=command(*words), why="shows what a sync would do")
        if self._is_from_caller:  # it alone can begin a sync
            return NextStep(command="flysync status", why="shows what is not deployed; your backend gives the values")
        return first_sync(self._summary)

    def _command(self, *, offline: bool) -> str:
        """Give the command that checks the same."""
        named = chosen(project=self._options.project, app=self._options.app)
        return command("doctor", *named, *(["--offline"] if offline else []))

    def _unusable(self, service: str) -> str:
        """Say why a service cannot be reached by the settings; nothing where it can."""
        settings = self._options.settings
        if settings.has_unread:
            return "what cannot be read of the settings may concern it"
        lines = [line for line in settings.lines if line.name.startswith(_SETTINGS_OF[service])]
        for line in lines:
            if not line.is_usable or (line.name in self._options.needs and line.shown is None):
                return f"{line.name} is needed"
        return ""


def _counted(count: int, noun: str, plural: str = "s") -> str:
    return f"{count} {noun}{plural if count > 1 else ''}"
