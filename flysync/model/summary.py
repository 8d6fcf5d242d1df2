"""All projects in a few numbers, with what is doubtful about them. Frozen, and without any I/O."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from flysync.errors import AmbiguousDeployment
from flysync.model.reports import Note, Overview

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from flysync.model.core import AppName, ProjectId


@dataclass(frozen=True, kw_only=True, slots=True)
class Some:
    """How many there are of something, and the first of them."""

    count: int = 0
    first: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """How far all projects have come."""

    projects: int = 0
    credentials: int = 0
    behind: int = 0  #: Projects with an app to which not all of their credentials have arrived.
    failed: int = 0  #: Those of them whose newest try has failed.
    failures: Mapping[str, int] = field(default_factory=dict)  #: The same by the error's code.
    given_up: int = 0  #: Those of them that nobody tries again until their rows or their deployment change.
    oldest: ProjectId | None = None  #: The one that is behind longest, as far as that is known.
    behind_since: datetime | None = None  #: Since when.
    behind_s: float | None = None  #: For how many seconds, by Postgres' clock.
    no_app: Some = Some()  #: Projects with credentials that were never deployed.
    no_credentials: Some = Some()  #: Deployed projects without any.
    several_apps: Some = Some()  #: Projects whose newest deployments name several apps.
    shared_apps: Some = Some()  #: Apps that the newest deployments of several projects name.


#: Apps that a message names; one project may have been deployed to any number.
_NAMED = 10


def listed(names: Sequence[str], count: int) -> str:
    """Give *names*, and how many of *count* are not among them."""
    rest = count - len(names)
    return ", ".join(names) + (f" and {rest:,} more" if rest > 0 else "")


def doubtful_apps(overview: Overview) -> list[Note]:
    """Warn of projects that are deployed to several apps, and of apps whose secrets only one project may write."""
    several = [several_apps(project, sorted(apps)) for project, apps in overview.several.items()]
    shared = [shared_app(app, its, len(its), overview.owners.get(app)) for app, its in overview.shared.items()]
    return [*several, *shared]


def several_apps(project: ProjectId, apps: Sequence[str]) -> Note:
    """Warn of a project whose newest deployments name several apps."""
    message = f"the newest deployments of {project} name several apps: {listed(apps[:_NAMED], len(apps))}"
    return Note(code=AmbiguousDeployment.code, message=message, names=(project,))


def shared_app(app: AppName, projects: Sequence[ProjectId], count: int, owner: ProjectId | None) -> Note:
    """Warn of an app of *count* projects, of which the first are given, and whose secrets only one may write."""
    whose = f"project {owner} owns its secrets" if owner else "nobody owns its secrets yet"
    message = f"{app} is the newest deployment of several projects: {listed(projects, count)}; {whose}"
    return Note(code="shared_app", message=message, names=(app, *projects))
