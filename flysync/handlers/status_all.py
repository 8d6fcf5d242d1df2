"""All projects: a summary first, then the state of their credentials, page by page, so that memory stays bounded."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from flysync.errors import AmbiguousDeployment, ProjectNotFound
from flysync.handlers.next_steps import otherwise
from flysync.handlers.status import StatusLine, StatusReport, described, no_such_app
from flysync.model.reports import NextStep, Note, chosen
from flysync.model.summary import Some, Summary, several_apps, shared_app

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from flysync.model.core import AppName, ProjectId
    from flysync.ports import ProjectStanding, Services, StandingsPage

#: Projects that are read at once: how they stand, and all of their credentials.
_STANDINGS, _OVERVIEW = 5000, 1000
#: How many of a kind are named.
_NAMED = 3
#: How many commands are suggested before one for all.
_STEPS = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """Which projects are shown: those that match all of this."""

    app: AppName | None = None
    behind: bool = False
    failed: bool = False
    since_s: float | None = None  #: Only what failed (with *failed*) or changed within so many seconds.

    def matches(self, standing: ProjectStanding) -> bool:
        """Tell whether a project is shown."""
        is_recent = standing.has_failed if self.failed else self.since_s is None or standing.has_changed
        return is_recent and (not self.behind or standing.is_behind)

    @property
    def words(self) -> list[str]:
        """The options of `status` that say so."""
        since = None if self.since_s is None else f"{self.since_s:.0f}s"
        flags = [f"--{name}" for name in ("behind", "failed") if getattr(self, name)]
        return [*chosen(app=self.app), *flags, *chosen(since=since)]


async def status_all(
    selection: Selection,
    *,
    services: Services,
    live: bool = False,
    values: bool = True,
    empty_allowed: bool = False,
    show: Callable[[StatusReport], None] | None = None,
) -> StatusReport:
    """
    Give the state of all projects that are selected; with *live* Fly is asked too, of all of them at once.

    What `show` has been given, part by part, is left out of the report; *live*, it is given nothing.

    Raises:
        ProjectNotFound: no project is deployed to the app that is selected.
    """
    survey = await surveyed(selection, services=services, values=values)
    found, summary = survey.found, survey.summary()
    size = max(1, len(found)) if live else _OVERVIEW
    page = StatusReport(lines=(), open_runs=())  # of several, none has anything from Fly: it is asked of all at once
    lines: list[StatusLine] = []
    notes: list[Note] = []
    shown: int | None = None
    fixes: dict[NextStep, None] = {}
    for start in range(0, len(found), size):
        with suppress(ProjectNotFound):  # the only one of a page may have gone since
            overview = await services.records.overview(*found[start : start + size], values=values)
            page, its = await described(
                overview, services=services, app=selection.app, live=live, empty_allowed=empty_allowed
            )
            fixes |= dict.fromkeys(its[: _STEPS + 1])
            notes += page.warnings
            if show is None or live:
                lines += page.lines
            else:
                show(replace(page, summary=summary if shown is None else None))
                shown = (shown or 0) + len(page.lines)
    open_runs, died = await services.records.unfinished_runs()
    notes += survey.notes()
    report = replace(page, lines=tuple(lines), open_runs=open_runs, died=died, warnings=tuple(notes))
    steps = list(fixes)[:_STEPS] or otherwise(report, selection.words, found, has_app=survey.has_app, live=live)
    if values and len(fixes) > _STEPS:
        steps = [NextStep(command="flysync sync-project --all", why="sends what is not deployed, of all projects")]
    return replace(report, summary=summary, shown=shown, next=tuple(dict.fromkeys((*report.next, *steps))))


async def surveyed(selection: Selection, *, services: Services, values: bool) -> Survey:
    """Look how all projects stand, a page at a time."""
    survey, last = Survey(selection), None
    while True:
        page = await services.records.survey(last, values=values, since_s=selection.since_s, limit=_STANDINGS)
        survey.add(page)
        last = page.last
        if last is None:
            return survey


class Survey:
    """How all projects stand, in numbers, and which of them are selected."""

    def __init__(self, selection: Selection) -> None:
        self.found: list[ProjectId] = []  #: Those that are selected.
        self.has_app = False  #: Whether any of them is deployed.
        self._selection = selection
        self._apps: set[AppName] = set()  #: All that were seen, where one is selected.
        self._counts: Counter[str] = Counter()
        self._failures: Counter[str] = Counter()
        self._some = dict.fromkeys(("no_app", "no_credentials", "several_apps", "shared_apps"), Some())
        self._notes: list[Note] = []
        self._oldest: tuple[datetime, ProjectId] | None = None
        self._now: datetime | None = None

    def add(self, page: StandingsPage) -> None:
        """Count the projects of a page."""
        self._now, app = page.now, self._selection.app
        for one in page.projects:
            its = {*one.apps, *one.other_apps}
            if app is None or app in its:
                self._add(one)
            else:
                self._apps |= its
        for one_app in page.shared:
            if app in {None, one_app.app} and self._is_among_first("shared_apps", one_app.app):
                self._notes.append(shared_app(one_app.app, one_app.projects, one_app.count, one_app.owner))

    def _add(self, one: ProjectStanding) -> None:
        behind, given_up = int(one.is_behind), int(one.is_given_up)
        self._counts.update(projects=1, credentials=one.credentials, behind=behind, given_up=given_up)
        if one.error_code is not None:
            self._failures[one.error_code] += 1
        if one.behind_since is not None:
            since = (one.behind_since, one.project)
            self._oldest = min(self._oldest or since, since)
        if one.credentials and not one.apps:
            self._is_among_first("no_app", one.project)
        if one.apps and not one.credentials:
            self._is_among_first("no_credentials", one.project)
        if len(one.apps) > 1 and self._is_among_first("several_apps", one.project):
            self._notes.append(several_apps(one.project, one.apps))
        if self._selection.matches(one):
            self.found.append(one.project)
            self.has_app |= bool(one.apps)

    def _is_among_first(self, kind: str, name: str) -> bool:
        some = self._some[kind]
        is_first = some.count < _NAMED
        self._some[kind] = Some(count=some.count + 1, first=(*some.first, name) if is_first else some.first)
        return is_first

    def summary(self) -> Summary:
        """
        Give the numbers.

        Raises:
            ProjectNotFound: no project is deployed to the app that is selected.
        """
        counts = self._counts
        if self._selection.app is not None and not counts["projects"]:
            raise no_such_app(self._selection.app, self._apps)
        since, oldest = self._oldest or (None, None)
        return Summary(
            projects=counts["projects"],
            credentials=counts["credentials"],
            behind=counts["behind"],
            given_up=counts["given_up"],
            failed=self._failures.total(),
            failures=dict(self._failures.most_common()),
            oldest=oldest,
            behind_since=since,
            behind_s=max(0.0, (self._now - since).total_seconds()) if since and self._now else None,
            **self._some,
        )

    def notes(self) -> list[Note]:
        """Give the warnings about the first of what is doubtful, and say how much more there is."""
        notes = list(self._notes)
        for kind, code, what in (
            ("several_apps", AmbiguousDeployment.code, "projects whose newest deployments name several apps"),
            ("shared_apps", "shared_app", "apps that are the newest deployment of several projects"),
        ):
            if (rest := self._some[kind].count - _NAMED) > 0:
                notes.append(Note(code=code, message=f"{rest:,} more {what}"))
        return notes
